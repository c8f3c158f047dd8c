//! Every kernel against its operation's reference, on the adapter at hand.

use crate::check::{Check, Evaluation, Expected};
use crate::device::{GpuDevice, Inner};
use crate::pipeline::{Part, params_size};
use crate::storage;
pub use graph::cases::Depth;
use graph::cases::{Case, Source, Values, cases};
use graph::shape::numel;
use graph::{Array, DeviceError, Op, q8_0};
use half::f16;
use shaders::{EIGHT_BITS, Format, KERNELS, Operand, Problem, Profile, Shader};
use std::cell::OnceCell;
use std::collections::HashSet;

/// A NaN that no arithmetic makes, put around and under results: what is never written keeps it, and what is written
/// beyond the end loses it.
const SENTINEL: u32 = 0x7fc5_a5a5;

/// Words of sentinels behind a result, more than any tile is wide.
const FENCE: usize = 1024;

/// One kernel on one problem.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseResult {
    /// The kernel.
    pub kernel: &'static str,
    /// The operation.
    pub op: &'static str,
    /// The problem: shapes, flags and epilogue.
    pub case: String,
    /// How operands that plans may keep in less than single precision were stored: `f32`, `f16`, `packed f16` or `q8_0`; or
    /// `all f16`, where those that are no weights and the result were halves, too.
    pub storage: &'static str,
    /// How it went.
    pub outcome: Outcome,
}

/// How a kernel did.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It ran, and its result was compared.
    Compared(Check),
    /// It wrote beyond its result.
    Overrun {
        /// The first element past the end that changed, or a negative one before the beginning.
        at: i64,
    },
    /// It did not compile or run.
    Failed(DeviceError),
}

impl CaseResult {
    /// Whether the result was right and nothing else was touched.
    #[must_use]
    pub fn passed(&self) -> bool {
        matches!(&self.outcome, Outcome::Compared(check) if check.passed())
    }
}

/// Runs every kernel that applies on this adapter on a table of small problems, and calls `on_case` with each result.
///
/// Results lie between sentinels and operands before numbers that are none, so that reading or writing past an end
/// shows. Half-precision operands hold numbers that half precision has, so that what is compared is the arithmetic.
///
/// # Errors
/// When the device is lost; what a kernel does wrong is a result.
#[cfg(not(target_family = "wasm"))]
pub fn selftest(
    device: &GpuDevice,
    depth: Depth,
    on_case: impl FnMut(&CaseResult),
) -> Result<Vec<CaseResult>, DeviceError> {
    graph::block_on(selftest_async(device, depth, on_case))
}

/// The same, to be awaited.
///
/// # Errors
/// The same.
pub async fn selftest_async(
    device: &GpuDevice,
    depth: Depth,
    mut on_case: impl FnMut(&CaseResult),
) -> Result<Vec<CaseResult>, DeviceError> {
    let inner = &*device.inner;
    let mut results = Vec::new();
    let (mut seen, mut accesses) = (HashSet::new(), HashSet::new());
    let narrow = Profile { max_groups: 7, ..inner.profile.clone() };
    for case in cases() {
        for layout in LAYOUTS.iter().filter(|layout| layout.applies(&case, &inner.profile)) {
            let data = Data::of(&case, layout);
            let problem = data.problem(&case);
            for kernel in KERNELS.iter().filter(|kernel| kernel.op() == case.op.name()) {
                let Some(shader) = kernel.shader(&problem, &inner.profile) else { continue };
                let new = seen.insert((kernel.name(), layout.name, case.epilogue.is_some()));
                // Halves everywhere change how elements are accessed, one by one or in vectors, and nothing else.
                let new_access = accesses.insert((kernel.name(), layout.name, case.epilogue.is_some(), vectors(&case)));
                let is_new = match (depth, layout.rest) {
                    (Depth::Brief, _) => new,
                    (Depth::Full, Format::F16) => new_access,
                    (Depth::Full, _) => true,
                };
                let heavy = case.op.takes_epilogue() || matches!(case.op, Op::Attention(_));
                if heavy && !is_new {
                    continue;
                }
                let storage = layout.name;
                // Large problems fold a long line of workgroups over two dimensions; on a narrow adapter small ones do.
                let folded = kernel.shader(&problem, &narrow).filter(|folded| folded.groups != shader.groups);
                for (shader, note) in std::iter::once((shader, "")).chain(folded.map(|shader| (shader, " folded"))) {
                    let outcome = launch(inner, &shader, &case, &data).await.unwrap_or_else(Outcome::Failed);
                    inner.faults.check()?;
                    let (kernel, op, case) = (kernel.name(), kernel.op(), format!("{}{note}", case.label));
                    let result = CaseResult { kernel, op, case, storage, outcome };
                    on_case(&result);
                    results.push(result);
                }
            }
        }
    }
    Ok(results)
}

/// Which of a case's values can be accessed four elements at a time.
fn vectors(case: &Case) -> Vec<bool> {
    let shapes = case.sources().map(|(source, _)| &source.shape).chain([&case.out]);
    shapes.map(|shape| shape.last().is_some_and(|row| row.is_multiple_of(4))).collect()
}

