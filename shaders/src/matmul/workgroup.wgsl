// y = epilogue(a b + bias), as in naive.wgsl: one workgroup for each tile of TILE_M rows and TILE_N columns, which steps
// through k by TILE_K with both operands' tiles in workgroup memory.
//
// Expects: what naive.wgsl does, and THREADS_M x THREADS_N = WORKGROUP; ROW_BLOCKS, COLUMN_BLOCKS (1 or 2: tiles of 4 x 4
// that each invocation keeps along m and n); row_tail4_a (matrix.wgsl, or a convolution's patches.wgsl), tail4_b, tail4_bias,
// store4_y; PartA and PartB (vectors of halves where the operand is of halves, so that nothing is lost, else of singles).
// Tiles lie with k outermost and four rows (or columns) in a vector, so one step of k reads ROW_BLOCKS + COLUMN_BLOCKS
// vectors for 16 products each pair; one spare vector a row halves the bank conflicts of the transposing stores.

const TILE_M: u32 = 4u * THREADS_M * ROW_BLOCKS;
const TILE_N: u32 = 4u * THREADS_N * COLUMN_BLOCKS;
const TILE_K: u32 = 16u;
const STRIDE_A: u32 = TILE_M / 4u + 1u;
const STRIDE_B: u32 = TILE_N / 4u + 1u;

var<workgroup> tile_a: array<PartA, TILE_K * STRIDE_A>;
var<workgroup> tile_b: array<PartB, TILE_K * STRIDE_B>;

// Four elements of a row of a, zeros outside the matrix.
fn read_a(batch: u32, row: u32, k: u32) -> vec4<f32> {
    if (row >= params.m || k >= params.k) {
        return vec4<f32>();
    }
    return row_tail4_a(batch * params.m + row, k);
}

// Four elements of b that are adjacent in memory: along k when TRANSPOSE_B, else along n.
fn read_b(batch: u32, k: u32, column: u32) -> vec4<f32> {
    if (column >= params.n || k >= params.k) {
        return vec4<f32>();
    }
    let base = batch * params.b_batch;
    if (TRANSPOSE_B) {
        return tail4_b(base + column * params.k + k, params.k - k);
    }
    return tail4_b(base + k * params.n + column, params.n - column);
}

// c + a bT: column i of the matrix is row i of the tile.
fn rank1(c: mat4x4<f32>, a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(c[0] + a.x * b, c[1] + a.y * b, c[2] + a.z * b, c[3] + a.w * b);
}

fn store_tile(c: mat4x4<f32>, batch: u32, row: u32, column: u32) {
    if (column >= params.n) {
        return;
    }
    let left = params.n - column;
    let bias = tail4_bias(column, left);
    let at = (batch * params.m + row) * params.n + column;
    if (row < params.m) {
        store4_y(at, c[0] + bias, left);
    }
    if (row + 1u < params.m) {
        store4_y(at + params.n, c[1] + bias, left);
    }
    if (row + 2u < params.m) {
        store4_y(at + 2u * params.n, c[2] + bias, left);
    }
    if (row + 3u < params.m) {
        store4_y(at + 3u * params.n, c[3] + bias, left);
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tiles_n = (params.n + TILE_N - 1u) / TILE_N;
    let tiles_m = (params.m + TILE_M - 1u) / TILE_M;
    let tile = linear_group(group);
    if (tile >= params.batch * tiles_m * tiles_n) {
        return;
    }
    let first_column = tile % tiles_n * TILE_N;
    let first_row = tile / tiles_n % tiles_m * TILE_M;
    let batch = tile / (tiles_n * tiles_m);
    let tx = lane % THREADS_N;
    let ty = lane / THREADS_N;

    var c00 = mat4x4<f32>();
    var c01 = mat4x4<f32>();
    var c10 = mat4x4<f32>();
    var c11 = mat4x4<f32>();
    for (var k0 = 0u; k0 < params.k; k0 += TILE_K) {
        for (var block = lane; block < TILE_M / 4u * (TILE_K / 4u); block += WORKGROUP) {
            let k = block % (TILE_K / 4u) * 4u;
            let m = block / (TILE_K / 4u);
            let row = first_row + m * 4u;
            let columns = transpose(mat4x4<f32>(read_a(batch, row, k0 + k), read_a(batch, row + 1u, k0 + k),
                read_a(batch, row + 2u, k0 + k), read_a(batch, row + 3u, k0 + k)));
            let at = k * STRIDE_A + m;
            tile_a[at] = PartA(columns[0]);
            tile_a[at + STRIDE_A] = PartA(columns[1]);
            tile_a[at + 2u * STRIDE_A] = PartA(columns[2]);
            tile_a[at + 3u * STRIDE_A] = PartA(columns[3]);
        }
        if (TRANSPOSE_B) {
            for (var block = lane; block < TILE_N / 4u * (TILE_K / 4u); block += WORKGROUP) {
                let k = block % (TILE_K / 4u) * 4u;
                let n = block / (TILE_K / 4u);
                let column = first_column + n * 4u;
                let rows = transpose(mat4x4<f32>(read_b(batch, k0 + k, column), read_b(batch, k0 + k, column + 1u),
                    read_b(batch, k0 + k, column + 2u), read_b(batch, k0 + k, column + 3u)));
                let at = k * STRIDE_B + n;
                tile_b[at] = PartB(rows[0]);
                tile_b[at + STRIDE_B] = PartB(rows[1]);
                tile_b[at + 2u * STRIDE_B] = PartB(rows[2]);
                tile_b[at + 3u * STRIDE_B] = PartB(rows[3]);
            }
        } else {
            for (var at = lane; at < TILE_K * (TILE_N / 4u); at += WORKGROUP) {
                let n = at % (TILE_N / 4u);
                let k = at / (TILE_N / 4u);
                tile_b[k * STRIDE_B + n] = PartB(read_b(batch, k0 + k, first_column + n * 4u));
            }
        }
        workgroupBarrier();
        for (var k = 0u; k < TILE_K; k++) {
            let a0 = vec4<f32>(tile_a[k * STRIDE_A + ty]);
            let b0 = vec4<f32>(tile_b[k * STRIDE_B + tx]);
            c00 = rank1(c00, a0, b0);
            if (ROW_BLOCKS == 2u) {
                let a1 = vec4<f32>(tile_a[k * STRIDE_A + THREADS_M + ty]);
                c10 = rank1(c10, a1, b0);
                if (COLUMN_BLOCKS == 2u) {
                    let b1 = vec4<f32>(tile_b[k * STRIDE_B + THREADS_N + tx]);
                    c01 = rank1(c01, a0, b1);
                    c11 = rank1(c11, a1, b1);
                }
            }
        }
        workgroupBarrier();
    }

    let row = first_row + ty * 4u;
    let column = first_column + tx * 4u;
    store_tile(c00, batch, row, column);
    if (ROW_BLOCKS == 2u) {
        store_tile(c10, batch, row + 4u * THREADS_M, column);
        if (COLUMN_BLOCKS == 2u) {
            store_tile(c01, batch, row, column + 4u * THREADS_N);
            store_tile(c11, batch, row + 4u * THREADS_M, column + 4u * THREADS_N);
        }
    }
}
