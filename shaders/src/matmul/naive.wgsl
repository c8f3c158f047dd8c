// y[b, m, n] = epilogue(sum over k of a[b, m, k] * b[b, k, n], + bias[n]): one invocation for each element.
//
// Expects: WORKGROUP, TRANSPOSE_B (b lies as [n, k]), params.{batch, m, n, k, b_batch (elements of b between products,
// zero when it is shared)}, load_a, load_b, load_bias (zero when there is none), store_y.
// Every element of a is read n times and every element of b m times; only caches reduce this.

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear_group(group) * WORKGROUP + lane;
    if (i >= params.batch * params.m * params.n) {
        return;
    }
    let column = i % params.n;
    let row = i / params.n;
    let batch = row / params.m;

    var at_a = row * params.k;
    var at_b = batch * params.b_batch + select(column, column * params.k, TRANSPOSE_B);
    let step_b = select(params.n, 1u, TRANSPOSE_B);
    var sum = 0.0;
    for (var k = 0u; k < params.k; k++) {
        sum += load_a(at_a) * load_b(at_b);
        at_a += 1u;
        at_b += step_b;
    }
    store_y(i, sum + load_bias(column));
}