/// How operands and results lie in memory.
struct Layout {
    name: &'static str,
    /// Of what models have as large weights.
    weights: Format,
    /// Of everything else that need not be exact, and of the result.
    rest: Format,
}

const LAYOUTS: [Layout; 5] = [
    Layout { name: "f32", weights: Format::F32, rest: Format::F32 },
    Layout { name: "f16", weights: Format::F16, rest: Format::F32 },
    Layout { name: "packed f16", weights: Format::PackedF16, rest: Format::F32 },
    Layout { name: "q8_0", weights: Format::Q8_0, rest: Format::F32 },
    Layout { name: "all f16", weights: Format::F16, rest: Format::F16 },
];

impl Layout {
    fn applies(&self, case: &Case, profile: &Profile) -> bool {
        let halves = [self.weights, self.rest].contains(&Format::F16);
        if halves && !profile.shader_f16 {
            return false;
        }
        if self.rest == Format::F16 {
            return true;
        }
        // An epilogue does not depend on how weights are stored: single precision is enough for it.
        match self.weights {
            Format::F32 => true,
            Format::Q8_0 => case.epilogue.is_none() && case.blocks().is_some(),
            _ => case.epilogue.is_none() && case.operands.iter().any(|source| source.is_weight),
        }
    }

    fn of(&self, case: &Case, i: usize, source: &Source) -> Format {
        match source.values {
            // What plans keep as singles, and a mask's large numbers, which halves do not have.
            Values::Rows(_) | Values::Timesteps | Values::Mask => Format::F32,
            _ if !source.is_weight => self.rest,
            _ if self.weights == Format::Q8_0 && case.blocks() != Some(i) => Format::F32,
            _ => self.weights,
        }
    }
}

/// A case with its numbers.
struct Data {
    operands: Vec<Array<f32>>,
    formats: Vec<Format>,
    result: Format,
    /// By most kernels, and by the one that rounds to eight bits.
    expected: [OnceCell<Expected>; 2],
}

impl Data {
    fn of(case: &Case, layout: &Layout) -> Self {
        let formats: Vec<Format> =
            case.sources().enumerate().map(|(i, (source, _))| layout.of(case, i, source)).collect();
        let array = |((source, seed), format): ((&Source, u64), &Format)| {
            let array = source.array(seed, *format != Format::F32);
            match format {
                Format::Q8_0 => {
                    let blocks = q8_0::quantize(&array.data).expect("tests' values are small");
                    Array::new(array.shape, q8_0::values(&blocks))
                }
                _ => array,
            }
        };
        let operands = case.sources().zip(&formats).map(array).collect();
        Self { operands, formats, result: layout.rest, expected: Default::default() }
    }

    fn problem<'a>(&'a self, case: &'a Case) -> Problem<'a> {
        let operand = |(array, format): (&'a Array<f32>, Format)| Operand { shape: &array.shape, format };
        let mut operands: Vec<Operand<'_>> = self.bound().map(operand).collect();
        let extras = operands.split_off(case.operands.len());
        let epilogue = case.epilogue.as_ref().map(|(expr, _)| expr);
        Problem { op: &case.op, operands, epilogue, extras, out: &case.out, result: self.result }
    }

    /// What a kernel should give: the references are slow, so they are asked once.
    fn expected(&self, case: &Case, kernel: &str) -> &Expected {
        let (operands, extras) = self.operands.split_at(case.operands.len());
        let eight_bits = kernel == EIGHT_BITS;
        let evaluation = Evaluation {
            op: &case.op,
            operands,
            epilogue: case.epilogue.as_ref().map(|(expr, _)| (expr, extras)),
            out: &case.out,
            half: self.result == Format::F16,
            eight_bits,
        };
        self.expected[usize::from(eight_bits)].get_or_init(|| evaluation.expected())
    }

    /// All operands in binding order.
    fn bound(&self) -> impl Iterator<Item = (&Array<f32>, Format)> {
        self.operands.iter().zip(self.formats.iter().copied())
    }
}

/// Runs one shader between fences and compares.
async fn launch(inner: &Inner, shader: &Shader, case: &Case, data: &Data) -> Result<Outcome, DeviceError> {
    let elements = numel(&case.out);
    let align = inner.limits.min_storage_buffer_offset_alignment.max(4) as usize / 4;
    // Kernels that ask a binding for its length need the true one; for the rest it includes the fence, because drivers
    // quietly drop what is written beyond a binding.
    let behind = if shader.source.contains("arrayLength") { 0 } else { FENCE };
    let bytes = usize::try_from(storage::bytes(elements, data.result)).expect("a small test");
    let result = inner.storage_buffer((align * 4 + bytes.next_multiple_of(4) + FENCE * 4) as u64, "a result")?;
    let words = usize::try_from(result.size() / 4).expect("a small test");
    let sentinels = vec![SENTINEL; words];
    inner.queue.write_buffer(&result, 0, bytemuck::cast_slice(&sentinels));

    let mut operands = Vec::new();
    for (array, format) in data.bound() {
        let mut bytes = storage::encode(&array.data, format);
        // Packed halves fill whole words, the last one with nothing.
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let size = bytes.len() as u64;
        let nothing = match format {
            Format::F32 => f32::NAN.to_bits(),
            _ => u32::from(f16::NAN.to_bits()) * 0x1_0001,
        };
        bytes.extend(std::iter::repeat_n(nothing.to_ne_bytes(), 64).flatten());
        let buffer = inner.storage_buffer(bytes.len() as u64, "an operand")?;
        inner.queue.write_buffer(&buffer, 0, &bytes);
        operands.push((buffer, size));
    }

    // The parameters start at an offset, with nonsense before them.
    let offset = inner.limits.min_uniform_buffer_offset_alignment;
    let mut params = vec![u32::MAX; offset as usize / 4];
    params.extend(&shader.params);
    let size = u64::from(offset) + params_size(shader);
    params.resize(usize::try_from(size / 4).expect("a few words"), 0);
    let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
    let uniform = inner.buffer(size, usage, "parameters")?;
    inner.queue.write_buffer(&uniform, 0, bytemuck::cast_slice(&params));

    let pipeline = inner.pipeline(shader, operands.len())?;
    let parts: Vec<Part<'_>> = operands.iter().map(|(buffer, size)| Part::start_of(buffer, *size)).collect();
    let size = (bytes.next_multiple_of(4) + behind * 4) as u64;
    let out = Part { buffer: &result, offset: (align * 4) as u64, size };
    let params = Part { buffer: &uniform, offset: 0, size: params_size(shader) };
    let bindings = inner.bind(&pipeline, &parts, out, params)?;
    inner.guarded("running a kernel", || {
        let mut encoder = inner.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline.handle);
        pass.set_bind_group(0, &bindings, &[offset]);
        let [x, y, z] = shader.groups;
        pass.dispatch_workgroups(x, y, z);
        drop(pass);
        inner.queue.submit([encoder.finish()]);
    })?;
    let staging = inner.staging_buffer(words, "a result")?;
    let words: Vec<u32> = inner.read_back(&result, &staging, words).await?;

