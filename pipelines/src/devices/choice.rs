//! Which device a request means: the best GPU, a named one, or the CPU.

use crate::devices::limit::Limited;
use crate::devices::residency::SharedDevice;
use crate::error::PipelineError;
use graph::{Device, DeviceError, DeviceInfo, DeviceKind};
use std::convert::Infallible;
use std::str::FromStr;

/// What `--device` may say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The best real GPU, else the CPU: a software adapter is many times slower than the native executor.
    #[default]
    Auto,
    /// The native executor.
    Cpu,
    /// An adapter: `gpu`, `gpu:N`, or a part of its name.
    Adapter(String),
}

impl FromStr for DeviceChoice {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.trim().to_lowercase().as_str() {
            "auto" => DeviceChoice::Auto,
            "cpu" => DeviceChoice::Cpu,
            _ => DeviceChoice::Adapter(text.trim().to_owned()),
        })
    }
}

/// What else decides how a device is found and opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceSettings {
    /// Interfaces to look for adapters in, as `WGPU_BACKEND` lists them; all if absent.
    pub backends: Option<String>,
    /// The adapter that `auto` and `gpu` mean, as `WGPU_ADAPTER_NAME` names it.
    pub adapter_name: Option<String>,
    /// Keep bounds checks in kernels.
    pub checked: bool,
    /// Threads of the native executor; all cores if absent.
    pub threads: Option<usize>,
    /// Bytes that plans may hold together; as many as there are if absent.
    pub max_memory: Option<u64>,
    /// The same for the native executor alone, whose system may promise more memory than it has.
    pub max_native_memory: Option<u64>,
}

impl DeviceSettings {
    fn backends(&self) -> Result<gpu::Backends, DeviceError> {
        self.backends.as_deref().map_or(Ok(gpu::Backends::default()), str::parse)
    }

    fn gpu_options(&self) -> gpu::GpuOptions {
        gpu::GpuOptions { checked: self.checked, ..Default::default() }
    }

    /// The adapter of a choice; a name in the settings stands for the best one.
    pub(crate) fn adapter(&self, choice: &str) -> Result<gpu::GpuDevice, DeviceError> {
        let wanted = match &self.adapter_name {
            Some(name) if choice.eq_ignore_ascii_case("gpu") => gpu::Choice::Name(name.clone()),
            _ => choice.parse()?,
        };
        gpu::choose(self.backends()?, &wanted)?.open(self.gpu_options())
    }
}

/// Opens what a request means.
///
/// # Errors
/// When no adapter fits, or its driver refuses.
pub fn open_device(choice: &DeviceChoice, settings: &DeviceSettings) -> Result<SharedDevice, PipelineError> {
    let native = || -> Result<Box<dyn Device>, DeviceError> { Ok(Box::new(cpu::CpuDevice::new(settings.threads)?)) };
    let device: Box<dyn Device> = match choice {
        DeviceChoice::Cpu => native()?,
        DeviceChoice::Adapter(text) => Box::new(settings.adapter(text)?),
        DeviceChoice::Auto if settings.adapter_name.is_some() => Box::new(settings.adapter("gpu")?),
        DeviceChoice::Auto => match gpu::best(settings.backends()?) {
            Some(adapter) if adapter.info().kind != DeviceKind::SoftwareGpu => {
                Box::new(adapter.open(settings.gpu_options())?)
            }
            _ => native()?,
        },
    };
    let native = settings.max_native_memory.filter(|_| device.info().kind == DeviceKind::Cpu);
    Ok(SharedDevice::new(match settings.max_memory.or(native) {
        Some(limit) => Box::new(Limited::new(device, limit)),
        None => device,
    }))
}

/// Everything that can compute here: all adapters, the best first, then the CPU.
///
/// # Errors
/// When the settings name an unknown interface.
pub fn devices(settings: &DeviceSettings) -> Result<Vec<DeviceInfo>, PipelineError> {
    let adapters = gpu::adapters(settings.backends()?);
    let native = cpu::CpuDevice::new(settings.threads)?;
    Ok(adapters.iter().map(|adapter| adapter.info().clone()).chain([native.info().clone()]).collect())
}

/// Position of the device that `auto` means in the list of [`devices`]; none if the settings name one that is not there.
#[must_use]
pub fn automatic(devices: &[DeviceInfo], settings: &DeviceSettings) -> Option<usize> {
    let named = settings.adapter_name.as_ref().map(|name| name.to_lowercase());
    let is_real = |device: &DeviceInfo| !matches!(device.kind, DeviceKind::SoftwareGpu | DeviceKind::Cpu);
    match named {
        Some(name) => devices.iter().position(|d| d.kind != DeviceKind::Cpu && d.name.to_lowercase().contains(&name)),
        None => devices.iter().position(is_real).or_else(|| devices.iter().position(|d| d.kind == DeviceKind::Cpu)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, kind: DeviceKind) -> DeviceInfo {
        DeviceInfo { name: name.into(), kind, backend: String::new(), driver: String::new(), features: Vec::new() }
    }

    #[test]
    fn choices_are_read() {
        for (text, want) in [
            ("auto", DeviceChoice::Auto),
            ("CPU", DeviceChoice::Cpu),
            ("gpu:1", DeviceChoice::Adapter("gpu:1".into())),
            ("llvmpipe", DeviceChoice::Adapter("llvmpipe".into())),
        ] {
            assert_eq!(text.parse(), Ok(want));
        }
    }

    #[test]
    fn automatic_passes_over_software_adapters() {
        let (card, software, cpu) = (
            info("Radeon", DeviceKind::DiscreteGpu),
            info("llvmpipe", DeviceKind::SoftwareGpu),
            info("Ryzen", DeviceKind::Cpu),
        );
        let plain = DeviceSettings::default();
        assert_eq!(automatic(&[card.clone(), software.clone(), cpu.clone()], &plain), Some(0));
        assert_eq!(automatic(&[software.clone(), cpu.clone()], &plain), Some(1));
        assert_eq!(automatic(std::slice::from_ref(&cpu), &plain), Some(0));
        let named = DeviceSettings { adapter_name: Some("LLVM".into()), ..plain };
        assert_eq!(automatic(&[card, software, cpu], &named), Some(1));
    }
}
