//! How an adapter is opened.

/// How much work one submission may hold. A desktop's watchdog resets a GPU that is busy with one for about two seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubmitBudget {
    /// Dispatches.
    pub dispatches: usize,
    /// Floating-point operations. A single dispatch above this is still submitted whole.
    pub flops: u64,
}

impl Default for SubmitBudget {
    fn default() -> Self {
        // 20 GFLOP take a second at 20 GFLOP/s, slower than any GPU that has a watchdog, and two milliseconds on a large
        // card, where another submission costs some 50 µs.
        Self { dispatches: 4096, flops: 20_000_000_000 }
    }
}

/// How to open an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuOptions {
    /// Keep naga's bounds checks in every kernel: slower, for tests and for doubtful drivers.
    pub checked: bool,
    /// Use the adapter's half-precision arithmetic type where it has one; half-precision weights are unpacked from
    /// words otherwise.
    pub shader_f16: bool,
    /// Use the adapter's subgroups where it has them.
    pub subgroups: bool,
    /// Use the adapter's units for small matrices where it has them for single precision. wgpu calls them experimental.
    pub cooperative: bool,
    /// Multiply by weights of eight bits ([`graph::Storage::Q8_0`]) in whole numbers, which rounds what is multiplied to eight
    /// bits, too. Off unless asked for: results move by more than rounding to single precision does.
    pub integer_products: bool,
    /// Kernels to pass over wherever another one applies, to compare variants.
    pub avoid: &'static [&'static str],
    /// Pretend that the largest binding is this many bytes, where the adapter's is larger.
    pub max_binding_bytes: Option<u64>,
    /// Ask for no more than every WebGPU has, bindings of 128 MiB and eight of them in a kernel, whatever the adapter's own limits are.
    pub least_limits: bool,
    /// When to split a run into several submissions.
    pub submit: SubmitBudget,
}

impl Default for GpuOptions {
    fn default() -> Self {
        Self {
            checked: false,
            shader_f16: true,
            subgroups: true,
            cooperative: false,
            integer_products: false,
            avoid: &[],
            max_binding_bytes: None,
            least_limits: false,
            submit: SubmitBudget::default(),
        }
    }
}
