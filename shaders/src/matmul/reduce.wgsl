// y = epilogue(a b + bias), as in naive.wgsl: one workgroup for each four columns of a row, its invocations sharing out k.
//
// Expects: what naive.wgsl does, WORKGROUP a power of two, and tail4_a, tail4_b, tail4_bias, store4_y.
// For products of a few rows, where tiles would leave most of the machine idle: time is the reading of b, and adjacent
// invocations read adjacent vectors of it when it lies as [n, k].

var<workgroup> sums: array<vec4<f32>, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let quads = (params.n + 3u) / 4u;
    let unit = linear_group(group);
    if (unit >= params.batch * params.m * quads) {
        return;
    }
    let column = unit % quads * 4u;
    let row = unit / quads;
    let base_b = row / params.m * params.b_batch;
    let left = params.n - column;
    let columns = min(vec4<u32>(column) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.n - 1u));
    let at_b = base_b + columns * params.k;

    var sum = vec4<f32>();
    for (var k = lane * 4u; k < params.k; k += WORKGROUP * 4u) {
        let a = tail4_a(row * params.k + k, params.k - k);
        if (TRANSPOSE_B) {
            let more = params.k - k;
            sum += vec4<f32>(dot(a, tail4_b(at_b.x + k, more)), dot(a, tail4_b(at_b.y + k, more)),
                dot(a, tail4_b(at_b.z + k, more)), dot(a, tail4_b(at_b.w + k, more)));
        } else {
            let at = base_b + k * params.n + column;
            sum += a.x * tail4_b(at, left);
            if (k + 1u < params.k) {
                sum += a.y * tail4_b(at + params.n, left);
            }
            if (k + 2u < params.k) {
                sum += a.z * tail4_b(at + 2u * params.n, left);
            }
            if (k + 3u < params.k) {
                sum += a.w * tail4_b(at + 3u * params.n, left);
            }
        }
    }
    sums[lane] = sum;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            sums[lane] += sums[lane + half];
        }
    }
    if (lane == 0u) {
        store4_y(row * params.n + column, sums[0] + tail4_bias(column, left), left);
    }
}
