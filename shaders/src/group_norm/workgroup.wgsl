// As naive.wgsl: one workgroup for each group of an image, which its invocations walk side by side.
//
// Expects: what register.wgsl does, and Invocation and total (total/tree.wgsl or total/subgroup.wgsl).
// Neighbouring invocations read neighbouring channels, and then the next position's. The group is read three times, but
// only the first read goes beyond the caches.

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, own: Invocation) {
    let i = linear_group(group);
    if (i >= params.batch * params.groups) {
        return;
    }
    let first = i % params.groups * params.group_channels;
    let base = i / params.groups * params.positions * params.channels + first;
    let count = f32(params.positions * params.group_channels);
    let each = select(1u, 4u, VECTORS);
    let steps = params.group_channels / each;
    let members = params.positions * steps;

    var sum = vec4<f32>();
    for (var j = own.lane; j < members; j += WORKGROUP) {
        sum += members4(base + j / steps * params.channels + j % steps * each);
    }
    let mean = total(sum.x + sum.y + sum.z + sum.w, own) / count;
    var squares = vec4<f32>();
    for (var j = own.lane; j < members; j += WORKGROUP) {
        let d = deviation(base + j / steps * params.channels + j % steps * each, mean);
        squares += d * d;
    }
    let variance = total(squares.x + squares.y + squares.z + squares.w, own) / count;
    let scale = 1.0 / sqrt(variance + params.eps);
    for (var j = own.lane; j < members; j += WORKGROUP) {
        let c = j % steps * each;
        put(base + j / steps * params.channels + c, first + c, mean, scale);
    }
}
