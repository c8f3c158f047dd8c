//! Which adapters a machine has, and which one a request means.

#[cfg(not(target_family = "wasm"))]
use graph::block_on;
use graph::{DeviceError, DeviceInfo, DeviceKind};
use std::str::FromStr;

/// The graphics interfaces to look for adapters in. The default is all that this build knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backends(wgpu::Backends);

const ALL: wgpu::Backends = wgpu::Backends::VULKAN
    .union(wgpu::Backends::METAL)
    .union(wgpu::Backends::DX12)
    .union(wgpu::Backends::GL)
    .union(wgpu::Backends::BROWSER_WEBGPU);

impl Default for Backends {
    fn default() -> Self {
        Self(ALL)
    }
}

/// Reads a comma-separated list such as `vulkan,gl`, in the words of wgpu's own `WGPU_BACKEND`.
impl FromStr for Backends {
    type Err = DeviceError;

    fn from_str(list: &str) -> Result<Self, DeviceError> {
        let mut backends = wgpu::Backends::empty();
        for word in list.split(',') {
            backends |= match word.trim().to_lowercase().as_str() {
                "vulkan" | "vk" => wgpu::Backends::VULKAN,
                "metal" | "mtl" => wgpu::Backends::METAL,
                "dx12" | "d3d12" => wgpu::Backends::DX12,
                "gl" | "gles" | "opengl" => wgpu::Backends::GL,
                _ => {
                    return Err(DeviceError::NoAdapter(format!(
                        "{word:?} is no graphics interface; known are vulkan, metal, dx12 and gl"
                    )));
                }
            };
        }
        Ok(Self(backends))
    }
}

/// Which adapter a user asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Choice {
    /// The most capable one.
    #[default]
    Best,
    /// The one with this number in [`adapters`].
    Number(usize),
    /// The first whose name contains this text, ignoring case.
    Name(String),
}

/// Reads `gpu`, `gpu:N`, or a part of an adapter's name.
impl FromStr for Choice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let text = text.trim();
        let lower = text.to_lowercase();
        if lower.is_empty() {
            return Err(DeviceError::NoAdapter("an adapter's name cannot be empty".into()));
        }
        if lower == "gpu" {
            return Ok(Choice::Best);
        }
        match lower.strip_prefix("gpu:") {
            Some(number) => number
                .parse()
                .map(Choice::Number)
                .map_err(|_| DeviceError::NoAdapter(format!("{text:?} names no adapter: expected gpu:0, gpu:1, …"))),
            None => Ok(Choice::Name(text.to_owned())),
        }
    }
}

/// An adapter that can run compute shaders.
#[derive(Debug, Clone)]
pub struct Adapter {
    info: DeviceInfo,
    pub(crate) handle: wgpu::Adapter,
}

impl Adapter {
    /// What the adapter reports about itself.
    #[must_use]
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }
}

/// How much of the memory that a driver reports may be used.
const BUDGET_PERCENT: u8 = 95;

/// The interfaces of this system, or of the browser.
fn instance(backends: Backends) -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: backends.0,
        // No debug layers: validation by wgpu itself is always on. Indirect dispatch, whose validation lowers the limit
        // of buffer sizes, is never used.
        flags: wgpu::InstanceFlags::empty(),
        // Where a driver knows its memory budget, allocations fail before it begins to swap. Plans can still be dropped
        // at that point.
        memory_budget_thresholds: wgpu::MemoryBudgetThresholds {
            for_resource_creation: Some(BUDGET_PERCENT),
            for_device_loss: None,
        },
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    })
}

/// The adapter that the system, or the browser, gives to whoever wants a fast one. A browser does not say which others there are.
///
/// # Errors
/// [`DeviceError::NoAdapter`] when it gives none.
pub async fn request(backends: Backends) -> Result<Adapter, DeviceError> {
    let wanted =
        wgpu::RequestAdapterOptions { power_preference: wgpu::PowerPreference::HighPerformance, ..Default::default() };
    let found = instance(backends).request_adapter(&wanted).await;
    let handle = found.map_err(|error| DeviceError::NoAdapter(format!("no graphics adapter was found: {error}")))?;
    Ok(Adapter { info: describe(&handle), handle })
}

/// All adapters that can run compute shaders, the best first: discrete before integrated, virtual, unknown and software
/// ones, and the machine's native interface before OpenGL. `gpu:N` counts in this order.
#[cfg(not(target_family = "wasm"))]
#[must_use]
pub fn adapters(backends: Backends) -> Vec<Adapter> {
    let mut found: Vec<Adapter> = block_on(instance(backends).enumerate_adapters(backends.0))
        .into_iter()
        .filter(|adapter| adapter.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS))
        .map(|handle| Adapter { info: describe(&handle), handle })
        .collect();
    found.sort_by_key(|adapter| (rank(adapter.info.kind), adapter.info.backend == "gl"));
    found
}

/// The best adapter, if there is any. Callers that prefer the native executor to a software adapter look at its kind.
#[cfg(not(target_family = "wasm"))]
#[must_use]
pub fn best(backends: Backends) -> Option<Adapter> {
    adapters(backends).into_iter().next()
}

