//! Whether a device computes what the references say.

use crate::devices::choice::{DeviceChoice, DeviceSettings, open_device_async};
use crate::error::PipelineError;
#[cfg(feature = "gpu")]
use gpu::{CaseResult, Outcome};
pub use graph::cases::Depth as SelftestDepth;
use graph::random::random_graph;
use graph::{Array, Device, DeviceError, PlanOptions, evaluate, passes};

/// One comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct SelftestCase {
    /// The kernel, or what stands for it.
    pub kernel: String,
    /// The problem: shapes, flags, storage.
    pub case: String,
    /// Largest error.
    pub error: f64,
    /// What the reference's own rounding allows.
    pub tolerance: f64,
    /// What went wrong beyond a wrong number.
    pub message: Option<String>,
}

impl SelftestCase {
    /// Whether the device is right.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.message.is_none() && self.error <= self.tolerance
    }
}

/// Random graphs that the native executor is tried on.
const GRAPHS: u64 = 40;

/// Compares every kernel of an adapter with its reference; the native executor, which has no kernels of its own meaning,
/// runs random graphs instead.
///
/// # Errors
/// When there is no such device, or it is lost on the way.
#[cfg(not(target_family = "wasm"))]
pub fn selftest(
    choice: &DeviceChoice,
    settings: &DeviceSettings,
    depth: SelftestDepth,
    on_case: impl FnMut(&SelftestCase),
) -> Result<(), PipelineError> {
    graph::block_on(selftest_async(choice, settings, depth, on_case))
}

/// [`selftest`], to be awaited.
///
/// # Errors
/// The same.
pub async fn selftest_async(
    choice: &DeviceChoice,
    settings: &DeviceSettings,
    depth: SelftestDepth,
    mut on_case: impl FnMut(&SelftestCase),
) -> Result<(), PipelineError> {
    match choice {
        DeviceChoice::Cpu => {
            let device = open_device_async(choice, settings).await?;
            for seed in 0..GRAPHS {
                on_case(&native_case(device.device(), seed).await);
            }
            Ok(())
        }
        DeviceChoice::Auto => kernels("gpu", settings, depth, &mut on_case).await,
        DeviceChoice::Adapter(name) => kernels(name, settings, depth, &mut on_case).await,
    }
}

#[cfg(feature = "gpu")]
async fn kernels(
    name: &str,
    settings: &DeviceSettings,
    depth: SelftestDepth,
    on_case: &mut dyn FnMut(&SelftestCase),
) -> Result<(), PipelineError> {
    let device = super::choice::open_adapter(name, settings).await?;
    gpu::selftest_async(&device, depth, |result| on_case(&kernel_case(result))).await?;
    Ok(())
}

#[cfg(not(feature = "gpu"))]
async fn kernels(
    name: &str,
    settings: &DeviceSettings,
    _: SelftestDepth,
    _: &mut dyn FnMut(&SelftestCase),
) -> Result<(), PipelineError> {
    // There is no adapter to test: this says so.
    open_device_async(&DeviceChoice::Adapter(name.to_owned()), settings).await.map(|_| ())
}

#[cfg(feature = "gpu")]
fn kernel_case(result: &CaseResult) -> SelftestCase {
    let (error, tolerance, message) = match &result.outcome {
        Outcome::Compared(check) => (check.max_error, check.tolerance, None),
        Outcome::Overrun { at } => (f64::INFINITY, 0.0, Some(format!("wrote beyond its result, at element {at}"))),
        Outcome::Failed(error) => (f64::INFINITY, 0.0, Some(error.to_string())),
    };
    let case = format!("{} {}", result.case, result.storage);
    SelftestCase { kernel: result.kernel.to_owned(), case, error, tolerance, message }
}

async fn native_case(device: &dyn Device, seed: u64) -> SelftestCase {
    let random = random_graph(seed, 12);
    let mut case = SelftestCase {
        kernel: "native".to_owned(),
        case: format!("random graph {seed}, {} operations", random.graph.nodes().len()),
        error: f64::INFINITY,
        tolerance: 0.0,
        message: None,
    };
    let single = random.inputs.iter().map(|(name, value)| (*name, value.cast::<f32>())).collect();
    let references = (
        evaluate(&random.graph, &random.inputs, &random.weights),
        evaluate::<f32>(&random.graph, &single, &random.weights),
    );
    let (Ok(exact), Ok(rounded)) = references else {
        case.message = Some("the random graph lacks an input".to_owned());
        return case;
    };
    let run = async || {
        let graph = passes::optimize(&random.graph);
        let mut plan = device.plan_async(&graph, &random.weights, PlanOptions::default()).await?;
        for (name, value) in &single {
            // Passes drop inputs that no output needs.
            if graph.input(name).is_some() {
                plan.write(name, &value.data)?;
            }
        }
        plan.run_async().await?;
        let mut outputs = Vec::new();
        for (name, _) in graph.outputs() {
            outputs.push(plan.read_async(name).await?);
        }
        Ok::<_, DeviceError>(outputs)
    };
    match run().await {
        Err(error) => case.message = Some(error.to_string()),
        Ok(outputs) => {
            let outputs = outputs.iter().map(|data| data.iter().map(|v| f64::from(*v)).collect::<Vec<_>>());
            let errors = exact.iter().zip(outputs).map(|(exact, got)| relative_error(&got, exact));
            case.error = errors.fold(0.0, f64::max);
            let own = exact.iter().zip(&rounded).map(|(exact, rounded)| relative_error(&rounded.cast().data, exact));
            // Four times what f32 references lose, and never less than a few units in the last place.
            case.tolerance = 4.0 * own.fold(f64::from(f32::EPSILON), f64::max);
        }
    }
    case
}

fn relative_error(got: &[f64], exact: &Array<f64>) -> f64 {
    let largest = exact.data.iter().fold(f64::MIN_POSITIVE, |m, v| m.max(v.abs()));
    got.iter().zip(&exact.data).fold(0.0, |worst: f64, (g, e)| {
        // A NaN where there should be a number is not a small error.
        let error = (g - e).abs() / largest;
        if error.is_nan() { f64::INFINITY } else { worst.max(error) }
    })
}
