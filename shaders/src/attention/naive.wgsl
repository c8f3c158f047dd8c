// y[b, i, h, :] = softmax(scale * q[b, i, h, :] . k[b, j, h, :] + key_bias[b, j] + score_bias[h, i, j]) over j, times
// v[b, j, h, :]: one invocation for each query i of each head h of each batch entry b.
//
// Expects: WORKGROUP, CAUSAL (query i sees keys 0..=i), SCORE_BIAS (there is one), params.{batch, heads, queries, keys,
// depth, scale}, load_q, load_k, load_v, load_key_bias and load_score_bias (zero when there is none), y.
// Scores are computed twice, once for the largest and once for the sums, which are kept in y itself: so it needs no
// memory that depends on the depth or the number of keys.

// The last two say where the biases of the score are.
fn score(query: u32, key: u32, key_bias_at: u32, score_bias_at: u32) -> f32 {
    var dot = 0.0;
    for (var d = 0u; d < params.depth; d++) {
        dot += load_q(query + d) * load_k(key + d);
    }
    return dot * params.scale + load_key_bias(key_bias_at) + load_score_bias(score_bias_at);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear_group(group) * WORKGROUP + lane;
    if (i >= params.batch * params.queries * params.heads) {
        return;
    }
    // Heads lie side by side in a row, so i counts through y in steps of the depth.
    let at_query = i * params.depth;
    let row = i / params.heads;
    let batch = row / params.queries;
    let width = params.heads * params.depth;
    let first_key = batch * params.keys * width + (i % params.heads) * params.depth;
    let first_bias = batch * params.keys;
    let first_score = (i % params.heads * params.queries + row % params.queries) * params.keys;
    let visible = select(params.keys, row % params.queries + 1u, CAUSAL);

    var largest = score(at_query, first_key, first_bias, first_score);
    for (var j = 1u; j < visible; j++) {
        largest = max(largest, score(at_query, first_key + j * width, first_bias + j, first_score + j));
    }
    for (var d = 0u; d < params.depth; d++) {
        y[at_query + d] = 0.0;
    }
    var total = 0.0;
    for (var j = 0u; j < visible; j++) {
        let p = exp(score(at_query, first_key + j * width, first_bias + j, first_score + j) - largest);
        total += p;
        for (var d = 0u; d < params.depth; d++) {
            y[at_query + d] += p * load_v(first_key + j * width + d);
        }
    }
    for (var d = 0u; d < params.depth; d++) {
        y[at_query + d] /= total;
    }
}
