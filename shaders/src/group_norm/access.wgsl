// A group's elements four at a time: adjacent channels where groups are multiples of four (VECTORS), else one by one.
//
// Expects: load_x, load_weight, load_bias and store4_y, with VECTORS also load4_x, load4_weight, load4_bias.

// Four numbers from x on: adjacent channels, or one channel and three zeros.
fn members4(at: u32) -> vec4<f32> {
    if (VECTORS) {
        return load4_x(at);
    }
    return vec4<f32>(load_x(at), 0.0, 0.0, 0.0);
}

fn deviation(at: u32, mean: f32) -> vec4<f32> {
    if (VECTORS) {
        return load4_x(at) - mean;
    }
    return vec4<f32>(load_x(at) - mean, 0.0, 0.0, 0.0);
}

fn put(at: u32, c: u32, mean: f32, scale: f32) {
    let d = deviation(at, mean) * scale;
    if (VECTORS) {
        store4_y(at, d * load4_weight(c) + load4_bias(c), 4u);
    } else {
        store4_y(at, vec4<f32>(d.x * load_weight(c) + load_bias(c), 0.0, 0.0, 0.0), 1u);
    }
}