/// The adapter a request means.
///
/// # Errors
/// [`DeviceError::NoAdapter`] with a sentence that lists what there is.
#[cfg(not(target_family = "wasm"))]
pub fn choose(backends: Backends, choice: &Choice) -> Result<Adapter, DeviceError> {
    let mut found = adapters(backends);
    let infos: Vec<&DeviceInfo> = found.iter().map(Adapter::info).collect();
    let index = find(&infos, choice)?;
    Ok(found.swap_remove(index))
}

/// The position of the adapter a request means.
#[cfg(not(target_family = "wasm"))]
fn find(infos: &[&DeviceInfo], choice: &Choice) -> Result<usize, DeviceError> {
    if infos.is_empty() {
        return Err(DeviceError::NoAdapter(
            "no graphics adapter was found; install a Vulkan driver (on Debian without a GPU: mesa-vulkan-drivers) or use \
             the cpu"
                .into(),
        ));
    }
    let list = || {
        let line =
            |(i, info): (usize, &&DeviceInfo)| format!("gpu:{i} {} ({}, {})", info.name, info.kind, info.backend);
        infos.iter().enumerate().map(line).collect::<Vec<_>>().join("; ")
    };
    match choice {
        Choice::Best => Ok(0),
        Choice::Number(number) if *number < infos.len() => Ok(*number),
        Choice::Number(number) => {
            Err(DeviceError::NoAdapter(format!("there is no adapter gpu:{number}; there are: {}", list())))
        }
        Choice::Name(text) => {
            let wanted = text.to_lowercase();
            infos.iter().position(|info| info.name.to_lowercase().contains(&wanted)).ok_or_else(|| {
                DeviceError::NoAdapter(format!("no adapter's name contains {text:?}; there are: {}", list()))
            })
        }
    }
}

/// Position of a kind in the order of preference.
#[cfg(not(target_family = "wasm"))]
fn rank(kind: DeviceKind) -> u8 {
    match kind {
        DeviceKind::DiscreteGpu => 0,
        DeviceKind::IntegratedGpu => 1,
        DeviceKind::VirtualGpu => 2,
        DeviceKind::Other => 3,
        DeviceKind::SoftwareGpu | DeviceKind::Cpu => 4,
    }
}

fn describe(adapter: &wgpu::Adapter) -> DeviceInfo {
    let info = adapter.get_info();
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => DeviceKind::DiscreteGpu,
        wgpu::DeviceType::IntegratedGpu => DeviceKind::IntegratedGpu,
        wgpu::DeviceType::VirtualGpu => DeviceKind::VirtualGpu,
        wgpu::DeviceType::Cpu => DeviceKind::SoftwareGpu,
        wgpu::DeviceType::Other => DeviceKind::Other,
    };
    let backend = match info.backend {
        wgpu::Backend::Vulkan => "vulkan",
        wgpu::Backend::Metal => "metal",
        wgpu::Backend::Dx12 => "dx12",
        wgpu::Backend::Gl => "gl",
        wgpu::Backend::BrowserWebGpu => "webgpu",
        wgpu::Backend::Noop => "noop",
    };
    let known = [
        (wgpu::Features::SHADER_F16, "shader-f16"),
        (wgpu::Features::SUBGROUP, "subgroups"),
        (wgpu::Features::TIMESTAMP_QUERY, "timestamp-query"),
    ];
    let features = adapter.features();
    DeviceInfo {
        // Browsers may tell nothing, so that pages do not know people by their machines.
        name: if info.name.is_empty() { "the browser's adapter".into() } else { info.name },
        kind,
        backend: backend.into(),
        driver: [info.driver, info.driver_info].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join(" "),
        features: known.iter().filter(|(f, _)| features.contains(*f)).map(|(_, name)| (*name).to_owned()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, kind: DeviceKind) -> DeviceInfo {
        DeviceInfo { name: name.into(), kind, backend: "vulkan".into(), driver: String::new(), features: Vec::new() }
    }

    #[test]
    fn requests_are_read_and_matched() {
        let cards = [info("Radeon RX", DeviceKind::DiscreteGpu), info("llvmpipe", DeviceKind::SoftwareGpu)];
        let cards: Vec<&DeviceInfo> = cards.iter().collect();
        for (text, want) in [("gpu", 0), ("GPU:1", 1), ("LLVM", 1), ("radeon rx", 0)] {
            let choice: Choice = text.parse().unwrap();
            assert_eq!(find(&cards, &choice).unwrap(), want, "{text}");
        }
        for (text, fragment) in [("gpu:7", "no adapter gpu:7"), ("GeForce", "contains \"GeForce\"")] {
            let error = find(&cards, &text.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains(fragment) && error.contains("gpu:1 llvmpipe (software gpu, vulkan)"), "{error}");
        }
        for text in ["gpu:one", ""] {
            assert!(matches!(text.parse::<Choice>(), Err(DeviceError::NoAdapter(_))), "{text}");
        }
        assert!(find(&[], &Choice::Best).unwrap_err().to_string().contains("no graphics adapter"));
    }

    #[test]
    fn lists_of_interfaces_are_read() {
        assert_eq!("vk, GL".parse::<Backends>().unwrap(), Backends(wgpu::Backends::VULKAN | wgpu::Backends::GL));
        assert!("vulkan,glide".parse::<Backends>().unwrap_err().to_string().contains("\"glide\""));
    }
}
