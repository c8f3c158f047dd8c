// As naive.wgsl: one workgroup for each group of an image, which its invocations walk side by side.
//
// Expects: what register.wgsl does, WORKGROUP a power of two.
// Neighbouring invocations read neighbouring channels, and then the next position's. The group is read three times, but
// only the first read goes beyond the caches.

var<workgroup> sums: array<f32, WORKGROUP>;

// The sum over the workgroup, for every invocation.
fn total(value: f32, lane: u32) -> f32 {
    // Waits until every invocation has read the result of an earlier call.
    workgroupBarrier();
    sums[lane] = value;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            sums[lane] += sums[lane + half];
        }
    }
    workgroupBarrier();
    return sums[0];
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
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
    for (var j = lane; j < members; j += WORKGROUP) {
        sum += members4(base + j / steps * params.channels + j % steps * each);
    }
    let mean = total(sum.x + sum.y + sum.z + sum.w, lane) / count;
    var squares = vec4<f32>();
    for (var j = lane; j < members; j += WORKGROUP) {
        let d = deviation(base + j / steps * params.channels + j % steps * each, mean);
        squares += d * d;
    }
    let variance = total(squares.x + squares.y + squares.z + squares.w, lane) / count;
    let scale = 1.0 / sqrt(variance + params.eps);
    for (var j = lane; j < members; j += WORKGROUP) {
        let c = j % steps * each;
        put(base + j / steps * params.channels + c, first + c, mean, scale);
    }
}
