//! `headwater selftest`: every kernel against its reference, on the user's own adapter.

use super::devices::device_settings;
use super::error::CliError;
use pipelines::{DeviceChoice, SelftestDepth};
use serde_json::json;
use std::io::Write;

/// Check every kernel against its reference on this machine's adapter.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// gpu (the best one), gpu:N, or part of an adapter's name; cpu checks the native executor
    #[arg(long, value_name = "DEVICE", default_value = "gpu")]
    device: DeviceChoice,

    /// Compile kernels with bounds checks
    #[arg(long)]
    checked: bool,

    /// One JSON object per case
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    let mut written = Ok(());
    let (mut passed, mut failed) = (0_usize, 0_usize);
    pipelines::selftest(&args.device, &device_settings(args.checked, None)?, SelftestDepth::Full, |case| {
        let (count, verdict) = if case.passed() { (&mut passed, "ok") } else { (&mut failed, "FAILED") };
        *count += 1;
        let line = if args.json {
            json!({
                "kernel": case.kernel, "case": case.case, "error": case.error, "tolerance": case.tolerance,
                "passed": case.passed(), "message": case.message,
            })
            .to_string()
        } else {
            let message = case.message.as_deref().map(|m| format!("  {m}")).unwrap_or_default();
            format!(
                "{verdict:6}  {:24}  {:44}  error {:.1e} of {:.1e}{message}",
                case.kernel, case.case, case.error, case.tolerance
            )
        };
        if written.is_ok() {
            written = writeln!(stdout, "{line}");
        }
    })?;
    if failed > 0 {
        return Err(CliError::Failed(format!("{failed} of {} checks failed on this device", passed + failed)));
    }
    written?;
    if !args.json {
        writeln!(stdout, "{passed} passed, 0 failed")?;
    }
    Ok(())
}
