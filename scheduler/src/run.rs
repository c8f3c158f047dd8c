//! A driver made of closures, for whoever needs no more.

use crate::program::Program;
use crate::registers::Element;
use crate::stepper::{Ask, Draw, Event, Stepper};
use std::ops::ControlFlow;

/// D(x; sigma): estimates the clean image from a noisy one. Implemented for closures of this signature.
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

    /// Called before each evaluation to change x in its register. The change stays, so later ops also read the changed
    /// x. Inpainting uses this to put the noised original back where it is to be kept, as diffusers' pipelines do
    /// between two calls of a scheduler's `step`.
    fn hold(&mut self, _x: &mut [T], _sigma: f64) {}

    /// Writes x with what is known about the image in its place, x - Πx + Π(α(sigma)·known + sigma·noise). A program asks for it
    /// only under [`crate::Settings::constrained`], and a driver that knows nothing copies x.
    fn constrain(&mut self, x: &[T], _noise: &[T], _sigma: f64, out: &mut [T])
    where
        T: Copy,
    {
        out.copy_from_slice(x);
    }
}

impl<T, E, F> Denoiser<T, E> for F
where
    F: FnMut(&[T], f64, f64, &mut [T]) -> Result<(), E>,
{
    fn denoise(&mut self, x: &[T], sigma: f64, timestep: f64, out: &mut [T]) -> Result<(), E> {
        self(x, sigma, timestep, out)
    }
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

/// Runs a program, and the ones that follow it, from `x` (already scaled: noise times `init_noise_sigma`). [`Stepper`] is the same for
/// a caller that wants to pause in between.
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
    let mut stepper = Stepper::new(program.clone(), x);
    loop {
        match stepper.ask() {
            Ask::Denoise { x, sigma, timestep, out } => {
                denoiser.hold(x, sigma);
                denoiser.denoise(x, sigma, timestep, out)?;
            }
            Ask::Unguided { denoised, out } => denoiser.unguided(denoised, out)?,
            Ask::Noise { draw, out } => noise(draw, out),
            Ask::Constrain { x, noise, sigma, out } => denoiser.constrain(x, noise, sigma, out),
            Ask::Step(event) => {
                let index = event.index;
                if on_step(event).is_break() {
                    return Ok(Outcome::Stopped { index });
                }
            }
            Ask::Done => return Ok(Outcome::Finished(stepper.finish())),
        }
        stepper.advance();
    }
}