    // An odd number of halves leaves the upper half of its last word alone.
    let all: &[u8] = bytemuck::cast_slice(&words);
    let inside = align * 4..align * 4 + bytes;
    let sentinel = SENTINEL.to_ne_bytes();
    if let Some(at) = (0..all.len()).find(|i| !inside.contains(i) && all[*i] != sentinel[i % 4]) {
        let at = at as i64 - if at < inside.start { inside.start } else { inside.end } as i64;
        let size = (bytes / elements.max(1)) as i64;
        return Ok(Outcome::Overrun { at: at.div_euclid(size.max(1)) + if at < 0 { 0 } else { elements as i64 } });
    }
    let values = storage::decode(&all[inside], data.result);
    Ok(Outcome::Compared(data.expected(case, shader.kernel).check(&values)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::adapters;
    use crate::device::GpuOptions;
    use graph::DeviceKind;

    /// Runs a spoilt copy of the naive elementwise kernel on its first case.
    fn outcome(spoil: impl Fn(&mut Shader)) -> Outcome {
        let found = adapters("vulkan".parse().unwrap());
        let adapter = found.iter().find(|adapter| adapter.info().kind == DeviceKind::SoftwareGpu);
        let adapter = adapter.expect("Mesa's software Vulkan driver (Debian: mesa-vulkan-drivers)");
        let device = adapter.open(GpuOptions::default()).unwrap();
        let case = cases().into_iter().find(|case| case.op.name() == "elementwise").unwrap();
        let data = Data::of(&case, &LAYOUTS[0]);
        let kernel = KERNELS.iter().find(|kernel| kernel.name() == "elementwise_naive").unwrap();
        let mut shader = kernel.shader(&data.problem(&case), &device.inner.profile).unwrap();
        spoil(&mut shader);
        graph::block_on(launch(&device.inner, &shader, &case, &data)).unwrap_or_else(Outcome::Failed)
    }

    #[test]
    fn faulty_kernels_are_found_out() {
        assert!(matches!(outcome(|_| ()), Outcome::Compared(check) if check.passed()));
        // No guard at the end: the rest of the last workgroup writes on.
        let unguarded = outcome(|shader| {
            assert!(shader.source.contains("if (i < params.count)"), "{}", shader.source);
            shader.source = shader.source.replace("if (i < params.count)", "if (true)");
        });
        let elements = 3 * 37;
        assert_eq!(unguarded, Outcome::Overrun { at: elements });
        // Nothing runs: what was never written is no result.
        let idle = outcome(|shader| shader.groups = [0, 0, 0]);
        assert!(matches!(idle, Outcome::Compared(check) if check.max_error.is_infinite()), "{idle:?}");
        let broken = outcome(|shader| shader.source.push_str("fn"));
        assert!(
            matches!(&broken, Outcome::Failed(DeviceError::Failed { reason, .. })
            if reason.starts_with("compiling kernel elementwise_naive")),
            "{broken:?}"
        );
    }
}
