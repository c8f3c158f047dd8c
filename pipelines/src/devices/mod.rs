//! Where graphs are run: which device a request means, how much it may hold, and whose plans stay on it.

mod choice;
mod limit;
pub(crate) mod residency;
mod selftest;

pub use choice::{DeviceChoice, DeviceSettings, KernelCache, open_device_async};
#[cfg(not(target_family = "wasm"))]
pub use choice::{automatic, devices, open_device};
#[cfg(test)]
pub(crate) use limit::Limited;
pub use residency::SharedDevice;
#[cfg(not(target_family = "wasm"))]
pub use selftest::selftest;
pub use selftest::{SelftestCase, SelftestDepth, selftest_async};
