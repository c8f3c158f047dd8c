//! What the machine could do at best, roughly: the yardstick for everything else.

use super::micro;
use crate::cli::error::CliError;
use graph::{Device, Rate, Scope};
use serde_json::json;

/// The fastest that this device was seen to be, through the same executor as everything else.
///
/// It is no theoretical peak: where the executor itself wastes half of the machine, half of it is what this says. What it tells is how far a
/// row is from the best that this program does here today.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ceiling {
    /// By a large square matrix product with a weight, which is packed beforehand.
    pub(super) flops_per_second: f64,
    /// Side of that product.
    pub(super) side: usize,
    /// By scaling an array that no cache holds, reading and writing counted.
    pub(super) bytes_per_second: f64,
}

/// Sides of products, tried while they are quick.
const SIDES: [usize; 4] = [512, 1024, 2048, 4096];

/// A product that takes longer is large enough to tell.
const LONG: f64 = 0.02;

/// 64 MiB of numbers.
const COPIED: usize = 1 << 24;

/// The best of as many runs.
const RUNS: usize = 5;

#[allow(clippy::cast_precision_loss, reason = "counts of operations, far below 2⁵³")]
impl Ceiling {
    pub(super) fn measure(device: &dyn Device) -> Result<Self, CliError> {
        let failed = |error: graph::GraphError| CliError::Failed(error.to_string());
        let mut ceiling = Self { flops_per_second: 0.0, side: 0, bytes_per_second: 0.0 };
        for side in SIDES {
            let s = Scope::root();
            let product = s.linear_no_bias(&s.input("x", &[side, side], Rate::Step), side);
            let graph = s.finish(&[("y", &product)]).map_err(failed)?;
            let fastest = fastest(&micro::time(device, &graph, RUNS)?.0);
            let rate = 2.0 * (side as f64).powi(3) / fastest;
            if rate > ceiling.flops_per_second {
                (ceiling.flops_per_second, ceiling.side) = (rate, side);
            }
            if fastest > LONG {
                break;
            }
        }
        let s = Scope::root();
        let scaled = s.input("x", &[COPIED], Rate::Step).scale(0.5);
        let graph = s.finish(&[("y", &scaled)]).map_err(failed)?;
        let fastest = fastest(&micro::time(device, &graph, RUNS)?.0);
        ceiling.bytes_per_second = 2.0 * (COPIED * size_of::<f32>()) as f64 / fastest;
        Ok(ceiling)
    }

    pub(super) fn shown(&self) -> String {
        let (gflops, gbytes) = (self.flops_per_second / 1e9, self.bytes_per_second / 1e9);
        let side = self.side;
        format!(
            "ceiling: {gflops:.1} GFLOP/s (a matrix product of {side}x{side}x{side}), {gbytes:.1} GB/s (scaling 64 MiB)"
        )
    }

    pub(super) fn json(&self) -> serde_json::Value {
        json!({ "gflops": self.flops_per_second / 1e9, "gbytes_per_second": self.bytes_per_second / 1e9,
                "product_side": self.side, "copied_bytes": COPIED * size_of::<f32>() })
    }
}

fn fastest(seconds: &[f64]) -> f64 {
    seconds.iter().copied().fold(f64::INFINITY, f64::min).max(1e-9)
}
