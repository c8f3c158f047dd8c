// y[r, n] = epilogue(sum over k of patch[r, k] * b[n, k], + bias[n]): one invocation for each element, rows being pixels.
//
// Expects: WORKGROUP, params.{m, n, k}, row_a (patches.wgsl), load_b, load_bias (zero when there is none), store_y.

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear_group(group) * WORKGROUP + lane;
    if (i >= params.m * params.n) {
        return;
    }
    let channel = i % params.n;
    var sum = 0.0;
    for (var k = 0u; k < params.k; k++) {
        sum += row_a(i / params.n, k) * load_b(channel * params.k + k);
    }
    store_y(i, sum + load_bias(channel));
}
