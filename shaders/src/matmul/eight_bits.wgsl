// y = epilogue(a bT + bias), as in naive.wgsl, for b in blocks of 32 whole numbers of eight bits: one workgroup of 8 x 8 for
// each 32 x 32 elements, which multiplies whole numbers, four at a time.
//
// Expects: WORKGROUP = 64, params.{batch, m, n, k (a multiple of 32), b_batch, b_scales}, b as words, scale_b, row4_a
// (matrix.wgsl), tail4_bias, store4_y.
// Rows of a are rounded to blocks of the same kind as they come (Jacob et al. 2018, section 2.2; llama.cpp's products do the
// same), so a result is off by some 0.4% of its terms, and b is read in a quarter of the bytes of single precision. One spare
// word a row against bank conflicts; 2.5 KiB of workgroup memory.

const TILE: u32 = 32u;
const WORDS: u32 = 8u;
const STRIDE: u32 = WORDS + 1u;

var<workgroup> quants_a: array<u32, TILE * STRIDE>;
var<workgroup> quants_b: array<u32, TILE * STRIDE>;
var<workgroup> scales_a: array<f32, TILE>;
var<workgroup> scales_b: array<f32, TILE>;

// Halves away from zero.
fn rounded(v: vec4<f32>) -> u32 {
    return pack4xI8(vec4<i32>(v + 0.5 * sign(v)));
}

fn largest_of(v: vec4<f32>) -> f32 {
    let pair = max(abs(v.xy), abs(v.zw));
    return max(pair.x, pair.y);
}

// A block of a row of a, rounded.
fn stage_a(row: u32, lane: u32, k: u32) {
    let inside = (row < params.batch * params.m);
    var largest = 0.0;
    for (var i = 0u; i < WORDS && inside; i++) {
        largest = max(largest, largest_of(row4_a(row, k + i * 4u)));
    }
    let scale = largest / 127.0;
    let inverse = select(0.0, 1.0 / scale, scale > 0.0);
    scales_a[lane] = scale;
    for (var i = 0u; i < WORDS; i++) {
        var word = 0u;
        if (inside) {
            word = rounded(row4_a(row, k + i * 4u) * inverse);
        }
        quants_a[lane * STRIDE + i] = word;
    }
}

// A block of a row of b, as it lies in memory.
fn stage_b(batch: u32, column: u32, lane: u32, k: u32) {
    let inside = column < params.n;
    let first = batch * params.b_batch + min(column, params.n - 1u) * params.k + k;
    scales_b[lane] = select(0.0, scale_b(first >> 5u), inside);
    for (var i = 0u; i < WORDS; i++) {
        quants_b[lane * STRIDE + i] = b[(first >> 2u) + i];
    }
}

fn dots(a: u32, b: vec4<u32>) -> vec4<i32> {
    return vec4<i32>(dot4I8Packed(a, b.x), dot4I8Packed(a, b.y), dot4I8Packed(a, b.z), dot4I8Packed(a, b.w));
}

fn store_row(v: vec4<f32>, batch: u32, row: u32, column: u32) {
    if (row < params.m && column < params.n) {
        let left = params.n - column;
        store4_y((batch * params.m + row) * params.n + column, v + tail4_bias(column, left), left);
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tiles_n = (params.n + TILE - 1u) / TILE;
    let tiles_m = (params.m + TILE - 1u) / TILE;
    let tile = linear_group(group);
    if (tile >= params.batch * tiles_m * tiles_n) {
        return;
    }
    let first_column = tile % tiles_n * TILE;
    let first_row = tile / tiles_n % tiles_m * TILE;
    let batch = tile / (tiles_n * tiles_m);
    let tx = lane % 8u * 4u;
    let ty = lane / 8u * 4u;

    var c = mat4x4<f32>();
    for (var k = 0u; k < params.k; k += 4u * WORDS) {
        if (lane < TILE) {
            // Rows of the next product, where this one has no more, are not stored.
            stage_a(batch * params.m + first_row + lane, lane, k);
        } else {
            stage_b(batch, first_column + lane - TILE, lane - TILE, k);
        }
        workgroupBarrier();
        var s0 = vec4<i32>();
        var s1 = vec4<i32>();
        var s2 = vec4<i32>();
        var s3 = vec4<i32>();
        for (var i = 0u; i < WORDS; i++) {
            let at = tx * STRIDE + i;
            let columns = vec4<u32>(quants_b[at], quants_b[at + STRIDE], quants_b[at + 2u * STRIDE],
                quants_b[at + 3u * STRIDE]);
            let row = ty * STRIDE + i;
            s0 += dots(quants_a[row], columns);
            s1 += dots(quants_a[row + STRIDE], columns);
            s2 += dots(quants_a[row + 2u * STRIDE], columns);
            s3 += dots(quants_a[row + 3u * STRIDE], columns);
        }
        // At most 32 · 127², which single precision has exactly.
        let scale = vec4<f32>(scales_b[tx], scales_b[tx + 1u], scales_b[tx + 2u], scales_b[tx + 3u]);
        c[0] += vec4<f32>(s0) * (scales_a[ty] * scale);
        c[1] += vec4<f32>(s1) * (scales_a[ty + 1u] * scale);
        c[2] += vec4<f32>(s2) * (scales_a[ty + 2u] * scale);
        c[3] += vec4<f32>(s3) * (scales_a[ty + 3u] * scale);
        workgroupBarrier();
    }

    let column = first_column + tx;
    let row = first_row + ty;
    store_row(c[0], batch, row, column);
    store_row(c[1], batch, row + 1u, column);
    store_row(c[2], batch, row + 2u, column);
    store_row(c[3], batch, row + 3u, column);
}
