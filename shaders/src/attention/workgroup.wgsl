// Attention, as in naive.wgsl: one workgroup of 8 x 8 for each 32 queries of a head and up to 32 GROUPS channels of the
// result, meeting the keys 32 at a time with running maximum and sum (FlashAttention, Dao et al. 2022, Algorithm 1).
//
// Expects: what naive.wgsl does, WORKGROUP = 64, GROUPS (1, 2 or 4), params.parts (workgroups that share the channels of
// a head), tail4_q, tail4_k, tail4_v, store4_y; Staged (vectors of halves where all operands are halves, so that nothing is lost, else of singles).
// Each invocation keeps scores of 4 queries by 4 keys and sums of 4 queries by 4 GROUPS channels in registers; 10 KiB of
// workgroup memory, with one spare vector a row against bank conflicts.

const LOWEST: f32 = -3.4028234e38;
const STEPS: vec4<u32> = vec4<u32>(0u, 1u, 2u, 3u);
const TILE: u32 = 32u;
const DEPTH_STEP: u32 = 16u;
const STRIDE: u32 = TILE / 4u + 1u;
// Keys whose values fit the staging memory at once.
const VALUE_STEP: u32 = 32u / GROUPS;

// First DEPTH_STEP channels of queries and then of keys, four queries (keys) a vector; later values, four channels a vector.
var<workgroup> stage: array<Staged, 2 * DEPTH_STEP * STRIDE>;
// Softmax weights, a row for each key, four queries a vector.
var<workgroup> shared_weights: array<vec4<f32>, TILE * STRIDE>;
// One vector of four queries from each invocation.
var<workgroup> gathered: array<vec4<f32>, 64>;

fn read_q(batch: u32, query: u32, channel: u32, d: u32) -> vec4<f32> {
    if (query >= params.queries || d >= params.depth) {
        return vec4<f32>();
    }
    return tail4_q((batch * params.queries + query) * params.heads * params.depth + channel + d, params.depth - d);
}

fn read_k(batch: u32, key: u32, channel: u32, d: u32) -> vec4<f32> {
    if (key >= params.keys || d >= params.depth) {
        return vec4<f32>();
    }
    return tail4_k((batch * params.keys + key) * params.heads * params.depth + channel + d, params.depth - d);
}

fn read_v(batch: u32, key: u32, channel: u32, d: u32) -> vec4<f32> {
    if (key >= params.keys || d >= params.depth) {
        return vec4<f32>();
    }
    return tail4_v((batch * params.keys + key) * params.heads * params.depth + channel + d, params.depth - d);
}

// The score of key `j` for four queries, of which the first has the position `query`; LOWEST where it is hidden.
fn finish(dots: vec4<f32>, batch: u32, head: u32, j: u32, query: u32) -> vec4<f32> {
    if (j >= params.keys) {
        return vec4<f32>(LOWEST);
    }
    var scores = dots * params.scale + load_key_bias(batch * params.keys + j);
    if (SCORE_BIAS) {
        // Queries beyond the last repeat the last.
        let row = (min(vec4<u32>(query) + STEPS, vec4<u32>(params.queries - 1u)) + head * params.queries) * params.keys + j;
        scores += vec4<f32>(load_score_bias(row.x), load_score_bias(row.y), load_score_bias(row.z),
            load_score_bias(row.w));
    }
    if (CAUSAL) {
        return select(vec4<f32>(LOWEST), scores, vec4<u32>(j) <= vec4<u32>(query) + STEPS);
    }
    return scores;
}

// The weight of key `j` for four queries.
fn weigh(scores: vec4<f32>, largest: vec4<f32>, j: u32, query: u32) -> vec4<f32> {
    if (j >= params.keys) {
        return vec4<f32>();
    }
    let weights = exp(scores - largest);
    if (CAUSAL) {
        return select(vec4<f32>(), weights, vec4<u32>(j) <= vec4<u32>(query) + STEPS);
    }
    return weights;
}

// sums + weights vT: column r belongs to query r.
fn rank1(sums: mat4x4<f32>, weights: vec4<f32>, v: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(sums[0] + weights.x * v, sums[1] + weights.y * v, sums[2] + weights.z * v,
        sums[3] + weights.w * v);
}

fn scaled(sums: mat4x4<f32>, by: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(sums[0] * by.x, sums[1] * by.y, sums[2] * by.z, sums[3] * by.w);
}

