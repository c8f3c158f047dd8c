//! Which device a request means: the best GPU, a named one, or the CPU.

use crate::devices::limit::Limited;
use crate::devices::residency::SharedDevice;
use crate::error::PipelineError;
#[cfg(not(target_family = "wasm"))]
use graph::DeviceInfo;
use graph::{Device, DeviceError, DeviceKind};
use std::convert::Infallible;
use std::path::PathBuf;
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

/// Where compiled kernels are kept between runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelCache {
    /// The folder.
    pub folder: PathBuf,
    /// The most that its files may hold together; those of other adapters and drivers go first, the oldest first.
    pub most_bytes: u64,
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
    /// Ask adapters for no more than every WebGPU has.
    pub least_limits: bool,
    /// Where the kernels that drivers compiled are kept for the next start; none are if absent.
    pub kernel_cache: Option<KernelCache>,
    /// Threads of the native executor; all cores if absent.
    pub threads: Option<usize>,
    /// Bytes that plans may hold together; as many as there are if absent.
    pub max_memory: Option<u64>,
    /// The same for the native executor alone, whose system may promise more memory than it has.
    pub max_native_memory: Option<u64>,
}

/// Opens what a request means.
///
/// # Errors
/// When no adapter fits, or its driver refuses; or when what is asked for was left out of this build.
#[cfg(not(target_family = "wasm"))]
pub fn open_device(choice: &DeviceChoice, settings: &DeviceSettings) -> Result<SharedDevice, PipelineError> {
    graph::block_on(open_device_async(choice, settings))
}

/// [`open_device`], to be awaited. In a browser every adapter is the one that it gives to this page.
///
/// # Errors
/// The same.
pub async fn open_device_async(
    choice: &DeviceChoice,
    settings: &DeviceSettings,
) -> Result<SharedDevice, PipelineError> {
    let device = match choice {
        DeviceChoice::Cpu => native(settings)?,
        DeviceChoice::Adapter(text) => adapter(text, settings).await?,
        DeviceChoice::Auto if settings.adapter_name.is_some() => adapter("gpu", settings).await?,
        DeviceChoice::Auto => match best_adapter(settings).await? {
            Some(device) => device,
            None => native(settings)?,
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
#[cfg(not(target_family = "wasm"))]
pub fn devices(settings: &DeviceSettings) -> Result<Vec<DeviceInfo>, PipelineError> {
    let mut found = adapters(settings)?;
    found.extend(native(settings).ok().map(|device| device.info().clone()));
    Ok(found)
}

#[cfg(feature = "cpu")]
fn native(settings: &DeviceSettings) -> Result<Box<dyn Device>, DeviceError> {
    Ok(Box::new(cpu::CpuDevice::new(settings.threads)?))
}

#[cfg(not(feature = "cpu"))]
fn native(_: &DeviceSettings) -> Result<Box<dyn Device>, DeviceError> {
    Err(DeviceError::NoAdapter("the native executor is not part of this build".into()))
}

#[cfg(feature = "gpu")]
mod through_wgpu {
    use super::DeviceSettings;
    use graph::{Device, DeviceError, DeviceKind};

    fn backends(settings: &DeviceSettings) -> Result<gpu::Backends, DeviceError> {
        settings.backends.as_deref().map_or(Ok(gpu::Backends::default()), str::parse)
    }

    fn options(settings: &DeviceSettings) -> gpu::GpuOptions {
        gpu::GpuOptions { checked: settings.checked, least_limits: settings.least_limits, ..Default::default() }
    }

    async fn opened(adapter: &gpu::Adapter, settings: &DeviceSettings) -> Result<gpu::GpuDevice, DeviceError> {
        match &settings.kernel_cache {
            #[cfg(not(target_family = "wasm"))]
            Some(cache) => adapter.open_with_cache(options(settings), &cache.folder, cache.most_bytes),
            _ => adapter.open_async(options(settings)).await,
        }
    }

    /// The adapter that the browser gives, opened, whatever is asked for: it does not say which others there are.
    #[cfg(target_family = "wasm")]
    pub(crate) async fn open(_choice: &str, settings: &DeviceSettings) -> Result<gpu::GpuDevice, DeviceError> {
        opened(&gpu::request(backends(settings)?).await?, settings).await
    }

    /// The adapter of a choice, opened; a name in the settings stands for the best one.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) async fn open(choice: &str, settings: &DeviceSettings) -> Result<gpu::GpuDevice, DeviceError> {
        let wanted = match &settings.adapter_name {
            Some(name) if choice.eq_ignore_ascii_case("gpu") => gpu::Choice::Name(name.clone()),
            _ => choice.parse()?,
        };
        opened(&gpu::choose(backends(settings)?, &wanted)?, settings).await
    }

    pub(super) async fn adapter(choice: &str, settings: &DeviceSettings) -> Result<Box<dyn Device>, DeviceError> {
        Ok(Box::new(open(choice, settings).await?))
    }

    /// The best adapter that is not implemented on the CPU, opened.
    pub(super) async fn best_adapter(settings: &DeviceSettings) -> Result<Option<Box<dyn Device>>, DeviceError> {
        #[cfg(not(target_family = "wasm"))]
        let best = gpu::best(backends(settings)?);
        #[cfg(target_family = "wasm")]
        let best = gpu::request(backends(settings)?).await.ok();
        match best {
            Some(adapter) if adapter.info().kind != DeviceKind::SoftwareGpu => {
                Ok(Some(Box::new(opened(&adapter, settings).await?)))
            }
            _ => Ok(None),
        }
    }

    #[cfg(not(target_family = "wasm"))]
    pub(super) fn adapters(settings: &DeviceSettings) -> Result<Vec<graph::DeviceInfo>, DeviceError> {
        Ok(gpu::adapters(backends(settings)?).iter().map(|adapter| adapter.info().clone()).collect())
    }
}

#[cfg(not(feature = "gpu"))]
mod through_wgpu {
    use super::DeviceSettings;
    use graph::{Device, DeviceError};

    pub(super) async fn adapter(choice: &str, _: &DeviceSettings) -> Result<Box<dyn Device>, DeviceError> {
        Err(DeviceError::NoAdapter(format!("there is no {choice}: graphics adapters are not part of this build")))
    }

    pub(super) async fn best_adapter(_: &DeviceSettings) -> Result<Option<Box<dyn Device>>, DeviceError> {
        Ok(None)
    }

    #[cfg(not(target_family = "wasm"))]
    pub(super) fn adapters(_: &DeviceSettings) -> Result<Vec<graph::DeviceInfo>, DeviceError> {
        Ok(Vec::new())
    }
}

#[cfg(not(target_family = "wasm"))]
use through_wgpu::adapters;
#[cfg(feature = "gpu")]
pub(crate) use through_wgpu::open as open_adapter;
use through_wgpu::{adapter, best_adapter};

/// Position of the device that `auto` means in the list of [`devices`]; none if the settings name one that is not there.
#[must_use]
#[cfg(not(target_family = "wasm"))]
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
