// Functions that WGSL lacks, or whose precision or range it leaves to the driver. Coefficients are our own minimax fits;
// each error is the largest over all f32 of its range, in f32 arithmetic.

// The quarter of a circle that a reduced angle |r| <= pi/4 lies in: sin, cos, -sin, -cos. Error 1e-7.
fn sine_of_quarter(r: f32, quarter: u32) -> f32 {
    let s = r * r;
    let sine = r + r * s * (-0.16666667 + s * (0.008333329 + s * (-0.00019839295 + s * 2.717938e-6)));
    let cosine = 1.0 - 0.5 * s + s * s * (0.041666646 + s * (-0.0013887337 + s * 2.4434845e-5));
    let v = select(sine, cosine, (quarter & 1u) == 1u);
    return select(v, -v, (quarter & 2u) == 2u);
}

// Sine of an angle in 2^-32 turns.
fn sine_of_turns(turns: u32) -> f32 {
    let quarter = (turns + 0x20000000u) >> 30u;
    let rest = bitcast<i32>(turns - (quarter << 30u));
    return sine_of_quarter(f32(rest) * 1.4629181e-9, quarter);
}

// Sine of x + shift quarter turns, |x| < 65536. pi/2 in three parts, the first two short enough that their products
// with n are exact (Cody & Waite 1980); WGSL's own sine promises nothing beyond half a turn.
fn shifted_sine(x: f32, shift: u32) -> f32 {
    let n = round(x * 0.63661977);
    let r = ((x - n * 1.5703125) - n * 0.00048375129699707031) - n * 7.54978995489188e-8;
    return sine_of_quarter(r, bitcast<u32>(i32(n)) + shift);
}

fn sin_(x: f32) -> f32 {
    return select(sin(x), shifted_sine(x, 0u), abs(x) < 65536.0);
}

fn cos_(x: f32) -> f32 {
    return select(cos(x), shifted_sine(x, 1u), abs(x) < 65536.0);
}

// exp(x) = 2^n exp(x - n ln 2), reduced as above: WGSL lets the error of its own grow with |x|.
fn exp_(x: f32) -> f32 {
    let n = round(x * 1.442695);
    let r = (x - n * 0.693359375) + n * 2.1219444e-4;
    return select(exp(x), ldexp(exp(r), i32(n)), abs(x) < 87.0);
}

// Drivers compute tanh from exp(2x), which overflows beyond 44; exp(-2|x|) does not. Near zero a series, since the
// quotient cancels there. Error 2 units in the last place.
fn tanh_(x: f32) -> f32 {
    let size = abs(x);
    let s = x * x;
    let near = x + x * s * (-0.33333284 + s * (0.13331491 + s * (-0.053743497 + s * (0.020650586 - s * 0.005717045))));
    let e = exp(-2.0 * size);
    let far = sign(x) * (1.0 - e) / (1.0 + e);
    return select(far, near, size < 0.625);
}

// 1 / (1 + exp(-x)) without overflow for negative x.
fn sigmoid_(x: f32) -> f32 {
    let e = exp(-abs(x));
    return select(e, 1.0, x >= 0.0) / (1.0 + e);
}

fn silu_(x: f32) -> f32 {
    return x * sigmoid_(x);
}

fn quick_gelu_(x: f32) -> f32 {
    return x * sigmoid_(1.702 * x);
}

// 0.5 (1 + tanh(u)) is sigmoid(2u), which keeps its digits for negative u.
fn gelu_tanh_(x: f32) -> f32 {
    return x * sigmoid_(1.5957691 * (x + 0.044715 * x * x * x));
}

// x times the normal distribution function. Within one deviation that is 1/2 plus an odd polynomial; beyond, the tail
// exp(-x^2/2) u P(u) with u = 1 / (1 + 0.3|x|), which has no cancellation. Error 1e-7 of the larger of 1 and |x|.
fn gelu_(x: f32) -> f32 {
    let size = abs(x);
    let s = x * x;
    let near = 0.5 + x * (0.3989423 + s * (-0.06649036 + s * (0.009973331 + s * (-0.001186353 + s * (0.00011351266
        - s * 7.664679e-6)))));
    let u = 1.0 / (1.0 + 0.3 * size);
    let p = 0.11965226 + u * (0.12032808 + u * (0.10315625 + u * (0.11541682 + u * (-0.023006788 + u * (0.16504593
        + u * (-0.12740767 + u * 0.026767848))))));
    let tail = exp(-0.5 * s) * u * p;
    let far = select(tail, 1.0 - tail, x > 0.0);
    return x * select(far, near, size < 1.0);
}