fn store_tile(sums: mat4x4<f32>, batch: u32, query: u32, channel: u32, d: u32) {
    if (d >= params.depth) {
        return;
    }
    let left = params.depth - d;
    let width = params.heads * params.depth;
    let at = (batch * params.queries + query) * width + channel + d;
    if (query < params.queries) {
        store4_y(at, sums[0], left);
    }
    if (query + 1u < params.queries) {
        store4_y(at + width, sums[1], left);
    }
    if (query + 2u < params.queries) {
        store4_y(at + 2u * width, sums[2], left);
    }
    if (query + 3u < params.queries) {
        store4_y(at + 3u * width, sums[3], left);
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tiles = (params.queries + TILE - 1u) / TILE;
    let unit = linear_group(group);
    if (unit >= params.batch * params.heads * tiles * params.parts) {
        return;
    }
    let d0 = unit % params.parts * (32u * GROUPS);
    let head = unit / params.parts % params.heads;
    let channel = head * params.depth;
    let first_query = unit / (params.parts * params.heads) % tiles * TILE;
    let batch = unit / (params.parts * params.heads * tiles);
    let tx = lane % 8u;
    let ty = lane / 8u;
    let query = first_query + ty * 4u;
    let visible = select(params.keys, min(params.keys, first_query + TILE), CAUSAL);

    var o0 = mat4x4<f32>();
    var o1 = mat4x4<f32>();
    var o2 = mat4x4<f32>();
    var o3 = mat4x4<f32>();
    var largest = vec4<f32>(LOWEST);
    // Of this invocation's own keys only, until the end.
    var totals = vec4<f32>();
    for (var j0 = 0u; j0 < visible; j0 += TILE) {
        // Scores: column j belongs to key j0 + 4 tx + j, its component r to query r.
        var s = mat4x4<f32>();
        for (var d1 = 0u; d1 < params.depth; d1 += DEPTH_STEP) {
            let d = d1 + lane % 4u * 4u;
            let four = lane / 4u % 8u * 4u;
            // 32 blocks of 4 x 4 of the queries; in a second round, the keys'.
            for (var side = lane / 32u; side < 2u; side += WORKGROUP / 32u) {
                var rows: mat4x4<f32>;
                if (side == 0u) {
                    let i = first_query + four;
                    rows = mat4x4<f32>(read_q(batch, i, channel, d), read_q(batch, i + 1u, channel, d),
                        read_q(batch, i + 2u, channel, d), read_q(batch, i + 3u, channel, d));
                } else {
                    let j = j0 + four;
                    rows = mat4x4<f32>(read_k(batch, j, channel, d), read_k(batch, j + 1u, channel, d),
                        read_k(batch, j + 2u, channel, d), read_k(batch, j + 3u, channel, d));
                }
                let columns = transpose(rows);
                let at = (side * DEPTH_STEP + d - d1) * STRIDE + four / 4u;
                stage[at] = Staged(columns[0]);
                stage[at + STRIDE] = Staged(columns[1]);
                stage[at + 2u * STRIDE] = Staged(columns[2]);
                stage[at + 3u * STRIDE] = Staged(columns[3]);
            }
            workgroupBarrier();
            for (var i = 0u; i < DEPTH_STEP; i++) {
                s = rank1(s, vec4<f32>(stage[(DEPTH_STEP + i) * STRIDE + tx]), vec4<f32>(stage[i * STRIDE + ty]));
            }
            workgroupBarrier();
        }
        let j = j0 + tx * 4u;
        s = mat4x4<f32>(finish(s[0], batch, head, j, query), finish(s[1], batch, head, j + 1u, query),
            finish(s[2], batch, head, j + 2u, query), finish(s[3], batch, head, j + 3u, query));

        // The running maximum of each query, over the eight invocations that share its row.
        gathered[lane] = max(max(s[0], s[1]), max(s[2], s[3]));
        workgroupBarrier();
        let before = largest;
        for (var i = 0u; i < 8u; i++) {
            largest = max(largest, gathered[ty * 8u + i]);
        }
        let scale = exp(before - largest);
        let p = mat4x4<f32>(weigh(s[0], largest, j, query), weigh(s[1], largest, j + 1u, query),
            weigh(s[2], largest, j + 2u, query), weigh(s[3], largest, j + 3u, query));
        totals = totals * scale + p[0] + p[1] + p[2] + p[3];
        let at = tx * 4u * STRIDE + ty;
        shared_weights[at] = p[0];
        shared_weights[at + STRIDE] = p[1];
        shared_weights[at + 2u * STRIDE] = p[2];
        shared_weights[at + 3u * STRIDE] = p[3];
        o0 = scaled(o0, scale);
        if (GROUPS > 1u) {
            o1 = scaled(o1, scale);
        }
        if (GROUPS > 2u) {
            o2 = scaled(o2, scale);
            o3 = scaled(o3, scale);
        }

        for (var j1 = 0u; j1 < TILE; j1 += VALUE_STEP) {
            for (var i = lane; i < VALUE_STEP * 8u * GROUPS; i += WORKGROUP) {
                stage[i] = Staged(read_v(batch, j0 + j1 + i / (8u * GROUPS), channel, d0 + i % (8u * GROUPS) * 4u));
            }
            workgroupBarrier();
            for (var i = 0u; i < VALUE_STEP; i++) {
                let w = shared_weights[(j1 + i) * STRIDE + ty];
                let row = i * (8u * GROUPS) + tx;
                o0 = rank1(o0, w, vec4<f32>(stage[row]));
                if (GROUPS > 1u) {
                    o1 = rank1(o1, w, vec4<f32>(stage[row + 8u]));
                }
                if (GROUPS > 2u) {
                    o2 = rank1(o2, w, vec4<f32>(stage[row + 16u]));
                    o3 = rank1(o3, w, vec4<f32>(stage[row + 24u]));
                }
            }
            workgroupBarrier();
        }
    }

    gathered[lane] = totals;
    workgroupBarrier();
    totals = vec4<f32>();
    for (var i = 0u; i < 8u; i++) {
        totals += gathered[ty * 8u + i];
    }
    let inverse = 1.0 / totals;
    let d = d0 + tx * 4u;
    store_tile(scaled(o0, inverse), batch, query, channel, d);
    if (GROUPS > 1u) {
        store_tile(scaled(o1, inverse), batch, query, channel, d + 32u);
    }
    if (GROUPS > 2u) {
        store_tile(scaled(o2, inverse), batch, query, channel, d + 64u);
        store_tile(scaled(o3, inverse), batch, query, channel, d + 96u);
    }
}
