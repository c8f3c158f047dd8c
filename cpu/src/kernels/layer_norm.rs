use super::Epilogue;
use crate::parallel::piece;
use rayon::prelude::*;
use rten_simd::{Isa, SimdOp};
use rten_vecmath::{Sum, SumSquareSub};

/// Layer or root mean square normalisation over rows of `channels`. Layer normalisation takes two passes: the mean first,
/// then the squares of what is left, which does not cancel. Sums run in as many strands as a vector register has lanes, so
/// they lose less than a plain loop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Normalize {
    pub(crate) channels: usize,
    pub(crate) eps: f64,
    /// Subtract each row's mean; without, the mean counts as zero, and the variance is the mean of squares.
    pub(crate) centred: bool,
    pub(crate) affine: bool,
}

impl Normalize {
    pub(crate) fn run(&self, reads: &[&[f32]], epilogue: Epilogue<'_>, out: &mut [f32]) {
        let weight = 4 + epilogue.map_or(0, |(fused, _)| fused.weight());
        let piece = piece(out.len(), self.channels, weight);
        out.par_chunks_mut(piece).enumerate().for_each(|(i, out)| {
            let x = &reads[0][i * piece..i * piece + out.len()];
            let affine = self.affine.then(|| (reads[1], reads[2]));
            for (x, out) in x.chunks_exact(self.channels).zip(out.chunks_exact_mut(self.channels)) {
                self.row(x, affine, out);
            }
            if let Some((fused, operands)) = epilogue {
                fused.run_part(operands, i * piece, out);
            }
        });
    }

    fn row(&self, x: &[f32], affine: Option<(&[f32], &[f32])>, out: &mut [f32]) {
        // Rounding to f32 what was given as f64 is how the reference starts, too.
        #[allow(clippy::cast_possible_truncation, reason = "rounding is the point")]
        let (count, eps) = (self.channels as f32, self.eps as f32);
        let mean = if self.centred { Sum::new(x).dispatch() / count } else { 0.0 };
        let variance = SumSquareSub::new(x, mean).dispatch() / count;
        let inverse = 1.0 / (variance + eps).sqrt();
        Row { x, mean, inverse, affine, out }.dispatch();
    }
}

/// One row whose moments are known.
struct Row<'a> {
    x: &'a [f32],
    mean: f32,
    inverse: f32,
    affine: Option<(&'a [f32], &'a [f32])>,
    out: &'a mut [f32],
}

impl SimdOp for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, _: I) {
        let Row { x, mean, inverse, affine, out } = self;
        match affine {
            None => out.iter_mut().zip(x).for_each(|(y, x)| *y = (x - mean) * inverse),
            Some((weight, bias)) => {
                for ((y, x), (w, b)) in out.iter_mut().zip(x).zip(weight.iter().zip(bias)) {
                    *y = (x - mean) * inverse * w + b;
                }
            }
        }
    }
}
