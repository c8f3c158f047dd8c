//! Where graphs are run: which device a request means, how much it may hold, and whose plans stay on it.

mod choice;
mod limit;
pub(crate) mod residency;
mod selftest;

pub use choice::{DeviceChoice, DeviceSettings, KernelCache, automatic, devices, open_device};
#[cfg(test)]
pub(crate) use limit::Limited;
pub use residency::SharedDevice;
pub use selftest::{SelftestCase, selftest};
