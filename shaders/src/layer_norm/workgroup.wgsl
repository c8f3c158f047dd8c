// Normalisation, as in naive.wgsl: one workgroup for each row.
//
// Expects: what naive.wgsl does, tail4_x, tail4_weight, tail4_bias, store4_y, and Invocation and total (total/tree.wgsl or
// total/subgroup.wgsl).
// Adjacent invocations read adjacent vectors; the row is read two or three times, but only the first time from afar.

// The deviation from the mean of the first `left` channels, zero for the rest.
fn deviation(v: vec4<f32>, mean: f32, left: u32) -> vec4<f32> {
    return select(vec4<f32>(), v - mean, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(left));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, own: Invocation) {
    let row = linear_group(group);
    if (row >= params.rows) {
        return;
    }
    let start = row * params.channels;
    let count = f32(params.channels);

    var mean = 0.0;
    if (CENTRED) {
        var sum = vec4<f32>();
        for (var c = own.lane * 4u; c < params.channels; c += WORKGROUP * 4u) {
            sum += tail4_x(start + c, params.channels - c);
        }
        mean = total(sum.x + sum.y + sum.z + sum.w, own) / count;
    }
    var squares = vec4<f32>();
    for (var c = own.lane * 4u; c < params.channels; c += WORKGROUP * 4u) {
        let d = deviation(tail4_x(start + c, params.channels - c), mean, params.channels - c);
        squares += d * d;
    }
    let variance = total(squares.x + squares.y + squares.z + squares.w, own) / count;
    let scale = 1.0 / sqrt(variance + params.eps);
    for (var c = own.lane * 4u; c < params.channels; c += WORKGROUP * 4u) {
        let left = params.channels - c;
        var v = (tail4_x(start + c, left) - mean) * scale;
        if (AFFINE) {
            v = v * tail4_weight(c, left) + tail4_bias(c, left);
        }
        store4_y(start + c, v, left);
    }
}
