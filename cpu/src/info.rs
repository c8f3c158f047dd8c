//! What is reported about this machine's processor.

use crate::gemm;
use graph::{DeviceInfo, DeviceKind};

pub(crate) fn info(threads: usize) -> DeviceInfo {
    let kernel = gemm::instructions().to_owned();
    let plural = if threads == 1 { "" } else { "s" };
    let mut features = vec![format!("{threads} thread{plural}")];
    features.extend(instruction_sets().into_iter().map(str::to_owned));
    DeviceInfo { name: name(), kind: DeviceKind::Cpu, backend: "native".into(), driver: kernel, features }
}

/// The processor's model name where it is easy to get, else its architecture.
fn name() -> String {
    let linux = || {
        let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let windows = || std::env::var("PROCESSOR_IDENTIFIER").ok();
    let known = linux().or_else(windows).filter(|name| !name.is_empty());
    known.unwrap_or_else(|| format!("{} CPU", std::env::consts::ARCH))
}

#[cfg(target_arch = "x86_64")]
fn instruction_sets() -> Vec<&'static str> {
    let sets = [
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    sets.into_iter().filter(|(_, found)| *found).map(|(name, _)| name).collect()
}

#[cfg(target_arch = "aarch64")]
fn instruction_sets() -> Vec<&'static str> {
    vec!["neon"]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn instruction_sets() -> Vec<&'static str> {
    Vec::new()
}
