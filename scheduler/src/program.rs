//! A sampler applied to its sigmas, as data.

use std::fmt;
use std::sync::Arc;

/// A register: a whole image (or latent, or batch of them) held by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reg(pub usize);

impl fmt::Display for Reg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// How a denoised image is kept inside the range of pictures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// Every element clamped to ±`range` (diffusers' `clip_sample`).
    Clamp {
        /// Largest magnitude kept.
        range: f64,
    },
    /// Dynamic thresholding (Saharia et al. 2022, section 2.3): s is the `ratio` quantile of the magnitudes of one image,
    /// held between 1 and `max`; elements are clamped to ±s and divided by s.
    Dynamic {
        /// Quantile in 0..1.
        ratio: f64,
        /// Largest s (diffusers' `sample_max_value`).
        max: f64,
    },
}

/// Element-wise tolerance of a [`Op::Measure`]: the measured combination is divided by max(`absolute`, `relative`·max|reg|).
#[derive(Debug, Clone, PartialEq)]
pub struct Tolerance {
    /// Absolute tolerance.
    pub absolute: f64,
    /// Relative tolerance.
    pub relative: f64,
    /// Registers whose magnitudes the relative tolerance refers to.
    pub of: Vec<Reg>,
}

/// One instruction. `dst` is never one of its sources, so a device may bind it for writing beside them.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// dst = D(x; sigma), the denoised image.
    Denoise {
        /// Where the denoised image goes.
        dst: Reg,
        /// The noisy image.
        x: Reg,
        /// Noise level, in the program's [`crate::Frame`].
        sigma: f64,
        /// What the model takes as its time (c_noise): an index of the training schedule, ln(σ)/4, 1000·σ.
        timestep: f64,
    },
    /// dst = the denoised image of the last `Denoise` without guidance: what classifier-free guidance calls unconditional.
    Unguided {
        /// Where it goes.
        dst: Reg,
        /// The guided one, which a driver without guidance copies.
        denoised: Reg,
    },
    /// dst = standard normal numbers; a deterministic sampler has none of these.
    Noise {
        /// Where the noise goes.
        dst: Reg,
        /// Counts the draws of a program from 0.
        draw: usize,
        /// The interval of sigma, from above, over which this is the normalised increment of the Brownian path that
        /// drives the reverse SDE. With a driver that follows one path, runs with different numbers of steps approach
        /// the same result; with independent numbers they agree only in distribution. `None` if the noise is no
        /// increment of a path and must be independent.
        between: Option<(f64, f64)>,
    },
    /// dst = x - Πx + Π(α(sigma)·known + sigma·noise): what is known about the image takes its place in x, under this noise. Π and
    /// `known` are the driver's: Π projects onto what is known, a mask's pixels for example (Song et al. 2021, Score-Based Generative
    /// Modeling, appendix I.2; Lugmayr et al. 2022, equation 8). A driver that knows nothing copies x.
    Constrain {
        /// Where the result goes.
        dst: Reg,
        /// The noisy image.
        x: Reg,
        /// Standard normal numbers of x's shape, or zeros.
        noise: Reg,
        /// Noise level of `x`, in the program's [`crate::Frame`]; at 0 the known part is exact.
        sigma: f64,
    },
    /// dst = Σ coefficient · register, element by element.
    Combine {
        /// Where the sum goes.
        dst: Reg,
        /// Coefficients and registers; empty means zeros.
        terms: Vec<(f64, Reg)>,
    },
    /// dst = src limited to a range.
    Clip {
        /// Where the result goes.
        dst: Reg,
        /// What is clipped.
        src: Reg,
        /// The range.
        limit: Limit,
    },
    /// The root mean square of Σ coefficient · register, over all elements, each divided by its tolerance if there is one.
    /// The last op of its segment: the sampler continues from the number.
    Measure {
        /// Coefficients and registers.
        terms: Vec<(f64, Reg)>,
        /// Element-wise divisor, 1 if absent.
        tolerance: Option<Tolerance>,
    },
    /// Computes nothing. Marks that the denoised image of step `index` is known, so that a driver can report it.
    Step {
        /// Counts from 0.
        index: usize,
        /// Noise level of `x`.
        sigma: f64,
        /// The noisy image this step starts from.
        x: Reg,
        /// Its denoised image.
        denoised: Reg,
    },
}

