// y = epilogue(a b + bias), as in naive.wgsl: one invocation for each tile of 4 x 4 or 8 x 8 elements, kept in registers.
//
// Expects: what naive.wgsl does, BLOCKS (1 or 2: tiles of 4 x 4 along m and n), row_a and row4_a in place of load_a
// (matrix.wgsl, or a convolution's patches.wgsl), load4_b, tail4_b, tail4_bias, store4_y.
// Each load serves 4 BLOCKS products. No barriers and no workgroup memory, so software adapters run it well; rows and
// columns beyond the last repeat the last, which costs less than a branch, and are not stored.

const STEPS: vec4<u32> = vec4<u32>(0u, 1u, 2u, 3u);

// Four numbers from the first on, but below the end.
fn four(first: u32, end: u32) -> vec4<u32> {
    return min(vec4<u32>(first) + STEPS, vec4<u32>(end - 1u));
}

// Four channels k of four rows; column i of the matrix is row i.
fn read_a(rows: vec4<u32>, k: u32) -> mat4x4<f32> {
    return mat4x4<f32>(row4_a(rows.x, k), row4_a(rows.y, k), row4_a(rows.z, k), row4_a(rows.w, k));
}

// Four channels k of four columns of b; column i of the matrix is channel k + i.
fn read_b(base: u32, at: vec4<u32>, k: u32, column: u32) -> mat4x4<f32> {
    if (TRANSPOSE_B) {
        return transpose(mat4x4<f32>(load4_b(base + at.x + k), load4_b(base + at.y + k), load4_b(base + at.z + k),
            load4_b(base + at.w + k)));
    }
    // A second block may begin beyond the last column.
    let first = min(column, params.n - 1u);
    let left = params.n - first;
    let start = base + k * params.n + first;
    return mat4x4<f32>(tail4_b(start, left), tail4_b(start + params.n, left), tail4_b(start + 2u * params.n, left),
        tail4_b(start + 3u * params.n, left));
}

fn madd(c: vec4<f32>, a: vec4<f32>, b: mat4x4<f32>) -> vec4<f32> {
    return c + a.x * b[0] + a.y * b[1] + a.z * b[2] + a.w * b[3];
}

// c + a b: column i of c is row i of the tile.
fn multiply(c: mat4x4<f32>, a: mat4x4<f32>, b: mat4x4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(madd(c[0], a[0], b), madd(c[1], a[1], b), madd(c[2], a[2], b), madd(c[3], a[3], b));
}

// One channel k, for the rest of k.
fn read1_a(rows: vec4<u32>, k: u32) -> vec4<f32> {
    return vec4<f32>(row_a(rows.x, k), row_a(rows.y, k), row_a(rows.z, k), row_a(rows.w, k));
}

fn read1_b(base: u32, at: vec4<u32>, k: u32, column: u32) -> vec4<f32> {
    if (TRANSPOSE_B) {
        return vec4<f32>(load_b(base + at.x + k), load_b(base + at.y + k), load_b(base + at.z + k),
            load_b(base + at.w + k));
    }
    let first = min(column, params.n - 1u);
    return tail4_b(base + k * params.n + first, params.n - first);
}

fn rank1(c: mat4x4<f32>, a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(c[0] + a.x * b, c[1] + a.y * b, c[2] + a.z * b, c[3] + a.w * b);
}

fn store_tile(c: mat4x4<f32>, batch: u32, row: u32, column: u32) {
    if (row >= params.m || column >= params.n) {
        return;
    }
    let left = params.n - column;
    let bias = tail4_bias(column, left);
    let at = (batch * params.m + row) * params.n + column;
    store4_y(at, c[0] + bias, left);
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
    let side = 4u * BLOCKS;
    let tiles_n = (params.n + side - 1u) / side;
    let tiles_m = (params.m + side - 1u) / side;
    let tile = linear_group(group) * WORKGROUP + lane;
    if (tile >= params.batch * tiles_m * tiles_n) {
        return;
    }
    let column = tile % tiles_n * side;
    let row = tile / tiles_n % tiles_m * side;
    let batch = tile / (tiles_n * tiles_m);

    let rows0 = four(row, params.m) + batch * params.m;
    let rows1 = four(row + 4u, params.m) + batch * params.m;
    // Where rows of b begin when it lies as [n, k].
    let columns0 = four(column, params.n) * params.k;
    let columns1 = four(column + 4u, params.n) * params.k;
    let base = batch * params.b_batch;

    var c00 = mat4x4<f32>();
    var c01 = mat4x4<f32>();
    var c10 = mat4x4<f32>();
    var c11 = mat4x4<f32>();
    var k = 0u;
    for (; k + 4u <= params.k; k += 4u) {
        let a0 = read_a(rows0, k);
        let b0 = read_b(base, columns0, k, column);
        c00 = multiply(c00, a0, b0);
        if (BLOCKS == 2u) {
            let a1 = read_a(rows1, k);
            let b1 = read_b(base, columns1, k, column + 4u);
            c01 = multiply(c01, a0, b1);
            c10 = multiply(c10, a1, b0);
            c11 = multiply(c11, a1, b1);
        }
    }
    for (; k < params.k; k++) {
        let a0 = read1_a(rows0, k);
        let b0 = read1_b(base, columns0, k, column);
        c00 = rank1(c00, a0, b0);
        if (BLOCKS == 2u) {
            let a1 = read1_a(rows1, k);
            let b1 = read1_b(base, columns1, k, column + 4u);
            c01 = rank1(c01, a0, b1);
            c10 = rank1(c10, a1, b0);
            c11 = rank1(c11, a1, b1);
        }
    }

    store_tile(c00, batch, row, column);
    if (BLOCKS == 2u) {
        store_tile(c01, batch, row, column + 4u);
        store_tile(c10, batch, row + 4u, column);
        store_tile(c11, batch, row + 4u, column + 4u);
    }
}
