use crate::convolution::Convolution;
use crate::graph::{Graph, Rate};
use crate::weights::WeightSource;
use crate::winners::Winners;
use crate::work::Work;
#[cfg(not(target_family = "wasm"))]
use crate::work::block_on;
use std::fmt;
use thiserror::Error;

/// What kind of machine runs a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// The native executor.
    Cpu,
    /// A graphics card with its own memory.
    DiscreteGpu,
    /// A graphics processor that shares the machine's memory.
    IntegratedGpu,
    /// A graphics processor lent by a hypervisor.
    VirtualGpu,
    /// A graphics interface implemented on the CPU.
    SoftwareGpu,
    /// The driver does not tell.
    Other,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeviceKind::Cpu => "cpu",
            DeviceKind::DiscreteGpu => "discrete gpu",
            DeviceKind::IntegratedGpu => "integrated gpu",
            DeviceKind::VirtualGpu => "virtual gpu",
            DeviceKind::SoftwareGpu => "software gpu",
            DeviceKind::Other => "gpu",
        })
    }
}

/// What a device reports about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The adapter's own name.
    pub name: String,
    /// What kind of machine it is.
    pub kind: DeviceKind,
    /// The interface it is reached by: `vulkan`, `metal`, `dx12`, `gl`, `native`.
    pub backend: String,
    /// Driver name and version, as far as known.
    pub driver: String,
    /// Further capabilities worth showing, e.g. `shader-f16`.
    pub features: Vec<String>,
}

/// How weights are stored in a device's memory. Arithmetic is always `f32`. Which weights may be less than singles is
/// [`kept_weights`](crate::kept_weights)' rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Storage {
    /// As in the checkpoint if the device can read that, else widened.
    #[default]
    Auto,
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// Eight bits, in ggml's blocks of 32 with one scale each ([`q8_0`](crate::q8_0)); half precision where rows are not
    /// whole blocks.
    Q8_0,
}

/// How values between operations are stored in a device's memory. Sums are always `f32`. Which values may be halves is
/// [`half_values`](crate::half_values)' rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Activations {
    /// Single precision.
    #[default]
    F32,
    /// Half precision where the device has it; what is beyond becomes its largest number, 65504.
    F16,
}

/// How to build a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlanOptions {
    /// How weights are kept.
    pub storage: Storage,
    /// How the native executor computes convolutions.
    pub convolution: Convolution,
    /// How values between operations are kept, by adapters that have half precision. The native executor keeps singles.
    pub activations: Activations,
    /// What was measured on this device comes before its own rules; they alone decide without.
    pub winners: Option<&'static Winners>,
}

/// Memory a plan holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryUse {
    /// Weights and constants.
    pub weights: u64,
    /// Inputs, outputs and intermediate values.
    pub activations: u64,
}

/// The time that one operation of a plan took.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeTime {
    /// The operation's name.
    pub op: &'static str,
    /// The kernel that ran it.
    pub kernel: &'static str,
    /// Checkpoint path of the scope that made it.
    pub path: String,
    /// How often it runs.
    pub rate: Rate,
    /// Seconds it took alone.
    pub seconds: f64,
    /// Seconds that processors spent in this program meanwhile, over all of its threads; none where the device is no processor or the system does not
    /// tell.
    pub processor: Option<f64>,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes read and written, each operand once, in single precision.
    pub bytes: u64,
}

