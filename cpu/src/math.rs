//! Functions of one value on whole vectors, each within a few units in the last place of the exact value.

use graph::expr::Unary;
use rten_simd::functional::simd_map;
use rten_simd::ops::{BitOps, FloatOps, NumOps};
use rten_simd::{Isa, SimdUnaryOp};
use rten_vecmath::{Cos, Exp, Sigmoid, Sin, Tanh};

/// Applies a function to every element, in place.
#[inline(always)]
pub(crate) fn map<I: Isa>(isa: I, op: Unary, values: &mut [f32]) {
    let ops = isa.f32();
    // A closure that is not inlined would be compiled for the oldest processor, and each vector instruction in it would
    // be a function call.
    macro_rules! each {
        (|$x:ident| $value:expr) => {{
            simd_map(
                ops,
                values,
                #[inline(always)]
                |$x| $value,
            );
        }};
    }
    match op {
        Unary::Neg => values.iter_mut().for_each(|v| *v = -*v),
        Unary::Abs => values.iter_mut().for_each(|v| *v = v.abs()),
        Unary::Sqrt => values.iter_mut().for_each(|v| *v = v.sqrt()),
        Unary::Relu => values.iter_mut().for_each(|v| *v = v.max(0.0)),
        // No model takes many logarithms, so the standard library's scalar function is fast enough.
        Unary::Ln => values.iter_mut().for_each(|v| *v = v.ln()),
        Unary::Exp => each!(|x| Exp::apply(isa, x)),
        Unary::Sin => each!(|x| Sin::apply(isa, x)),
        Unary::Cos => each!(|x| Cos::apply(isa, x)),
        Unary::Tanh => each!(|x| Tanh::apply(isa, x)),
        Unary::Sigmoid => each!(|x| Sigmoid::apply(isa, x)),
        Unary::Silu => each!(|x| times_sigmoid(isa, x, x)),
        Unary::QuickGelu => each!(|x| times_sigmoid(isa, x, ops.mul(x, ops.splat(1.702)))),
        Unary::Gelu => each!(|x| gelu(isa, x)),
        Unary::GeluTanh => each!(|x| gelu_tanh(isa, x)),
    }
}

/// x / (1 + e⁻ʸ). Where e⁻ʸ overflows, the quotient is zero, which is right.
#[inline(always)]
fn times_sigmoid<I: Isa>(isa: I, x: I::F32, y: I::F32) -> I::F32 {
    let ops = isa.f32();
    ops.div(x, ops.add(ops.one(), Exp::apply(isa, ops.neg(y))))
}

/// ½ (1 + tanh u) is the logistic function of 2u, which does not cancel for negative u.
#[inline(always)]
fn gelu_tanh<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let ops = isa.f32();
    // 2 √(2/π) and its product with 0.044715.
    let (linear, cubic) = (ops.splat(1.595_769), ops.splat(0.071_354_82));
    let doubled = ops.mul(x, ops.mul_add(ops.mul(x, x), cubic, linear));
    times_sigmoid(isa, x, doubled)
}

/// x Φ(x). Away from zero it is computed from the tail Φ(−|x|), so that nothing cancels for negative x.
#[inline(always)]
fn gelu<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let ops = isa.f32();
    let size = ops.abs(x);
    let tail = normal_tail(isa, size);
    let far = ops.select(tail, ops.sub(ops.one(), tail), ops.lt(x, ops.zero()));
    let cdf = ops.select(normal_near_zero(isa, x), far, ops.lt(size, ops.splat(0.7)));
    ops.mul(x, cdf)
}

/// Φ(x) for |x| < 0.7: ½ and its Maclaurin series Σ (−1)ⁿ x²ⁿ⁺¹ / (√(2π) 2ⁿ n! (2n + 1)), whose next term is below 3e-10.
#[inline(always)]
fn normal_near_zero<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    const SERIES: [f32; 7] =
        [0.398_942_3, -0.066_490_38, 0.009_973_557, -0.001_187_328_2, 1.154_346_9e-4, -9.444_656e-6, 6.659_693_7e-7];
    let ops = isa.f32();
    let square = ops.mul(x, x);
    let mut sum = ops.splat(SERIES[6]);
    for coefficient in SERIES[..6].iter().rev() {
        sum = ops.mul_add(sum, square, ops.splat(*coefficient));
    }
    ops.mul_add(sum, x, ops.splat(0.5))
}

