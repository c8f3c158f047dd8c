//! Waiting for devices.

use crate::device::DeviceError;
use std::pin::Pin;

/// Work of a device that is under way. Where a thread may stand still, [`block_on`] waits for it; a browser's thread may not, and awaits it.
pub type Work<'a, T, E = DeviceError> = Pin<Box<dyn Future<Output = Result<T, E>> + 'a>>;

/// Waits for work. There is no such function where a thread that waits would wait for itself: in a browser, answers come through the loop that calls it.
#[cfg(not(target_family = "wasm"))]
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    pollster::block_on(work)
}
