//! Time on the clock and time on processors.

#[cfg(not(target_family = "wasm"))]
pub(crate) use native::Clock;

#[cfg(not(target_family = "wasm"))]
mod native {
    use cpu_time::ProcessTime;
    use std::time::Instant;

    /// A moment.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Clock {
        wall: Instant,
        /// What processors have spent on all threads of this program; none where the system does not tell.
        processor: Option<ProcessTime>,
    }

    impl Clock {
        pub(crate) fn now() -> Clock {
            Clock { wall: Instant::now(), processor: ProcessTime::try_now().ok() }
        }

        /// Seconds since then, and those that processors spent.
        pub(crate) fn elapsed(self) -> (f64, Option<f64>) {
            let processor = self.processor.and_then(|start| start.try_elapsed().ok());
            (self.wall.elapsed().as_secs_f64(), processor.map(|time| time.as_secs_f64()))
        }
    }
}

/// Nothing is timed in a browser.
#[cfg(target_family = "wasm")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock;

#[cfg(target_family = "wasm")]
impl Clock {
    pub(crate) fn now() -> Clock {
        Clock
    }
}
