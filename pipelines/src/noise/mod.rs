//! Random numbers: whose noise a seed means.
//!
//! Everything here is counted in draws: one call fills one tensor, as one call of `torch.randn` does, in row-major NCHW order.

mod brownian;
mod mt19937;
mod philox;
pub(crate) mod slerp;
mod torch_cpu;
mod torch_cuda;

use std::fmt;
use std::str::FromStr;

pub use brownian::BrownianPath;
pub use philox::Philox;
pub use slerp::mix as slerp;
pub use torch_cpu::TorchCpu;
pub use torch_cuda::TorchCuda;

/// A stream of standard normal numbers.
pub trait Noise: Send {
    /// The next draw: `out.len()` independent standard normal numbers.
    fn fill(&mut self, out: &mut [f32]);

    /// The noise of a sampler's step over an interval of sigma, from above ([`scheduler::Op::Noise`]): of a Brownian path if the stream
    /// has one, else the next draw.
    fn fill_between(&mut self, _interval: (f64, f64), out: &mut [f32]) {
        self.fill(out);
    }
}

/// The generators that a seed can be given to (`--rng`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rng {
    /// `torch.randn` on a CPU generator: what diffusers' examples and most published seeds use.
    TorchCpu,
    /// `torch.randn` on a CUDA generator.
    TorchCuda,
    /// Ours: counter-based, every number a function of (seed, draw, element), so the same on every device and in any order. Samplers of
    /// the reverse SDE get the increments of a [`BrownianPath`], so that more steps refine the same picture.
    #[default]
    Philox,
}

impl Rng {
    /// All of them, for lists.
    pub const ALL: [Self; 3] = [Self::TorchCpu, Self::TorchCuda, Self::Philox];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::TorchCpu => "torch-cpu",
            Self::TorchCuda => "torch-cuda",
            Self::Philox => "philox",
        }
    }

    /// A stream that starts at this seed.
    pub fn stream(self, seed: u64) -> Box<dyn Noise> {
        match self {
            Self::TorchCpu => Box::new(TorchCpu::new(seed)),
            Self::TorchCuda => Box::new(TorchCuda::new(seed)),
            Self::Philox => Box::new(Philox::new(seed)),
        }
    }
}

impl fmt::Display for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Rng {
    type Err = UnknownRng;

    /// Also takes the short names of other programs: `cpu` and `cuda`.
    fn from_str(name: &str) -> Result<Self, UnknownRng> {
        let name = name.to_ascii_lowercase().replace('_', "-");
        match name.as_str() {
            "cpu" => Ok(Self::TorchCpu),
            "cuda" => Ok(Self::TorchCuda),
            _ => Self::ALL.into_iter().find(|rng| rng.name() == name).ok_or(UnknownRng { name }),
        }
    }
}

/// A name that is no generator's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownRng {
    name: String,
}

impl fmt::Display for UnknownRng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no random number generator \"{}\"; use torch-cpu, torch-cuda or philox", self.name)
    }
}

impl std::error::Error for UnknownRng {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for rng in Rng::ALL {
            assert_eq!(rng.name().parse(), Ok(rng));
        }
        assert_eq!("CPU".parse(), Ok(Rng::TorchCpu));
        assert!("mersenne".parse::<Rng>().unwrap_err().to_string().contains("torch-cpu"));
    }

    /// Mean, variance, skewness and kurtosis of a draw, within five standard errors.
    #[test]
    fn moments_are_those_of_a_standard_normal() {
        let n = 100_000;
        for rng in Rng::ALL {
            let mut draw = vec![0.0_f32; n];
            rng.stream(7).fill(&mut draw);
            let moment = |k: i32| draw.iter().map(|v| f64::from(*v).powi(k)).sum::<f64>() / n as f64;
            // Variances of the estimates: 1, 2, 15, 96 over n.
            for (k, expected, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
                let bound = 5.0 * f64::sqrt(variance / n as f64);
                let found = moment(k);
                assert!((found - expected).abs() < bound, "{rng}: moment {k} is {found}");
            }
        }
    }

    #[test]
    fn draws_differ_and_seeds_repeat() {
        for rng in Rng::ALL {
            let draw_two = |seed| {
                let mut stream = rng.stream(seed);
                let mut draws = [[0.0_f32; 20]; 2];
                draws.iter_mut().for_each(|draw| stream.fill(draw));
                draws
            };
            let [first, second] = draw_two(1);
            assert_ne!(first, second, "{rng}");
            assert_eq!([first, second], draw_two(1), "{rng}");
            assert_ne!(first, draw_two(2)[0], "{rng}");
        }
    }
}
