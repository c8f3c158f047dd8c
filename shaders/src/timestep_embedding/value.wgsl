// Sinusoidal embedding: t [B] -> [B, dim], the sine and cosine of t times each frequency.
//
// Expects: params.dim, params.cosines_first, params.table (two frequencies a vector, each as whole and fractional
// 2^-32 turns per timestep), load_t, sine_of_turns.
// The angle reaches a thousand radians, where f32 would keep four digits of it. Whole timesteps times whole 2^-32 turns
// wrap around exactly, so only small products are rounded.
fn value(i: u32) -> f32 {
    let half = params.dim / 2u;
    let c = i % params.dim;
    let pair = c % half;
    let t = load_t(i / params.dim);
    let size = abs(t);
    let whole = floor(size);
    let words = params.table[pair / 2u];
    let frequency = select(words.xy, words.zw, (pair & 1u) == 1u);
    let rest = bitcast<f32>(frequency.y);
    // The fraction of a timestep is below one and its frequency below 2^32, so the product fits.
    let part = (size - whole) * (f32(frequency.x) + rest);
    let turns = u32(whole) * frequency.x + u32(whole * rest) + u32(min(part, 4294967040.0));
    if ((c < half) == (params.cosines_first == 1u)) {
        return sine_of_turns(turns + 0x40000000u);
    }
    return select(sine_of_turns(turns), -sine_of_turns(turns), t < 0.0);
}