impl Op {
    /// The register this op writes.
    pub fn dst(&self) -> Option<Reg> {
        match self {
            Self::Denoise { dst, .. }
            | Self::Unguided { dst, .. }
            | Self::Noise { dst, .. }
            | Self::Constrain { dst, .. }
            | Self::Combine { dst, .. }
            | Self::Clip { dst, .. } => Some(*dst),
            Self::Measure { .. } | Self::Step { .. } => None,
        }
    }

    /// The registers this op reads.
    pub fn sources(&self) -> Vec<Reg> {
        match self {
            Self::Denoise { x, .. } => vec![*x],
            Self::Unguided { denoised, .. } => vec![*denoised],
            Self::Noise { .. } => Vec::new(),
            Self::Constrain { x, noise, .. } => vec![*x, *noise],
            Self::Combine { terms, .. } => terms.iter().map(|&(_, r)| r).collect(),
            Self::Clip { src, .. } => vec![*src],
            Self::Measure { terms, tolerance } => {
                let of = tolerance.iter().flat_map(|t| t.of.iter().copied());
                terms.iter().map(|&(_, r)| r).chain(of).collect()
            }
            Self::Step { x, denoised, .. } => vec![*x, *denoised],
        }
    }
}

/// A list of [`Op`]s over a few registers. The driver puts the starting x into [`Program::input`], runs the ops in order,
/// and finds the result in [`Program::output`].
///
/// Nearly all samplers are one program. An adaptive one is a sequence of programs, called segments: where
/// [`Program::is_fixed`] is false, the last op is an [`Op::Measure`], and [`Program::next`] takes its value.
#[derive(Debug, Clone)]
pub struct Program {
    pub(crate) name: &'static str,
    pub(crate) ops: Vec<Op>,
    pub(crate) registers: usize,
    /// For every value taken over: its place in the previous segment's `outputs`, and its register.
    pub(crate) inputs: Vec<(usize, Reg)>,
    /// What the next segment may take over; the first is the result so far.
    pub(crate) outputs: Vec<Reg>,
    pub(crate) final_scale: f64,
    pub(crate) next: Option<Arc<dyn Continue>>,
}

/// How an adaptive sampler goes on from a measured number.
pub(crate) trait Continue: fmt::Debug + Send + Sync {
    fn next(&self, measured: f64) -> Program;
}

impl Program {
    /// The sampler's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The instructions, in order.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// How many registers the driver has to hold.
    pub fn registers(&self) -> usize {
        self.registers
    }

    /// Where the driver puts the starting x: noise times [`crate::Schedule::init_noise_sigma`], or a noised image.
    pub fn input(&self) -> Reg {
        self.inputs[0].1
    }

    /// Where the result lies after the last op.
    pub fn output(&self) -> Reg {
        self.outputs[0]
    }

    /// Whether the program is complete, with no further segment that depends on a measured number.
    pub fn is_fixed(&self) -> bool {
        self.next.is_none()
    }

    /// The next segment, given the number that the last op measured. Before it runs, [`Program::takes_over`] says which
    /// registers of this one go into which of its own.
    pub fn next(&self, measured: f64) -> Option<Self> {
        self.next.as_ref().map(|next| next.next(measured))
    }

    /// (register of `before`, register of this segment) for every value that this segment takes over. Two registers may
    /// take over the same one.
    pub fn takes_over(&self, before: &Self) -> Vec<(Reg, Reg)> {
        self.inputs.iter().map(|&(place, reg)| (before.outputs[place], reg)).collect()
    }

    /// Factor from the result to the frame in which diffusers returns it; 1 unless a variance-preserving schedule ends
    /// above sigma 0.
    pub fn final_scale(&self) -> f64 {
        self.final_scale
    }

    /// Number of [`Op::Step`] markers.
    pub fn steps(&self) -> usize {
        self.ops.iter().filter(|op| matches!(op, Op::Step { .. })).count()
    }