/// Why a device could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// No adapter fits the request.
    #[error("{0}")]
    NoAdapter(String),
    /// The device lacks something this graph needs.
    #[error("{device} cannot run this model: {reason}")]
    Unsupported {
        /// The device's name.
        device: String,
        /// What it lacks.
        reason: String,
    },
    /// Not enough memory.
    #[error("{device} ran out of memory {doing}; a smaller image needs less")]
    OutOfMemory {
        /// The device's name.
        device: String,
        /// What was being done.
        doing: String,
    },
    /// The driver reset or the device was unplugged.
    #[error("{device} was lost: {reason}")]
    Lost {
        /// The device's name.
        device: String,
        /// What the driver said.
        reason: String,
    },
    /// The weights do not fit the graph.
    #[error("weight {name}: {reason}")]
    Weight {
        /// Full name in the checkpoint.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An input or output that the graph does not have, or the wrong number of elements for it.
    #[error("{0}")]
    Binding(String),
    /// The driver or the compiler of kernels failed.
    #[error("{device} failed: {reason}")]
    Failed {
        /// The device's name.
        device: String,
        /// What it said.
        reason: String,
    },
}

/// Something that can run graphs.
///
/// What takes time is [`Work`], which a browser awaits; elsewhere the method of the same name without `_async` waits for the same.
pub trait Device: Send + Sync {
    /// What it reports about itself.
    fn info(&self) -> &DeviceInfo;

    /// Builds a plan for an optimised graph: uploads its weights one by one and prepares everything that does not change
    /// between runs.
    ///
    /// # Errors
    /// When a weight is missing or has another shape, memory runs out, or the device cannot run an operation.
    fn plan_async<'a>(
        &'a self,
        graph: &'a Graph,
        weights: &'a dyn WeightSource,
        options: PlanOptions,
    ) -> Work<'a, Box<dyn Plan>>;

    /// [`plan_async`](Self::plan_async), waited for.
    ///
    /// # Errors
    /// The same.
    #[cfg(not(target_family = "wasm"))]
    fn plan(
        &self,
        graph: &Graph,
        weights: &dyn WeightSource,
        options: PlanOptions,
    ) -> Result<Box<dyn Plan>, DeviceError> {
        block_on(self.plan_async(graph, weights, options))
    }

    /// For each node of an optimised graph, the names of the ways in which this device can compute it and that may be the
    /// fastest, its own choice first; nothing where it has no choice. [`Winners`] name one of them.
    fn ways(&self, _graph: &Graph, _weights: &dyn WeightSource, _options: PlanOptions) -> Vec<Vec<&'static str>> {
        Vec::new()
    }
}

/// A graph bound to a device and its weights: built once, replayed every step.
pub trait Plan: Send {
    /// Sets an input, row-major. Writing an input of rate `Once` makes the next run redo what depends on it.
    ///
    /// # Errors
    /// When the graph has no such input or it has another number of elements, or the device is lost.
    fn write(&mut self, input: &str, data: &[f32]) -> Result<(), DeviceError>;

    /// Runs the graph. Values that depend only on `Once` inputs are kept from the last run.
    ///
    /// # Errors
    /// When an input was never written, or the device fails.
    fn run_async(&mut self) -> Work<'_, ()>;

    /// An output of the last run, row-major.
    ///
    /// # Errors
    /// When the graph has no such output, nothing ran yet, or the device fails.
    fn read_async<'a>(&'a mut self, output: &'a str) -> Work<'a, Vec<f32>>;

    /// [`run_async`](Self::run_async), waited for.
    ///
    /// # Errors
    /// The same.
    #[cfg(not(target_family = "wasm"))]
    fn run(&mut self) -> Result<(), DeviceError> {
        block_on(self.run_async())
    }

    /// [`read_async`](Self::read_async), waited for.
    ///
    /// # Errors
    /// The same.
    #[cfg(not(target_family = "wasm"))]
    fn read(&mut self, output: &str) -> Result<Vec<f32>, DeviceError> {
        block_on(self.read_async(output))
    }

    /// Runs every operation, those of rate `Once` included, and times each: by the device's own clock where it has one.
    ///
    /// # Errors
    /// As [`run_async`](Self::run_async).
    #[cfg(not(target_family = "wasm"))]
    fn profile(&mut self) -> Result<Vec<NodeTime>, DeviceError>;

    /// Memory held.
    fn memory(&self) -> MemoryUse;
}