/// Φ(−a) for a ≥ 0, as e^(−a²/2) · t · P(t) with t = 1/(1 + 0.3 a).
///
/// P is a Chebyshev fit of ½ erfcx(a/√2)/t, reweighted until the relative error was level: 3.5e-9 in exact arithmetic
/// over a ≤ 14.5, beyond which the exponential is zero in single precision.
#[inline(always)]
fn normal_tail<I: Isa>(isa: I, a: I::F32) -> I::F32 {
    const P: [f32; 10] = [
        0.119_686_69,
        0.119_571_805,
        0.110_235_475,
        0.078_389_42,
        0.096_157_53,
        -0.079_424_81,
        0.191_786_16,
        -0.228_214_83,
        0.112_436_146,
        -0.020_623_568,
    ];
    let ops = isa.f32();
    let t = ops.reciprocal(ops.mul_add(a, ops.splat(0.3), ops.one()));
    let mut sum = ops.splat(P[9]);
    for coefficient in P[..9].iter().rev() {
        sum = ops.mul_add(sum, t, ops.splat(*coefficient));
    }
    let falloff = Exp::apply(isa, ops.mul(ops.mul(a, a), ops.splat(-0.5)));
    ops.mul(falloff, ops.mul(t, sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rten_simd::SimdOp;

    struct Map<'a>(Unary, &'a mut [f32]);

    impl SimdOp for Map<'_> {
        type Output = ();
        #[inline(always)]
        fn eval<I: Isa>(self, isa: I) {
            map(isa, self.0, self.1);
        }
    }

    fn apply(op: Unary, values: &[f32]) -> Vec<f32> {
        let mut values = values.to_vec();
        Map(op, &mut values).dispatch();
        values
    }

    /// A unit in the last place of a number of this size, and at least that of the smallest normal number.
    fn ulp(value: f64) -> f64 {
        let exponent = value.abs().max(f64::from(f32::MIN_POSITIVE)).log2().floor();
        (exponent - 23.0).exp2()
    }

    /// The function in `f64`, without the cancellation that its textbook form has for negative x.
    fn exact(op: Unary, x: f64) -> f64 {
        let times_sigmoid = |y: f64| x / (1.0 + (-y).exp());
        match op {
            Unary::Gelu => 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
            Unary::GeluTanh => times_sigmoid((8.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)),
            _ => op.apply(x),
        }
    }

    #[test]
    fn functions_are_within_a_few_ulps_of_f64() {
        for op in Unary::ALL {
            let domain = match op {
                Unary::Ln | Unary::Sqrt => 1e-6..80.0,
                _ => -20.0..20.0,
            };
            let steps = 200_001_u32;
            let width = (domain.end - domain.start) / f64::from(steps);
            #[allow(clippy::cast_possible_truncation, reason = "any nearby single will do")]
            let x: Vec<f32> = (0..steps).map(|i| (domain.start + width * f64::from(i)) as f32).collect();
            let y = apply(op, &x);
            // Sine and cosine reduce their argument in singles: near their zeros only the absolute error is small.
            let absolute = matches!(op, Unary::Sin | Unary::Cos);
            // Where a tail falls like e^(−x²/2), rounding x² alone moves the result by x²/2 half-ulps.
            let condition = |x: f64| match op {
                Unary::Gelu if x < 0.0 => 1.0 + x * x / 2.0,
                Unary::GeluTanh if x < 0.0 => 1.0 + x.abs() * (1.6 + 0.22 * x * x),
                Unary::Silu | Unary::QuickGelu | Unary::Sigmoid if x < 0.0 => 1.0 + 1.702 * x.abs(),
                _ => 1.0,
            };
            let worst = x.iter().zip(&y).fold((0.0, 0.0), |worst: (f64, f64), (x, y)| {
                let exact = exact(op, f64::from(*x));
                let unit = ulp(if absolute { 1.0 } else { exact }) * condition(f64::from(*x));
                // Where the exponential in a quotient overflows, the end of a tail is zero instead of a tiny number.
                let vanished = exact.abs() < 1e-37 && y.abs() < 1e-37;
                let error = if vanished { 0.0 } else { (f64::from(*y) - exact).abs() / unit };
                if error > worst.0 { (error, f64::from(*x)) } else { worst }
            });
            println!("{}: {:.2} ulp at {}", op.name(), worst.0, worst.1);
            assert!(worst.0 < 4.0, "{} is off by {:.2} ulp at {}", op.name(), worst.0, worst.1);
        }
    }

    #[test]
    fn extremes_keep_their_limits_and_nan_survives() {
        let far = [f32::NEG_INFINITY, -1e30, -200.0, 200.0, 1e30, f32::INFINITY];
        for op in [Unary::Exp, Unary::Sigmoid, Unary::Tanh] {
            for (x, y) in far.iter().zip(apply(op, &far)) {
                let exact = op.apply(f64::from(*x));
                assert!(
                    f64::from(y) == exact
                        || (f64::from(y) - exact).abs() < 1e-38
                        || exact > f64::from(f32::MAX) && y == f32::INFINITY,
                    "{}({x}) = {y}",
                    op.name()
                );
            }
        }
        for op in [Unary::Silu, Unary::Gelu, Unary::GeluTanh, Unary::QuickGelu] {
            let y = apply(op, &[-1e30, -200.0, 200.0, 1e30]);
            assert_eq!(y.iter().map(|v| v.abs()).collect::<Vec<_>>(), [0.0, 0.0, 200.0, 1e30], "{}", op.name());
        }
        for op in Unary::ALL {
            let y = apply(op, &[f32::NAN])[0];
            assert_eq!(y.is_nan(), op.apply(f64::NAN).is_nan(), "{} of NaN is {y}", op.name());
        }
    }
}
