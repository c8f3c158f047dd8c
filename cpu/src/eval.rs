//! Runs elementwise programs, block by block.

use crate::layout::{Layout, Run};
use crate::math;
use crate::parallel::{piece, with_scratch};
use crate::program::{Code, Program, Term};
use graph::Expr;
use graph::expr::Binary;
use rayon::prelude::*;
use rten_simd::{Isa, SimdOp};

/// Elements per block: a few blocks fit the first-level cache, and the cost of interpreting the program is small next
/// to the work on one block.
const BLOCK: usize = 1024;

/// An expression, and how its operands map to its result.
#[derive(Debug, Clone)]
pub(crate) struct Fused {
    program: Program,
    layout: Layout,
    /// Whether operand 0 is what the result held before.
    in_place: bool,
}

impl Fused {
    /// An operation of its own.
    pub(crate) fn new(expr: &Expr, out: &[usize], operands: &[&[usize]]) -> Fused {
        Fused { program: Program::new(expr), layout: Layout::new(out, operands), in_place: false }
    }

    /// An epilogue: `Input(0)` is what the result holds already, `operands` are the further inputs.
    pub(crate) fn epilogue(expr: &Expr, out: &[usize], operands: &[&[usize]]) -> Fused {
        let all: Vec<&[usize]> = std::iter::once(out).chain(operands.iter().copied()).collect();
        Fused { in_place: true, ..Fused::new(expr, out, &all) }
    }

    /// Work per element.
    pub(crate) fn weight(&self) -> usize {
        self.program.weight
    }

    /// Computes the whole result on all threads.
    pub(crate) fn run(&self, operands: &[&[f32]], out: &mut [f32]) {
        let piece = piece(out.len(), BLOCK, self.program.weight);
        if piece >= out.len() {
            self.run_part(operands, 0, out);
        } else {
            let parts = out.par_chunks_mut(piece).enumerate();
            parts.for_each(|(i, part)| self.run_part(operands, i * piece, part));
        }
    }

    /// Computes the result's elements from `start` on, on this thread.
    pub(crate) fn run_part(&self, operands: &[&[f32]], start: usize, out: &mut [f32]) {
        let rooms = self.layout.operands() + self.program.registers - 1;
        with_scratch(rooms * BLOCK, |scratch| Part { fused: self, operands, start, out, scratch }.dispatch());
    }
}

struct Part<'a> {
    fused: &'a Fused,
    operands: &'a [&'a [f32]],
    start: usize,
    out: &'a mut [f32],
    scratch: &'a mut [f32],
}

impl SimdOp for Part<'_> {
    type Output = ();

    // Everything below is inlined into rten-simd's dispatcher, which is compiled once per instruction set: plain loops
    // are vectorised for the widest one the machine has.
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Part { fused, operands, mut start, out, scratch } = self;
        let (rooms, registers) = scratch.split_at_mut(fused.layout.operands() * BLOCK);
        for block in out.chunks_mut(BLOCK) {
            fused.fill_rooms(operands, start, block, rooms);
            fused.block(isa, operands, start, block, registers, rooms);
            start += block.len();
        }
    }
}

impl Fused {
    /// Copies every operand that is not contiguous under this block into its scratch memory.
    #[inline(always)]
    fn fill_rooms(&self, operands: &[&[f32]], start: usize, block: &[f32], rooms: &mut [f32]) {
        let own = usize::from(self.in_place);
        if self.in_place {
            rooms[..block.len()].copy_from_slice(block);
        }
        for (i, data) in operands.iter().enumerate() {
            let at = (i + own) * BLOCK;
            self.layout.gather(i + own, data, start, &mut rooms[at..at + block.len()]);
        }
    }

    /// What operand `i` holds under this block.
    #[inline(always)]
    fn operand<'a>(&self, operands: &[&'a [f32]], i: usize, start: usize, len: usize, rooms: &'a [f32]) -> Run<'a> {
        let room = &rooms[i * BLOCK..i * BLOCK + len];
        match (self.in_place, i) {
            (true, 0) => Run::Slice(room),
            (true, _) => self.layout.run(i, operands[i - 1], start, room),
            (false, _) => self.layout.run(i, operands[i], start, room),
        }
    }

    /// Runs the program over one block. Register 0 is the block itself.
    #[inline(always)]
    fn block<I: Isa>(
        &self,
        isa: I,
        operands: &[&[f32]],
        start: usize,
        block: &mut [f32],
        registers: &mut [f32],
        rooms: &[f32],
    ) {
        let len = block.len();
        let source = |term: Term| match term {
            Term::Operand(i) => self.operand(operands, i, start, len, rooms),
            Term::Const(value) => Run::Splat(value),
        };
        for code in &self.program.code {
            match *code {
                Code::Load { to, term } => load(register(block, registers, to), source(term)),
                Code::Map { op, at } => math::map(isa, op, register(block, registers, at)),
                Code::Fold { op, at, term, reversed } => {
                    fold(op, register(block, registers, at), source(term), reversed);
                }
                Code::Join { op, at: 0 } => fold(op, block, Run::Slice(&registers[..len]), false),
                Code::Join { op, at } => {
                    let (left, right) = registers.split_at_mut(at * BLOCK);
                    let target = &mut left[(at - 1) * BLOCK..(at - 1) * BLOCK + len];
                    fold(op, target, Run::Slice(&right[..len]), false);
                }
            }
        }
    }
}

#[inline(always)]
fn register<'a>(block: &'a mut [f32], registers: &'a mut [f32], number: usize) -> &'a mut [f32] {
    match number {
        0 => block,
        _ => &mut registers[(number - 1) * BLOCK..(number - 1) * BLOCK + block.len()],
    }
}

#[inline(always)]
fn load(target: &mut [f32], source: Run<'_>) {
    match source {
        Run::Slice(values) => target.copy_from_slice(values),
        Run::Splat(value) => target.fill(value),
    }
}

/// `target = op(target, source)`, or `op(source, target)` when reversed.
#[inline(always)]
fn fold(op: Binary, target: &mut [f32], source: Run<'_>, reversed: bool) {
    match (op, reversed) {
        (Binary::Add, _) => zip(target, source, |a, b| a + b),
        (Binary::Mul, _) => zip(target, source, |a, b| a * b),
        (Binary::Sub, false) => zip(target, source, |a, b| a - b),
        (Binary::Sub, true) => zip(target, source, |a, b| b - a),
        (Binary::Div, false) => zip(target, source, |a, b| a / b),
        (Binary::Div, true) => zip(target, source, |a, b| b / a),
        // With a NaN, the result depends on the order of the operands. This is the order of the references.
        (Binary::Min, false) => zip(target, source, |a, b| if b < a { b } else { a }),
        (Binary::Min, true) => zip(target, source, |a, b| if a < b { a } else { b }),
        (Binary::Max, false) => zip(target, source, |a, b| if b > a { b } else { a }),
        (Binary::Max, true) => zip(target, source, |a, b| if a > b { a } else { b }),
    }
}

#[inline(always)]
fn zip(target: &mut [f32], source: Run<'_>, f: impl Fn(f32, f32) -> f32) {
    match source {
        Run::Slice(values) => target.iter_mut().zip(values).for_each(|(a, b)| *a = f(*a, *b)),
        Run::Splat(b) => target.iter_mut().for_each(|a| *a = f(*a, b)),
    }
}