    /// Number of [`Op::Denoise`]s: model evaluations (twice that many images under classifier-free guidance).
    pub fn evaluations(&self) -> usize {
        self.ops.iter().filter(|op| matches!(op, Op::Denoise { .. })).count()
    }

    /// Whether it asks for denoised images without guidance ([`Op::Unguided`]).
    pub fn wants_unguided(&self) -> bool {
        self.ops.iter().any(|op| matches!(op, Op::Unguided { .. }))
    }

    /// Whether it puts what is known about the image into x ([`Op::Constrain`]); of an adaptive sampler, whether this segment does.
    pub fn is_constrained(&self) -> bool {
        self.ops.iter().any(|op| matches!(op, Op::Constrain { .. }))
    }

    /// Number of [`Op::Noise`] draws.
    pub fn draws(&self) -> usize {
        self.ops.iter().filter(|op| matches!(op, Op::Noise { .. })).count()
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} steps, {} evaluations, {} draws of noise, {} registers, x in {}, result in {}",
            self.name,
            self.steps(),
            self.evaluations(),
            self.draws(),
            self.registers,
            self.input(),
            self.output()
        )?;
        for (i, op) in self.ops.iter().enumerate() {
            write!(f, "{i:4}  ")?;
            match op {
                Op::Denoise { dst, x, sigma, timestep } => {
                    writeln!(f, "{dst} = denoise({x}; sigma {}, timestep {})", short(*sigma), short(*timestep))?;
                }
                Op::Unguided { dst, denoised } => writeln!(f, "{dst} = unguided({denoised})")?,
                Op::Noise { dst, draw, between: Some((from, to)) } => {
                    writeln!(f, "{dst} = noise {draw} (sigma {} to {})", short(*from), short(*to))?;
                }
                Op::Noise { dst, draw, between: None } => writeln!(f, "{dst} = noise {draw}")?,
                Op::Constrain { dst, x, noise, sigma } => {
                    writeln!(f, "{dst} = constrain({x}; noise {noise}, sigma {})", short(*sigma))?;
                }
                Op::Combine { dst, terms } => writeln!(f, "{dst} = {}", sum(terms))?,
                Op::Clip { dst, src, limit: Limit::Clamp { range } } => {
                    writeln!(f, "{dst} = clamp({src}, ±{})", short(*range))?;
                }
                Op::Clip { dst, src, limit: Limit::Dynamic { ratio, max } } => {
                    writeln!(f, "{dst} = threshold({src}, quantile {}, at most {})", short(*ratio), short(*max))?;
                }
                Op::Measure { terms, tolerance: None } => writeln!(f, "measure rms({})", sum(terms))?,
                Op::Measure { terms, tolerance: Some(t) } => {
                    let of: Vec<String> = t.of.iter().map(|r| format!("|{r}|")).collect();
                    let (absolute, relative) = (short(t.absolute), short(t.relative));
                    writeln!(f, "measure rms(({}) / max({absolute}, {relative} {}))", sum(terms), of.join(" "))?;
                }
                Op::Step { index, sigma, x, denoised } => {
                    writeln!(f, "step {index}: sigma {}, x {x}, denoised {denoised}", short(*sigma))?;
                }
            }
        }
        Ok(())
    }
}

fn sum(terms: &[(f64, Reg)]) -> String {
    if terms.is_empty() {
        return "0".to_owned();
    }
    let mut text = String::new();
    for (i, (coefficient, reg)) in terms.iter().enumerate() {
        let sign = match (i, *coefficient < 0.0) {
            (0, false) => "",
            (0, true) => "-",
            (_, false) => " + ",
            (_, true) => " - ",
        };
        text.push_str(sign);
        if coefficient.abs() != 1.0 {
            text.push_str(&short(coefficient.abs()));
            text.push(' ');
        }
        text.push_str(&reg.to_string());
    }
    text
}

/// Seven significant digits: a printed program should be readable, and the same on every machine.
fn short(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let rounded: f64 = format!("{value:.6e}").parse().unwrap_or(value);
    let magnitude = rounded.abs();
    if (1e-4..1e7).contains(&magnitude) { rounded.to_string() } else { format!("{rounded:e}") }
}
