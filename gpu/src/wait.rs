//! How the answers of a driver are waited for: by a thread that stands still, and in a browser, whose thread never may.

#[cfg(not(target_family = "wasm"))]
pub(crate) use native::both;
#[cfg(target_family = "wasm")]
pub(crate) use web::{Late, both};

#[cfg(not(target_family = "wasm"))]
mod native {
    use crate::fault;
    use crate::inner::Inner;
    use graph::{DeviceError, block_on};

    impl Inner {
        /// The first error that scopes have caught.
        pub(crate) fn judge<S: Future<Output = Option<wgpu::Error>>>(
            &self,
            doing: &str,
            scopes: [S; 3],
        ) -> Result<(), DeviceError> {
            let errors = scopes.map(block_on);
            errors.iter().flatten().next().map_or(Ok(()), |error| Err(self.faults.convert(error, doing)))
        }

        /// Waits until everything submitted is done. The thread stands still meanwhile, so this is ready when it is first asked.
        pub(crate) async fn settle(&self) -> Result<(), DeviceError> {
            self.wait()
        }

        /// What the driver has reported.
        pub(crate) async fn verdict(&self) -> Result<(), DeviceError> {
            self.faults.check()
        }

        /// As [`settle`](Self::settle), for whoever is no future.
        pub(crate) fn wait(&self) -> Result<(), DeviceError> {
            fault::poll(&self.device, &self.faults, true)
        }

        /// Makes the driver answer what it was asked, which happens nowhere else but in a call of `poll`.
        pub(crate) fn drive(&self) -> Result<(), DeviceError> {
            self.wait()
        }

        /// Lets the driver report what happened and free what it no longer needs.
        pub(crate) fn poll(&self) -> Result<(), DeviceError> {
            fault::poll(&self.device, &self.faults, false)
        }
    }

    /// Does two things at once, the first of them on a thread of its own.
    pub(crate) async fn both<A: Send, B>(one: impl FnOnce() -> A + Send, other: impl Future<Output = B>) -> (A, B) {
        std::thread::scope(|scope| {
            let one = scope.spawn(one);
            let other = block_on(other);
            (one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), other)
        })
    }
}

#[cfg(target_family = "wasm")]
mod web {
    use crate::inner::Inner;
    use futures_channel::oneshot;
    use graph::DeviceError;
    use std::fmt;
    use std::pin::Pin;
    use std::sync::{Mutex, PoisonError};

    type Scope = Pin<Box<dyn Future<Output = Option<wgpu::Error>> + Send>>;

    /// Calls whose errors come later, with what was being done: a browser's GPU is another process. They are asked for together, so that
    /// building a plan takes one journey there and back, and not one for every buffer.
    #[derive(Default)]
    pub(crate) struct Late(Mutex<Vec<(String, [Scope; 3])>>);

    impl fmt::Debug for Late {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Late").finish_non_exhaustive()
        }
    }

    impl Inner {
        /// Remembers scopes: [`settle`](Self::settle) asks what they have caught.
        pub(crate) fn judge<S: Future<Output = Option<wgpu::Error>> + Send + 'static>(
            &self,
            doing: &str,
            scopes: [S; 3],
        ) -> Result<(), DeviceError> {
            let scopes = scopes.map(|scope| Box::pin(scope) as Scope);
            self.late.0.lock().unwrap_or_else(PoisonError::into_inner).push((doing.to_owned(), scopes));
            Ok(())
        }

        /// Waits until everything submitted is done, and for the errors of all calls so far.
        pub(crate) async fn settle(&self) -> Result<(), DeviceError> {
            self.verdict().await?;
            let (send, receive) = oneshot::channel();
            self.queue.on_submitted_work_done(move || {
                // Sending fails only if nobody waits any longer.
                let _ = send.send(());
            });
            // A dropped callback is a lost device, which the faults know of.
            let _ = receive.await;
            self.faults.check()
        }

        /// Waits for the errors of all calls so far, and returns the first.
        pub(crate) async fn verdict(&self) -> Result<(), DeviceError> {
            let late = std::mem::take(&mut *self.late.0.lock().unwrap_or_else(PoisonError::into_inner));
            let mut first = Ok(());
            for (doing, scopes) in late {
                for scope in scopes {
                    if let (Some(error), Ok(())) = (scope.await, &first) {
                        first = Err(self.faults.convert(&error, &doing));
                    }
                }
            }
            self.faults.check()?;
            first
        }

        /// A browser drives its GPU itself.
        pub(crate) fn drive(&self) -> Result<(), DeviceError> {
            self.faults.check()
        }

        /// What a browser has reported.
        pub(crate) fn poll(&self) -> Result<(), DeviceError> {
            self.faults.check()
        }
    }

    /// One after the other: browsers compile kernels in another process anyway.
    pub(crate) async fn both<A, B>(one: impl FnOnce() -> A, other: impl Future<Output = B>) -> (A, B) {
        (one(), other.await)
    }
}
