// As naive.wgsl, four numbers at a time: one invocation for each group of an image.
//
// Expects: what naive.wgsl does, VECTORS, and members4, deviation and put (access.wgsl).
// No barriers, so software adapters run it well. Four sums side by side lose less than one.

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear_group(group) * WORKGROUP + lane;
    if (i >= params.batch * params.groups) {
        return;
    }
    let first = i % params.groups * params.group_channels;
    let base = i / params.groups * params.positions * params.channels + first;
    let count = f32(params.positions * params.group_channels);
    let each = select(1u, 4u, VECTORS);

    var sums = vec4<f32>();
    for (var p = 0u; p < params.positions; p++) {
        var sum = vec4<f32>();
        for (var c = 0u; c < params.group_channels; c += each) {
            sum += members4(base + p * params.channels + c);
        }
        sums += sum;
    }
    let mean = (sums.x + sums.y + sums.z + sums.w) / count;
    var squares = vec4<f32>();
    for (var p = 0u; p < params.positions; p++) {
        var sum = vec4<f32>();
        for (var c = 0u; c < params.group_channels; c += each) {
            let d = deviation(base + p * params.channels + c, mean);
            sum += d * d;
        }
        squares += sum;
    }
    let scale = 1.0 / sqrt((squares.x + squares.y + squares.z + squares.w) / count + params.eps);
    for (var p = 0u; p < params.positions; p++) {
        for (var c = 0u; c < params.group_channels; c += each) {
            put(base + p * params.channels + c, first + c, mean, scale);
        }
    }
}
