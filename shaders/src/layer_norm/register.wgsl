// Normalisation, as in naive.wgsl: one invocation for each row, four channels an access.
//
// Expects: what naive.wgsl does, and tail4_x, tail4_weight, tail4_bias, store4_y.
// No barriers, so software adapters run it well; on a graphics card too few invocations and rows apart from each other.

// The deviation from the mean of the first `left` channels, zero for the rest.
fn deviation(v: vec4<f32>, mean: f32, left: u32) -> vec4<f32> {
    return select(vec4<f32>(), v - mean, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(left));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = linear_group(group) * WORKGROUP + lane;
    if (row >= params.rows) {
        return;
    }
    let start = row * params.channels;
    let count = f32(params.channels);

    var mean = 0.0;
    if (CENTRED) {
        var sums = vec4<f32>();
        for (var c = 0u; c < params.channels; c += 4u) {
            sums += tail4_x(start + c, params.channels - c);
        }
        mean = (sums.x + sums.y + sums.z + sums.w) / count;
    }
    var squares = vec4<f32>();
    for (var c = 0u; c < params.channels; c += 4u) {
        let d = deviation(tail4_x(start + c, params.channels - c), mean, params.channels - c);
        squares += d * d;
    }
    let scale = 1.0 / sqrt((squares.x + squares.y + squares.z + squares.w) / count + params.eps);
    for (var c = 0u; c < params.channels; c += 4u) {
        let left = params.channels - c;
        var v = (tail4_x(start + c, left) - mean) * scale;
        if (AFFINE) {
            v = v * tail4_weight(c, left) + tail4_bias(c, left);
        }
        store4_y(start + c, v, left);
    }
}
