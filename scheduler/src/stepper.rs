//! A run that its caller drives: it says what it needs, and waits.

use crate::program::{Op, Program};
use crate::registers::{Element, Registers};

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
    /// How often the model has run so far.
    pub evaluations: usize,
    /// The noisy image this step starts from.
    pub x: &'a [T],
    /// The model's estimate of the clean image.
    pub denoised: &'a [T],
}

/// What a [`Stepper`] waits for. The slices are its own registers: write the answer into them, then call [`Stepper::advance`].
#[derive(Debug)]
pub enum Ask<'a, T> {
    /// The model must run: `out` = D(x; sigma).
    Denoise {
        /// The noisy image. It may be changed first, and the sampler then goes on from the changed one: inpainting puts the noised
        /// original back where it is to be kept.
        x: &'a mut [T],
        /// Noise level, in the program's [`crate::Frame`].
        sigma: f64,
        /// What the model takes as its time.
        timestep: f64,
        /// Where the denoised image goes.
        out: &'a mut [T],
    },
    /// `out` = the denoised image of the last evaluation without guidance; without guidance that is `denoised` itself.
    Unguided {
        /// What the last evaluation gave.
        denoised: &'a [T],
        /// Where the answer goes.
        out: &'a mut [T],
    },
    /// `out` = standard normal numbers.
    Noise {
        /// Which draw.
        draw: Draw,
        /// Where they go.
        out: &'a mut [T],
    },
    /// `out` = x - Πx + Π(α(sigma)·known + sigma·noise), with what the driver knows about the image ([`Op::Constrain`]); a driver that
    /// knows nothing copies x.
    Constrain {
        /// The noisy image.
        x: &'a [T],
        /// Standard normal numbers of its shape, or zeros.
        noise: &'a [T],
        /// Noise level of `x`, in the program's [`crate::Frame`]; at 0 the known part is exact.
        sigma: f64,
        /// Where the answer goes.
        out: &'a mut [T],
    },
    /// Nothing is needed: a step has its denoised image and can be looked at.
    Step(Event<'a, T>),
    /// Nothing is needed any more: [`Stepper::finish`] gives the result.
    Done,
}

/// A program in the middle of its run.
///
/// It computes sums by itself and stops at everything else: [`ask`](Self::ask) says at what, and [`advance`](Self::advance) goes on
/// once that is answered. Its caller can therefore pause it, drop it, run several side by side, or await the model in between.
///
/// ```
/// use scheduler::{Ask, Frame, Schedule, Settings, Stepper, TimestepMap, sampler, sigmas};
///
/// let schedule = Schedule::new(sigmas::karras(4, 0.01, 10.0, 7.0)?, Frame::VarianceExploding, TimestepMap::QuarterLog)?;
/// let program = sampler("euler")?.program(&schedule, &Settings::default());
/// let mut stepper = Stepper::new(program, &[10.0]);
/// loop {
///     match stepper.ask() {
///         Ask::Denoise { out, .. } => out.fill(0.25),
///         Ask::Step(event) => println!("{} {}", event.index, event.sigma),
///         Ask::Done => break,
///         Ask::Noise { .. } | Ask::Unguided { .. } | Ask::Constrain { .. } => unreachable!("Euler's method needs none of them"),
///     }
///     stepper.advance();
/// }
/// assert_eq!(stepper.finish(), [0.25]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Stepper<T> {
    program: Program,
    registers: Registers<T>,
    /// Index of the op that is waited at; one past the last when the run is over.
    at: usize,
    /// What the last [`Op::Measure`] gave: how an adaptive sampler goes on depends on it.
    measured: f64,
    evaluations: usize,
    /// Of the whole run; 0 if the sampler chooses its own steps.
    steps: usize,
}

impl<T: Element> Stepper<T> {
    /// A run from `x`, already scaled: noise times `init_noise_sigma`, or a noised image.
    pub fn new(program: Program, x: &[T]) -> Self {
        let steps = if program.is_fixed() { program.steps() } else { 0 };
        let registers = Registers::new(&program, x);
        let mut stepper = Self { program, registers, at: 0, measured: f64::NAN, evaluations: 0, steps };
        stepper.compute();
        stepper
    }

    /// What is needed now. Asking again without [`advance`](Self::advance) gives the same.
    pub fn ask(&mut self) -> Ask<'_, T> {
        let Some(op) = self.program.ops.get(self.at) else { return Ask::Done };
        match op {
            Op::Denoise { dst, x, sigma, timestep } => {
                let (out, x) = self.registers.write_both(*dst, *x);
                Ask::Denoise { x, sigma: *sigma, timestep: *timestep, out }
            }
            Op::Unguided { dst, denoised } => {
                let (out, denoised) = self.registers.write_and_read(*dst, *denoised);
                Ask::Unguided { denoised, out }
            }
            Op::Noise { dst, draw, between } => {
                let draw = Draw { index: *draw, between: *between };
                Ask::Noise { draw, out: self.registers.get_mut(*dst) }
            }
            Op::Constrain { dst, x, noise, sigma } => {
                let (out, x, noise) = self.registers.write_and_read_two(*dst, *x, *noise);
                Ask::Constrain { x, noise, sigma: *sigma, out }
            }
            Op::Step { index, sigma, x, denoised } => Ask::Step(Event {
                index: *index,
                steps: self.steps,
                sigma: *sigma,
                evaluations: self.evaluations,
                x: self.registers.get(*x),
                denoised: self.registers.get(*denoised),
            }),
            Op::Combine { .. } | Op::Clip { .. } | Op::Measure { .. } => {
                unreachable!("the stepper computes these without stopping")
            }
        }
    }

    /// Goes on to the next thing that is needed.
    pub fn advance(&mut self) {
        if let Some(op) = self.program.ops.get(self.at) {
            self.evaluations += usize::from(matches!(op, Op::Denoise { .. }));
            self.at += 1;
            self.compute();
        }
    }

    /// Runs the ops that need nobody, up to the next that does.
    fn compute(&mut self) {
        loop {
            match self.program.ops.get(self.at) {
                Some(Op::Combine { dst, terms }) => self.registers.combine(*dst, terms),
                Some(Op::Clip { dst, src, limit }) => self.registers.clip(*dst, *src, limit),
                Some(Op::Measure { terms, tolerance }) => {
                    self.measured = self.registers.measure(terms, tolerance.as_ref());
                }
                Some(_) => return,
                None => {
                    // The end of a segment: an adaptive sampler has another, chosen by what was measured.
                    let Some(next) = self.program.next(self.measured) else { return };
                    self.registers = self.registers.for_next(&self.program, &next);
                    (self.program, self.at, self.measured) = (next, 0, f64::NAN);
                    continue;
                }
            }
            self.at += 1;
        }
    }

    /// How often the model has run.
    pub fn evaluations(&self) -> usize {
        self.evaluations
    }

    /// Whether the run is over.
    pub fn is_done(&self) -> bool {
        self.at >= self.program.ops.len()
    }

    /// The result, times [`Program::final_scale`].
    ///
    /// # Panics
    /// When the run is not over.
    pub fn finish(self) -> Vec<T> {
        assert!(self.is_done(), "the run still asks for something");
        let scale = self.program.final_scale();
        self.registers.get(self.program.output()).iter().map(|v| T::from_f64(v.to_f64() * scale)).collect()
    }
}
