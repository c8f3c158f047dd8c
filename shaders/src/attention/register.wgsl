// Attention, as in naive.wgsl: one invocation for each four queries of a head and up to 4 GROUPS channels of the result,
// meeting the keys four at a time with running maximum and sum (online softmax, Milakov & Gimelshein 2018).
//
// Expects: what naive.wgsl does, GROUPS (1, 2, 4 or 8: vectors of channels an invocation keeps for each query), params.parts
// (invocations that share the channels of a head), tail4_q, tail4_k, tail4_v, store4_y.
// No barriers and no workgroup memory, so software adapters run it well. Where a head has several parts each computes all
// scores anew. Queries and keys beyond the last repeat the last: the queries are not stored, the keys weigh nothing.

const LOWEST: f32 = -3.4028234e38;
const STEPS: vec4<u32> = vec4<u32>(0u, 1u, 2u, 3u);

// Adds four keys' values of four channels, weighted for four queries: weights[r] belongs to query r.
fn weigh(sums: mat4x4<f32>, scale: vec4<f32>, weights: mat4x4<f32>, keys: vec4<u32>, d: u32) -> mat4x4<f32> {
    if (d >= params.depth) {
        return sums;
    }
    let left = params.depth - d;
    let v = mat4x4<f32>(tail4_v(keys.x + d, left), tail4_v(keys.y + d, left), tail4_v(keys.z + d, left),
        tail4_v(keys.w + d, left));
    return mat4x4<f32>(sums[0] * scale.x + v * weights[0], sums[1] * scale.y + v * weights[1],
        sums[2] * scale.z + v * weights[2], sums[3] * scale.w + v * weights[3]);
}

fn store_tile(sums: mat4x4<f32>, totals: vec4<f32>, query: u32, at: u32, step: u32, d: u32) {
    if (d >= params.depth) {
        return;
    }
    let left = params.depth - d;
    store4_y(at + d, sums[0] / totals.x, left);
    if (query + 1u < params.queries) {
        store4_y(at + step + d, sums[1] / totals.y, left);
    }
    if (query + 2u < params.queries) {
        store4_y(at + 2u * step + d, sums[2] / totals.z, left);
    }
    if (query + 3u < params.queries) {
        store4_y(at + 3u * step + d, sums[3] / totals.w, left);
    }
}

// The products of one query with four keys, summed over four channels.
fn products(q: vec4<f32>, k: mat4x4<f32>) -> vec4<f32> {
    return vec4<f32>(dot(q, k[0]), dot(q, k[1]), dot(q, k[2]), dot(q, k[3]));
}

// Weights of four keys for a query, given its scores and their running maximum.
fn weights(scores: vec4<f32>, largest: f32, seen: vec4<bool>) -> vec4<f32> {
    return select(vec4<f32>(), exp(scores - largest), seen);
}

// Biases of four scores of a query; `row` is where the query's begin.
fn biases(row: u32, keys: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(load_score_bias(row + keys.x), load_score_bias(row + keys.y), load_score_bias(row + keys.z),
        load_score_bias(row + keys.w));
}

