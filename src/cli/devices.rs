//! `headwater devices`: what can compute on this machine.

use super::error::CliError;
use graph::DeviceInfo;
use pipelines::{DeviceSettings, KernelCache};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;

/// List what can compute on this machine.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A JSON array
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let settings = device_settings(false, None)?;
    let devices = pipelines::devices(&settings)?;
    let chosen = pipelines::automatic(&devices, &settings);
    let mut stdout = std::io::stdout().lock();
    if args.json {
        let list: Vec<_> = devices
            .iter()
            .enumerate()
            .map(|(i, d)| {
                json!({
                    "device": selector(i, d),
                    "name": d.name,
                    "kind": d.kind.to_string(),
                    "backend": d.backend,
                    "driver": d.driver,
                    "features": d.features,
                    "auto": chosen == Some(i),
                })
            })
            .collect();
        writeln!(stdout, "{}", serde_json::Value::from(list))?;
        return Ok(());
    }
    for (i, d) in devices.iter().enumerate() {
        let auto = if chosen == Some(i) { " (auto)" } else { "" };
        let features = if d.features.is_empty() { String::new() } else { format!("  [{}]", d.features.join(", ")) };
        writeln!(stdout, "{:6}{auto}  {}  {}, {}{features}", selector(i, d), d.name, d.kind, d.backend)?;
    }
    Ok(())
}

/// What `--device` takes for it. The CPU is last, after all adapters.
fn selector(index: usize, device: &DeviceInfo) -> String {
    if device.kind == graph::DeviceKind::Cpu { "cpu".to_owned() } else { format!("gpu:{index}") }
}

/// The environment's part in choosing a device, as other wgpu programs read it.
pub(super) fn device_settings(checked: bool, threads: Option<usize>) -> Result<DeviceSettings, CliError> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    Ok(DeviceSettings {
        backends: variable("WGPU_BACKEND"),
        adapter_name: variable("WGPU_ADAPTER_NAME"),
        checked,
        least_limits: false,
        kernel_cache: kernel_cache()?,
        threads,
        max_memory: None,
        max_native_memory: super::memory::available(),
    })
}

/// The program's cache folder, by the XDG base directory specification, which passes over relative paths.
pub(super) fn cache_home() -> Option<PathBuf> {
    let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = named.or_else(|| std::env::home_dir().map(|home| home.join(".cache")))?;
    Some(folder.join("headwater"))
}

/// MiB of compiled kernels that are kept unless `HEADWATER_KERNEL_CACHE` says otherwise: those of a few adapters.
const KERNEL_CACHE_MIB: u64 = 256;

/// Where compiled kernels are kept, and how many bytes of them: `HEADWATER_KERNEL_CACHE` is `off` or a number of MiB.
fn kernel_cache() -> Result<Option<KernelCache>, CliError> {
    let said = std::env::var("HEADWATER_KERNEL_CACHE").unwrap_or_default();
    let mib = match &*said {
        "" => KERNEL_CACHE_MIB,
        "off" | "0" => return Ok(None),
        number => number.parse().ok().filter(|mib: &u64| *mib <= 1 << 20).ok_or_else(|| {
            CliError::Usage(format!("HEADWATER_KERNEL_CACHE: {said} is neither off nor a number of MiB"))
        })?,
    };
    Ok(cache_home().map(|home| KernelCache { folder: home.join("kernels"), most_bytes: mib << 20 }))
}
