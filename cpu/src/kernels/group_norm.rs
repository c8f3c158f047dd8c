use super::Epilogue;
use crate::parallel::piece;
use graph::ops::{GroupNorm, GroupNormDims};
use rayon::prelude::*;

/// Positions summed in single precision before the sum is widened: few enough that rounding does not matter.
const STRIP: usize = 64;

/// Group normalisation, in three passes over an image: the means, then the squares of the differences from the mean
/// (squares of the values themselves would cancel), then the result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NormalizeGroups {
    pub(crate) op: GroupNorm,
    pub(crate) dims: GroupNormDims,
}

impl NormalizeGroups {
    pub(crate) fn run(&self, reads: &[&[f32]], epilogue: Epilogue<'_>, out: &mut [f32]) {
        let GroupNormDims { positions, channels, .. } = self.dims;
        let [x, weight, bias] = reads else { unreachable!("a group norm has three operands") };
        let size = positions * channels;
        let cost = 4 + epilogue.map_or(0, |(fused, _)| fused.weight());
        let piece = piece(size, channels, cost);
        for (image, out) in out.chunks_exact_mut(size).enumerate() {
            let x = &x[image * size..(image + 1) * size];
            let mean = self.per_channel(x, |value, _| value, &vec![0.0; channels]);
            let variance = self.per_channel(x, |value, mean| (value - mean) * (value - mean), &mean);
            #[allow(clippy::cast_possible_truncation, reason = "rounding is how the reference starts, too")]
            let eps = self.op.eps as f32;
            let scale: Vec<f32> = variance.iter().zip(*weight).map(|(v, w)| w / (v + eps).sqrt()).collect();
            out.par_chunks_mut(piece).enumerate().for_each(|(i, out)| {
                let x = &x[i * piece..i * piece + out.len()];
                for (x, out) in x.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
                    let parameters = mean.iter().zip(&scale).zip(*bias);
                    for ((y, x), ((mean, scale), bias)) in out.iter_mut().zip(x).zip(parameters) {
                        *y = (x - mean) * scale + bias;
                    }
                }
                if let Some((fused, operands)) = epilogue {
                    fused.run_part(operands, image * size + i * piece, out);
                }
            });
        }
    }

    /// The mean of a function over each group, repeated for its channels. The function also sees its channel's entry of `given`.
    fn per_channel(&self, x: &[f32], f: impl Fn(f32, f32) -> f32 + Sync, given: &[f32]) -> Vec<f32> {
        let GroupNormDims { positions, channels, .. } = self.dims;
        let add = |mut a: Vec<f64>, b: Vec<f64>| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
            a
        };
        let part = |x: &[f32]| {
            let mut sums = vec![0.0_f64; channels];
            let mut strip = vec![0.0_f32; channels];
            for rows in x.chunks(STRIP * channels) {
                strip.fill(0.0);
                for row in rows.chunks_exact(channels) {
                    strip.iter_mut().zip(row).zip(given).for_each(|((sum, x), given)| *sum += f(*x, *given));
                }
                sums.iter_mut().zip(&strip).for_each(|(sum, strip)| *sum += f64::from(*strip));
            }
            sums
        };
        let parts = x.par_chunks(piece(x.len(), STRIP * channels, 2)).map(part);
        let sums = parts.reduce(|| vec![0.0; channels], add);
        let width = channels / self.op.groups;
        let count = (positions * width) as f64;
        #[allow(clippy::cast_possible_truncation, reason = "the result is used in singles")]
        let mean = |group: &[f64]| (group.iter().sum::<f64>() / count) as f32;
        sums.chunks_exact(width).flat_map(|group| std::iter::repeat_n(mean(group), width)).collect()
    }
}
