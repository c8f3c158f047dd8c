// y[r, c] = epilogue((x[r, c] - mean) / sqrt(variance + eps) * weight[c] + bias[c]): one invocation for each row. Where rows
// are not CENTRED the mean counts as zero, which makes the variance the mean of squares: root mean square normalisation.
//
// Expects: WORKGROUP, CENTRED, AFFINE, params.{rows, channels, eps}, load_x, load_weight, load_bias, store_y.
// Two sweeps for mean and variance, as exact as summing in order can be. Adjacent invocations read a row apart.

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
        for (var c = 0u; c < params.channels; c++) {
            mean += load_x(start + c);
        }
        mean /= count;
    }
    var squares = 0.0;
    for (var c = 0u; c < params.channels; c++) {
        let d = load_x(start + c) - mean;
        squares += d * d;
    }
    let scale = 1.0 / sqrt(squares / count + params.eps);
    for (var c = 0u; c < params.channels; c++) {
        var v = (load_x(start + c) - mean) * scale;
        if (AFFINE) {
            v = v * load_weight(c) + load_bias(c);
        }
        store_y(start + c, v);
    }
}
