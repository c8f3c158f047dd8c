// y[b, p, c] = epilogue((x[b, p, c] - mean) / sqrt(var + eps) * weight[c] + bias[c]), mean and variance over all positions p
// and the channels of c's group: one invocation for each group of an image.
//
// Expects: WORKGROUP, params.{batch, groups, positions, channels, group_channels, eps}, load_x, load_weight, load_bias, store_y.
// Two passes: squares of what the mean leaves do not cancel. Sums run position by position, so that they lose little.

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear_group(group) * WORKGROUP + lane;
    if (i >= params.batch * params.groups) {
        return;
    }
    let first = i % params.groups * params.group_channels;
    let base = i / params.groups * params.positions * params.channels + first;
    let count = f32(params.positions * params.group_channels);

    var mean = 0.0;
    for (var p = 0u; p < params.positions; p++) {
        var sum = 0.0;
        for (var c = 0u; c < params.group_channels; c++) {
            sum += load_x(base + p * params.channels + c);
        }
        mean += sum;
    }
    mean /= count;
    var variance = 0.0;
    for (var p = 0u; p < params.positions; p++) {
        var sum = 0.0;
        for (var c = 0u; c < params.group_channels; c++) {
            let d = load_x(base + p * params.channels + c) - mean;
            sum += d * d;
        }
        variance += sum;
    }
    let scale = 1.0 / sqrt(variance / count + params.eps);
    for (var p = 0u; p < params.positions; p++) {
        for (var c = 0u; c < params.group_channels; c++) {
            let at = base + p * params.channels + c;
            store_y(at, (load_x(at) - mean) * scale * load_weight(first + c) + load_bias(first + c));
        }
    }
}
