//! The reference driver: runs a program on slices of f32 or f64.

use std::ops::ControlFlow;

use crate::program::{Limit, Op, Program, Reg, Tolerance};

/// f32 or f64. Sums are formed in f64 and rounded once.
pub trait Element: Copy + Default {
    /// Widens.
    fn to_f64(self) -> f64;
    /// Rounds to nearest.
    fn from_f64(value: f64) -> Self;
}

impl Element for f32 {
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn from_f64(value: f64) -> Self {
        value as f32
    }
}

impl Element for f64 {
    fn to_f64(self) -> f64 {
        self
    }
    fn from_f64(value: f64) -> Self {
        value
    }
}

/// D(x; sigma): estimates the clean image from a noisy one. Any closure of this shape is one.
pub trait Denoiser<T, E> {
    /// Writes the denoised image of `x` to `out`; `timestep` is what the model takes as its time.
    fn denoise(&mut self, x: &[T], sigma: f64, timestep: f64, out: &mut [T]) -> Result<(), E>;

    /// Writes the denoised image of the last call without guidance; `denoised` is what that call gave, and the answer where there is
    /// no guidance.
    ///
    /// # Errors
    /// As [`Denoiser::denoise`].
    fn unguided(&mut self, denoised: &[T], out: &mut [T]) -> Result<(), E>
    where
        T: Copy,
    {
        out.copy_from_slice(denoised);
        Ok(())
    }

    /// Changes what is about to be denoised at `sigma`, in its register: whoever reads x later sees it changed, too. Inpainting puts the
    /// noised original back wherever it is to be kept, as diffusers' pipelines do between two calls of a scheduler's `step`.
    fn constrain(&mut self, _x: &mut [T], _sigma: f64) {}
}

impl<T, E, F> Denoiser<T, E> for F
where
    F: FnMut(&[T], f64, f64, &mut [T]) -> Result<(), E>,
{
    fn denoise(&mut self, x: &[T], sigma: f64, timestep: f64, out: &mut [T]) -> Result<(), E> {
        self(x, sigma, timestep, out)
    }
}

/// One draw of noise that a program asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// Counts from 0 within the program; the starting noise is not among them.
    pub index: usize,
    /// See [`Op::Noise`].
    pub between: Option<(f64, f64)>,
}

/// What a driver reports once per step.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a, T> {
    /// Counts from 0.
    pub index: usize,
    /// How many there will be; 0 if the sampler chooses its own steps.
    pub steps: usize,
    /// Noise level of `x`.
    pub sigma: f64,
    /// The noisy image this step starts from.
    pub x: &'a [T],
    /// The model's estimate of the clean image.
    pub denoised: &'a [T],
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<T> {
    /// All ops ran; the result, times [`Program::final_scale`].
    Finished(Vec<T>),
    /// A handler stopped it at this step.
    Stopped {
        /// Index of the step whose event answered `Break`.
        index: usize,
    },
}

