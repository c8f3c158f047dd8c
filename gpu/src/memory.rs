//! Buffers: allocating, filling and reading back.

use crate::inner::Inner;
use futures_channel::oneshot;
use graph::DeviceError;

/// Bytes uploaded before the device is given time to take them. wgpu keeps a staging copy of everything written until
/// the next submission is done, so without pauses a checkpoint would lie in memory twice.
const UPLOAD_PIECE: u64 = 64 << 20;

const STORAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_DST).union(wgpu::BufferUsages::COPY_SRC);

/// Fills buffers piece by piece.
#[derive(Debug)]
pub(crate) struct Uploader<'a> {
    inner: &'a Inner,
    pending: u64,
}

impl<'a> Uploader<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self { inner, pending: 0 }
    }

    /// Largest piece to pass to [`write`](Self::write), in bytes.
    pub(crate) const PIECE: usize = UPLOAD_PIECE as usize;

    /// Writes one piece; its length and offset are multiples of four.
    pub(crate) async fn write(
        &mut self,
        buffer: &wgpu::Buffer,
        offset: u64,
        data: &[u8],
        doing: &str,
    ) -> Result<(), DeviceError> {
        if self.pending + data.len() as u64 > UPLOAD_PIECE {
            self.flush().await?;
        }
        self.pending += data.len() as u64;
        self.inner.guarded(doing, || self.inner.queue.write_buffer(buffer, offset, data))
    }

    /// Waits until the device has everything written so far.
    pub(crate) async fn flush(&mut self) -> Result<(), DeviceError> {
        self.pending = 0;
        self.inner.queue.submit([]);
        self.inner.settle().await
    }
}

impl Inner {
    /// Bytes a buffer takes: whole vectors of four words, and at least one, because wgpu cannot bind an empty buffer.
    pub(crate) fn buffer_size(bytes: u64) -> u64 {
        bytes.next_multiple_of(16).max(16)
    }

    /// A buffer that kernels read and write. `what` names it in errors.
    pub(crate) fn storage_buffer(&self, bytes: u64, what: &str) -> Result<wgpu::Buffer, DeviceError> {
        self.check_size(bytes, what)?;
        self.buffer(Self::buffer_size(bytes), STORAGE, what)
    }

    /// The most bytes of one value.
    pub(crate) fn largest_binding(&self) -> u64 {
        self.limits.max_storage_buffer_binding_size.min(self.limits.max_buffer_size)
    }

    /// Refuses what the adapter cannot hold in one binding, before it is allocated.
    pub(crate) fn check_size(&self, bytes: u64, what: &str) -> Result<(), DeviceError> {
        let (binding, buffer) = (self.limits.max_storage_buffer_binding_size, self.limits.max_buffer_size);
        let limit = self.largest_binding();
        if Self::buffer_size(bytes) <= limit {
            return Ok(());
        }
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        let kind = if binding <= buffer { "binding" } else { "buffer" };
        let hint = if what.starts_with("weight") { "weights in half precision (f16)" } else { "a smaller image" };
        let (size, limit) = (mib(bytes), mib(limit));
        let reason = format!("{what} takes {size} and its largest {kind} is {limit}; try {hint} or the CPU");
        Err(self.faults.unsupported(reason))
    }

    pub(crate) fn buffer(&self, size: u64, usage: wgpu::BufferUsages, what: &str) -> Result<wgpu::Buffer, DeviceError> {
        self.guarded(&format!("allocating {what}"), || {
            self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(what),
                size,
                usage,
                mapped_at_creation: false,
            })
        })
    }

    /// A buffer that the host reads `elements` numbers from.
    pub(crate) fn staging_buffer(&self, elements: usize, what: &str) -> Result<wgpu::Buffer, DeviceError> {
        let usage = wgpu::BufferUsages::MAP_READ.union(wgpu::BufferUsages::COPY_DST);
        self.buffer(Self::buffer_size(elements as u64 * 4), usage, what)
    }

    /// The first `count` numbers of type `T` in a buffer.
    pub(crate) async fn read_back<T: bytemuck::Pod>(
        &self,
        buffer: &wgpu::Buffer,
        staging: &wgpu::Buffer,
        count: usize,
    ) -> Result<Vec<T>, DeviceError> {
        self.faults.check()?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let bytes = (count * size_of::<T>()) as u64;
        let copied = bytes.next_multiple_of(4);
        self.guarded("copying a result", || {
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encoder.copy_buffer_to_buffer(buffer, 0, staging, 0, copied);
            self.queue.submit([encoder.finish()]);
        })?;
        let (send, receive) = oneshot::channel();
        staging.map_async(wgpu::MapMode::Read, 0..copied, move |mapped| {
            // Sending fails only if the read has already returned with another error.
            let _ = send.send(mapped);
        });
        self.drive()?;
        // Where a thread has waited, the mapping is done by now, but its callback runs in the thread that polls first and may not have run yet.
        // This ends in any case, because the callback is either called or dropped.
        let why = match receive.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the driver dropped it".to_owned()),
        };
        if let Some(why) = why {
            // A browser says later that its device was lost.
            self.settle().await?;
            return Err(self.faults.failed(format!("a result could not be read back: {why}")));
        }
        self.verdict().await?;
        let view = staging
            .get_mapped_range(0..copied)
            .map_err(|error| self.faults.failed(format!("a result could not be read back: {error}")))?;
        let bytes = usize::try_from(bytes).expect("what is mapped fits the address space");
        let values = bytemuck::pod_collect_to_vec(&view[..bytes]);
        drop(view);
        staging.unmap();
        Ok(values)
    }
}