fn largest_of(before: f32, scores: vec4<f32>, seen: vec4<bool>) -> f32 {
    let s = select(vec4<f32>(LOWEST), scores, seen);
    return max(before, max(max(s.x, s.y), max(s.z, s.w)));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tiles = (params.queries + 3u) / 4u;
    let unit = linear_group(group) * WORKGROUP + lane;
    if (unit >= params.batch * params.heads * tiles * params.parts) {
        return;
    }
    let part = unit % params.parts;
    let head = unit / params.parts % params.heads;
    let query = unit / (params.parts * params.heads) % tiles * 4u;
    let batch = unit / (params.parts * params.heads * tiles);
    let width = params.heads * params.depth;
    let channel = head * params.depth;
    let queries = min(vec4<u32>(query) + STEPS, vec4<u32>(params.queries - 1u));
    let at_q = (queries + batch * params.queries) * width + channel;
    let first_key = batch * params.keys;
    let visible = select(params.keys, min(params.keys, query + 4u), CAUSAL);
    let d0 = part * (4u * GROUPS);

    var o0 = mat4x4<f32>();
    var o1 = mat4x4<f32>();
    var o2 = mat4x4<f32>();
    var o3 = mat4x4<f32>();
    var o4 = mat4x4<f32>();
    var o5 = mat4x4<f32>();
    var o6 = mat4x4<f32>();
    var o7 = mat4x4<f32>();
    var largest = vec4<f32>(LOWEST);
    var totals = vec4<f32>();
    for (var j = 0u; j < visible; j += 4u) {
        let keys = min(vec4<u32>(j) + STEPS, vec4<u32>(params.keys - 1u));
        let at_k = (keys + first_key) * width + channel;
        var s0 = vec4<f32>();
        var s1 = vec4<f32>();
        var s2 = vec4<f32>();
        var s3 = vec4<f32>();
        for (var d = 0u; d < params.depth; d += 4u) {
            let left = params.depth - d;
            let k = mat4x4<f32>(tail4_k(at_k.x + d, left), tail4_k(at_k.y + d, left), tail4_k(at_k.z + d, left),
                tail4_k(at_k.w + d, left));
            s0 += products(tail4_q(at_q.x + d, left), k);
            s1 += products(tail4_q(at_q.y + d, left), k);
            s2 += products(tail4_q(at_q.z + d, left), k);
            s3 += products(tail4_q(at_q.w + d, left), k);
        }
        let bias = vec4<f32>(load_key_bias(first_key + keys.x), load_key_bias(first_key + keys.y),
            load_key_bias(first_key + keys.z), load_key_bias(first_key + keys.w));
        s0 = s0 * params.scale + bias;
        s1 = s1 * params.scale + bias;
        s2 = s2 * params.scale + bias;
        s3 = s3 * params.scale + bias;
        if (SCORE_BIAS) {
            let row = (queries + head * params.queries) * params.keys;
            s0 += biases(row.x, keys);
            s1 += biases(row.y, keys);
            s2 += biases(row.z, keys);
            s3 += biases(row.w, keys);
        }

        // Query r sees the keys up to the last, or up to itself.
        let ends = select(vec4<u32>(params.keys), min(vec4<u32>(query + 1u) + STEPS, vec4<u32>(params.keys)), CAUSAL);
        let at = vec4<u32>(j) + STEPS;
        let seen0 = at < vec4<u32>(ends.x);
        let seen1 = at < vec4<u32>(ends.y);
        let seen2 = at < vec4<u32>(ends.z);
        let seen3 = at < vec4<u32>(ends.w);
        let before = largest;
        largest = vec4<f32>(largest_of(before.x, s0, seen0), largest_of(before.y, s1, seen1),
            largest_of(before.z, s2, seen2), largest_of(before.w, s3, seen3));
        let p = mat4x4<f32>(weights(s0, largest.x, seen0), weights(s1, largest.y, seen1),
            weights(s2, largest.z, seen2), weights(s3, largest.w, seen3));
        let scale = exp(before - largest);
        totals = totals * scale + vec4<f32>(1.0) * p;

        o0 = weigh(o0, scale, p, at_k, d0);
        if (GROUPS > 1u) {
            o1 = weigh(o1, scale, p, at_k, d0 + 4u);
        }
        if (GROUPS > 2u) {
            o2 = weigh(o2, scale, p, at_k, d0 + 8u);
            o3 = weigh(o3, scale, p, at_k, d0 + 12u);
        }
        if (GROUPS > 4u) {
            o4 = weigh(o4, scale, p, at_k, d0 + 16u);
            o5 = weigh(o5, scale, p, at_k, d0 + 20u);
            o6 = weigh(o6, scale, p, at_k, d0 + 24u);
            o7 = weigh(o7, scale, p, at_k, d0 + 28u);
        }
    }

    let at = (batch * params.queries + query) * width + channel;
    store_tile(o0, totals, query, at, width, d0);
    if (GROUPS > 1u) {
        store_tile(o1, totals, query, at, width, d0 + 4u);
    }
    if (GROUPS > 2u) {
        store_tile(o2, totals, query, at, width, d0 + 8u);
        store_tile(o3, totals, query, at, width, d0 + 12u);
    }
    if (GROUPS > 4u) {
        store_tile(o4, totals, query, at, width, d0 + 16u);
        store_tile(o5, totals, query, at, width, d0 + 20u);
        store_tile(o6, totals, query, at, width, d0 + 24u);
        store_tile(o7, totals, query, at, width, d0 + 28u);
    }
}