/// Runs a program, and the ones that follow it, from `x` (already scaled: noise times `init_noise_sigma`).
///
/// `noise` fills a slice with standard normal numbers; `on_step` sees every step and may stop the run.
///
/// # Errors
/// Only the denoiser's own.
pub fn run<T: Element, E>(
    program: &Program,
    x: &[T],
    denoiser: &mut impl Denoiser<T, E>,
    mut noise: impl FnMut(Draw, &mut [T]),
    mut on_step: impl FnMut(Event<'_, T>) -> ControlFlow<()>,
) -> Result<Outcome<T>, E> {
    let steps = if program.is_fixed() { program.steps() } else { 0 };
    let mut registers = Registers::new(program, x);
    let mut later;
    let mut program = program;
    loop {
        let mut measured = f64::NAN;
        for op in program.ops() {
            match op {
                Op::Denoise { dst, x, sigma, timestep } => {
                    denoiser.constrain(registers.get_mut(*x), *sigma);
                    let (out, x) = registers.write_and_read(*dst, *x);
                    denoiser.denoise(x, *sigma, *timestep, out)?;
                }
                Op::Unguided { dst, denoised } => {
                    let (out, denoised) = registers.write_and_read(*dst, *denoised);
                    denoiser.unguided(denoised, out)?;
                }
                Op::Noise { dst, draw, between } => {
                    noise(Draw { index: *draw, between: *between }, registers.get_mut(*dst));
                }
                Op::Step { index, sigma, x, denoised } => {
                    let (x, denoised) = (registers.get(*x), registers.get(*denoised));
                    let event = Event { index: *index, steps, sigma: *sigma, x, denoised };
                    if on_step(event).is_break() {
                        return Ok(Outcome::Stopped { index: *index });
                    }
                }
                Op::Combine { dst, terms } => registers.combine(*dst, terms),
                Op::Clip { dst, src, limit } => registers.clip(*dst, *src, limit),
                Op::Measure { terms, tolerance } => measured = registers.measure(terms, tolerance.as_ref()),
            }
        }
        let Some(next) = program.next(measured) else { break };
        registers = registers.for_next(program, &next);
        later = next;
        program = &later;
    }
    let scale = program.final_scale();
    let result = registers.get(program.output()).iter().map(|v| T::from_f64(v.to_f64() * scale)).collect();
    Ok(Outcome::Finished(result))
}

/// The registers of a driver, all of one length, with the ops that need no model.
#[derive(Debug, Clone)]
pub struct Registers<T> {
    slots: Vec<Vec<T>>,
    len: usize,
}

impl<T: Element> Registers<T> {
    /// As many registers as the program needs, x in its input.
    pub fn new(program: &Program, x: &[T]) -> Self {
        let mut slots = vec![Vec::new(); program.registers()];
        slots[program.input().0] = x.to_vec();
        Self { slots, len: x.len() }
    }

    /// The registers of the segment that follows, with what it takes over.
    pub fn for_next(&self, program: &Program, next: &Program) -> Self {
        let mut slots = vec![Vec::new(); next.registers()];
        for (from, to) in next.takes_over(program) {
            slots[to.0].clone_from(&self.slots[from.0]);
        }
        Self { slots, len: self.len }
    }

    /// A register's content; empty if never written.
    pub fn get(&self, reg: Reg) -> &[T] {
        &self.slots[reg.0]
    }

    /// A register to be overwritten.
    pub fn get_mut(&mut self, reg: Reg) -> &mut [T] {
        self.slots[reg.0].resize(self.len, T::default());
        &mut self.slots[reg.0]
    }

    /// A register to be overwritten beside one that is read; a program never asks for the same one twice.
    pub fn write_and_read(&mut self, dst: Reg, src: Reg) -> (&mut [T], &[T]) {
        self.slots[dst.0].resize(self.len, T::default());
        let [dst, src] =
            self.slots.get_disjoint_mut([dst.0, src.0]).expect("no op of a program writes a register it reads");
        (dst, src)
    }

    /// dst = Σ coefficient · register.
    pub fn combine(&mut self, dst: Reg, terms: &[(f64, Reg)]) {
        let mut out = std::mem::take(&mut self.slots[dst.0]);
        out.clear();
        out.extend((0..self.len).map(|i| T::from_f64(self.sum_at(terms, i))));
        self.slots[dst.0] = out;
    }

    /// dst = src inside the limit; the whole register counts as one image.
    pub fn clip(&mut self, dst: Reg, src: Reg, limit: &Limit) {
        let (out, src) = self.write_and_read(dst, src);
        match *limit {
            Limit::Clamp { range } => {
                for (out, v) in out.iter_mut().zip(src) {
                    *out = T::from_f64(v.to_f64().clamp(-range, range));
                }
            }
            Limit::Dynamic { ratio, max } => {
                let s = quantile_of_magnitudes(src, ratio).clamp(1.0, max.max(1.0));
                for (out, v) in out.iter_mut().zip(src) {
                    *out = T::from_f64(v.to_f64().clamp(-s, s) / s);
                }
            }
        }
    }

    /// The root mean square of Σ coefficient · register, each element divided by its tolerance.
    pub fn measure(&self, terms: &[(f64, Reg)], tolerance: Option<&Tolerance>) -> f64 {
        let mut squares = 0.0;
        for i in 0..self.len {
            let mut value = self.sum_at(terms, i);
            if let Some(Tolerance { absolute, relative, of }) = tolerance {
                let largest = of.iter().map(|r| self.slots[r.0][i].to_f64().abs()).fold(0.0, f64::max);
                value /= absolute.max(relative * largest);
            }
            squares += value * value;
        }
        (squares / self.len.max(1) as f64).sqrt()
    }

    fn sum_at(&self, terms: &[(f64, Reg)], i: usize) -> f64 {
        terms.iter().map(|&(coefficient, reg)| coefficient * self.slots[reg.0][i].to_f64()).sum()
    }
}

/// torch.quantile's linear interpolation between order statistics.
fn quantile_of_magnitudes<T: Element>(values: &[T], ratio: f64) -> f64 {
    let mut magnitudes: Vec<f64> = values.iter().map(|v| v.to_f64().abs()).collect();
    magnitudes.sort_by(f64::total_cmp);
    let Some(last) = magnitudes.len().checked_sub(1) else { return 1.0 };
    let position = ratio.clamp(0.0, 1.0) * last as f64;
    let low = position.floor() as usize;
    let high = (low + 1).min(last);
    magnitudes[low] + (magnitudes[high] - magnitudes[low]) * (position - low as f64)
}
