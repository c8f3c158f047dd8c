//! `headwater devices`: what can compute on this machine.

use super::error::CliError;
use graph::DeviceInfo;
use pipelines::DeviceSettings;
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
    let settings = device_settings(false, None);
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
pub(super) fn device_settings(checked: bool, threads: Option<usize>) -> DeviceSettings {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    DeviceSettings {
        backends: variable("WGPU_BACKEND"),
        adapter_name: variable("WGPU_ADAPTER_NAME"),
        checked,
        kernel_cache: kernel_cache(),
        threads,
        max_memory: None,
        max_native_memory: super::memory::available(),
    }
}

/// Where compiled kernels are kept, by the XDG base directory specification, which passes over relative paths.
fn kernel_cache() -> Option<PathBuf> {
    let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = named.or_else(|| std::env::home_dir().map(|home| home.join(".cache")))?;
    Some(folder.join("headwater").join("kernels"))
}
