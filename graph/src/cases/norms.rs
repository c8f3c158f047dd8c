//! Normalisations.

use super::{Case, Source, Values, add, mul, signed, x};
use crate::expr::{Expr, Unary};
use crate::op::Op;
use crate::ops::{GroupNorm, LayerNorm, RmsNorm};

/// Shapes of which the last axis is normalised: channels that fill vectors and not, fewer and more than a workgroup has
/// invocations.
fn rows() -> Vec<Source> {
    let mut all: Vec<Source> =
        [&[2, 7, 33][..], &[3, 5], &[5, 256], &[2, 1031], &[1, 1]].iter().map(|shape| signed(shape)).collect();
    for channels in [1, 2, 15, 16, 17, 64, 257, 1000] {
        all.extend([1, 5, 70].map(|rows| Source::new(&[2, rows, channels], Values::Far)));
    }
    all
}

/// Adaptive normalisation: x · (1 + scale) + shift, one scale and shift for each image.
fn modulated(case: &Case) -> Option<Case> {
    let [images, _, channels] = case.out[..] else { return None };
    let parameter = [images, 1, channels];
    let expr = add(mul(x(0), add(x(1), Expr::Const(1.0))), x(2));
    Some(case.then("modulated", expr, vec![signed(&parameter), signed(&parameter)]))
}

pub(super) fn layer_norms() -> Vec<Case> {
    let mut all = Vec::new();
    for source in rows() {
        let (shape, parameter) = (source.shape.clone(), signed(&source.shape[source.shape.len() - 1..]));
        let affine = vec![source.clone(), parameter.clone(), parameter];
        all.push(Case::new(format!("{shape:?} affine"), LayerNorm { eps: 1e-5, affine: true }, affine));
        let plain = Case::new(format!("{shape:?}"), LayerNorm { eps: 1e-6, affine: false }, vec![source]);
        all.extend(modulated(&plain));
        all.push(plain);
    }
    all
}

pub(super) fn rms_norms() -> Vec<Case> {
    let mut all = Vec::new();
    for source in rows() {
        let (shape, weight) = (source.shape.clone(), signed(&source.shape[source.shape.len() - 1..]));
        let plain = Case::new(format!("{shape:?}"), RmsNorm { eps: 1e-6 }, vec![source]);
        all.push(plain.then("weighted", mul(x(0), x(1)), vec![weight]));
        all.push(plain);
    }
    all
}

pub(super) fn group_norms() -> Vec<Case> {
    let mut all = Vec::new();
    let mut push = |groups: usize, image: Source| {
        let parameter = signed(&image.shape[image.shape.len() - 1..]);
        let label = format!("{:?} in {groups} groups", image.shape);
        let op = Op::from(GroupNorm { groups, eps: 1e-5 });
        let plain = Case::new(label, op, vec![image, parameter.clone(), parameter]);
        all.push(plain.then("silu", Expr::unary(Unary::Silu, x(0)), Vec::new()));
        all.push(plain);
    };
    for (groups, shape) in
        [(1, &[2, 3, 5, 7][..]), (4, &[2, 6, 20]), (8, &[1, 9, 5, 32]), (3, &[2, 1, 1, 3]), (2, &[1, 67, 24])]
    {
        push(groups, signed(shape));
    }
    let shapes = [(1, 1, 1, 1), (2, 6, 3, 3), (32, 64, 5, 7), (32, 320, 9, 4), (4, 20, 33, 31), (1, 7, 70, 3)];
    for (groups, channels, height, width) in shapes {
        push(groups, Source::new(&[2, height, width, channels], Values::Far));
        push(groups, Source::new(&[2, height * width, channels], Values::Far));
    }
    all
}
