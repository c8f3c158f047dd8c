use graph::{Expr, Op};

/// How the elements of a storage binding lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// One `f32` each.
    F32,
    /// One `f16` each, read as such; needs the adapter's `shader-f16`.
    F16,
    /// Two half-precision numbers in each `u32`, the first in the low half. Every adapter reads it. An odd number of
    /// elements leaves the last high half unused.
    PackedF16,
    /// Blocks of 32 neighbours along the last axes of a right factor, in eight bits ([`graph::q8_0`]): first the whole numbers of all
    /// blocks, four in each `u32`, then their scales in half precision, two in each. Every adapter reads it.
    Q8_0,
}

impl Format {
    /// All of them, for tests.
    pub const ALL: [Format; 4] = [Format::F32, Format::F16, Format::PackedF16, Format::Q8_0];
}

/// A value that a kernel reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operand<'a> {
    /// Its shape; elements lie row-major.
    pub shape: &'a [usize],
    /// How they are stored.
    pub format: Format,
}

/// One node of a graph, as far as a kernel needs to know it.
#[derive(Debug, Clone)]
pub struct Problem<'a> {
    /// The operation and its attributes.
    pub op: &'a Op,
    /// Its operands.
    pub operands: Vec<Operand<'a>>,
    /// What to apply to the result before it is stored: `Input(0)` is the result, `Input(i)` is `extras[i − 1]`.
    pub epilogue: Option<&'a Expr>,
    /// The epilogue's further operands, broadcast to the result.
    pub extras: Vec<Operand<'a>>,
    /// Shape of the result.
    pub out: &'a [usize],
    /// How the result is stored: [`Format::F32`], or [`Format::F16`] with what is beyond half precision as its largest number. All
    /// sums are in single precision.
    pub result: Format,
}
