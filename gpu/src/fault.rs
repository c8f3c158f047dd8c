//! What went wrong on a device, as sentences.

use graph::DeviceError;
#[cfg(not(target_family = "wasm"))]
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

/// Errors that arrive outside of any call that could return them: the first is kept, and every later call returns it.
#[derive(Debug)]
pub(crate) struct Faults {
    device: String,
    first: Mutex<Option<DeviceError>>,
}

impl Faults {
    /// Starts listening to a device.
    pub(crate) fn watch(device: &wgpu::Device, name: &str) -> Arc<Self> {
        let faults = Arc::new(Self { device: name.to_owned(), first: Mutex::new(None) });
        let sink = Arc::clone(&faults);
        device.on_uncaptured_error(Arc::new(move |error| {
            sink.keep(sink.convert(&error, "running"));
        }));
        let sink = Arc::clone(&faults);
        device.set_device_lost_callback(move |reason, message| {
            sink.keep(DeviceError::Lost { device: sink.device.clone(), reason: lost(reason, &message) });
        });
        faults
    }

    fn keep(&self, error: DeviceError) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        // A lost device explains whatever was reported before it.
        if first.is_none() || matches!(error, DeviceError::Lost { .. }) {
            *first = Some(error);
        }
    }

    /// The fault that happened, if one did.
    pub(crate) fn check(&self) -> Result<(), DeviceError> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }

    /// One of wgpu's errors in our words.
    pub(crate) fn convert(&self, error: &wgpu::Error, doing: &str) -> DeviceError {
        let device = self.device.clone();
        match error {
            wgpu::Error::OutOfMemory { .. } => DeviceError::OutOfMemory { device, doing: doing.to_owned() },
            wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
                DeviceError::Failed { device, reason: format!("{doing}: {}", one_line(description)) }
            }
        }
    }

    /// A failure that wgpu reports in another way than by its error type.
    pub(crate) fn failed(&self, reason: impl Into<String>) -> DeviceError {
        self.check().err().unwrap_or_else(|| DeviceError::Failed { device: self.device.clone(), reason: reason.into() })
    }

    /// Something the device cannot do.
    pub(crate) fn unsupported(&self, reason: impl Into<String>) -> DeviceError {
        DeviceError::Unsupported { device: self.device.clone(), reason: reason.into() }
    }
}

fn lost(reason: wgpu::DeviceLostReason, message: &str) -> String {
    match (reason, one_line(message)) {
        (wgpu::DeviceLostReason::Destroyed, _) => "it was closed".into(),
        (_, message) if message.is_empty() => "the driver gave no reason".into(),
        (_, message) => message,
    }
}

/// Joins the lines of wgpu's messages, which put each cause on its own indented line.
fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && *l != "Validation Error" && *l != "Caused by:");
    lines.collect::<Vec<_>>().join(": ")
}

/// Waits until the device has done everything submitted so far, or just lets it call back when `wait` is false.
///
/// wgpu panics when the device is lost while it waits (`Device::poll` has no error for that), so the panic is caught
/// here.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn poll(device: &wgpu::Device, faults: &Faults, wait: bool) -> Result<(), DeviceError> {
    faults.check()?;
    let kind = if wait { wgpu::PollType::wait_indefinitely() } else { wgpu::PollType::Poll };
    match catch_unwind(AssertUnwindSafe(|| device.poll(kind))) {
        Ok(Ok(_)) => faults.check(),
        Ok(Err(error)) => Err(faults.failed(error.to_string())),
        Err(_) => Err(faults.failed("the driver stopped answering")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_become_sentences_and_a_lost_device_outweighs_them() {
        let faults = Faults { device: "Card".into(), first: Mutex::new(None) };
        let source = || Box::new(std::fmt::Error);
        let memory = faults.convert(&wgpu::Error::OutOfMemory { source: source() }, "allocating weight w");
        assert!(
            memory.to_string().starts_with("Card ran out of memory allocating weight w; a smaller image"),
            "{memory}"
        );
        let description = "Validation Error\n\nCaused by:\n  In create_buffer\n    Too large\n".into();
        let invalid = faults.convert(&wgpu::Error::Validation { source: source(), description }, "allocating w");
        assert_eq!(invalid.to_string(), "Card failed: allocating w: In create_buffer: Too large");

        let lost = DeviceError::Lost { device: "Card".into(), reason: lost(wgpu::DeviceLostReason::Unknown, "") };
        assert_eq!(lost.to_string(), "Card was lost: the driver gave no reason");
        assert_eq!(faults.check(), Ok(()));
        for (error, kept) in [(&memory, &memory), (&invalid, &memory), (&lost, &lost), (&memory, &lost)] {
            faults.keep(error.clone());
            assert_eq!(faults.check(), Err(kept.clone()));
        }
    }
}
