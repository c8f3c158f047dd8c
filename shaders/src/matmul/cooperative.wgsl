// y = epilogue(a b + bias), as in naive.wgsl: one subgroup for each tile of 32 x 32 elements, which the adapter's units for
// small matrices multiply, 8 x 8 elements at a time, in single precision as everywhere else.
//
// Expects: what naive.wgsl does, row_tail4_a (matrix.wgsl), tail4_b, tail4_bias, store4_y; WORKGROUP must be the size of the
// adapter's subgroups, so that a workgroup is one of them.
// Operands pass through workgroup memory, where any storage format, rest or transposition becomes a whole tile. The result
// returns there, because only its units know which invocation holds which element.

const SIDE: u32 = 32u;
const UNIT: u32 = 8u;
const UNITS: u32 = SIDE / UNIT;

var<workgroup> tile_a: array<f32, SIDE * UNIT>;
var<workgroup> tile_b: array<f32, UNIT * SIDE>;
var<workgroup> tile_c: array<f32, SIDE * SIDE>;

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

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tiles_n = (params.n + SIDE - 1u) / SIDE;
    let tiles_m = (params.m + SIDE - 1u) / SIDE;
    let tile = linear_group(group);
    let first_column = tile % tiles_n * SIDE;
    // Whole subgroups must come to every cooperative operation, so what is beyond the last tile goes on with no rows.
    let first_row = select(params.m, tile / tiles_n % tiles_m * SIDE, tile < params.batch * tiles_m * tiles_n);
    let batch = tile / (tiles_n * tiles_m);

    for (var i = lane; i < SIDE * SIDE; i += WORKGROUP) {
        tile_c[i] = 0.0;
    }
    workgroupBarrier();
    // Unit i * UNITS + j holds rows from 8 i on and columns from 8 j on.
    var c: array<coop_mat8x8<f32, C>, UNITS * UNITS>;
    for (var i = 0u; i < UNITS * UNITS; i++) {
        c[i] = coopLoadT<coop_mat8x8<f32, C>>(&tile_c[0], SIDE);
    }
    for (var k0 = 0u; k0 < params.k; k0 += UNIT) {
        for (var i = lane; i < SIDE * 2u; i += WORKGROUP) {
            let row = i / 2u;
            let k = i % 2u * 4u;
            let v = read_a(batch, first_row + row, k0 + k);
            let at = row * UNIT + k;
            tile_a[at] = v.x;
            tile_a[at + 1u] = v.y;
            tile_a[at + 2u] = v.z;
            tile_a[at + 3u] = v.w;
        }
        for (var i = lane; i < SIDE * 2u; i += WORKGROUP) {
            // Where the first of the four lies, and how far apart they are.
            var at = i / (SIDE / 4u) * SIDE + i % (SIDE / 4u) * 4u;
            var step = 1u;
            if (TRANSPOSE_B) {
                at = i % 2u * 4u * SIDE + i / 2u;
                step = SIDE;
            }
            let v = read_b(batch, k0 + at / SIDE, first_column + at % SIDE);
            tile_b[at] = v.x;
            tile_b[at + step] = v.y;
            tile_b[at + 2u * step] = v.z;
            tile_b[at + 3u * step] = v.w;
        }
        workgroupBarrier();
        for (var i = 0u; i < UNITS; i++) {
            let a = coopLoadT<coop_mat8x8<f32, A>>(&tile_a[i * UNIT * UNIT], UNIT);
            for (var j = 0u; j < UNITS; j++) {
                let b = coopLoadT<coop_mat8x8<f32, B>>(&tile_b[j * UNIT], SIDE);
                c[i * UNITS + j] = coopMultiplyAdd(a, b, c[i * UNITS + j]);
            }
        }
        workgroupBarrier();
    }

    for (var i = 0u; i < UNITS * UNITS; i++) {
        let unit = c[i];
        coopStoreT(unit, &tile_c[i / UNITS * UNIT * SIDE + i % UNITS * UNIT], SIDE);
    }
    workgroupBarrier();
    for (var i = lane; i < SIDE * SIDE / 4u; i += WORKGROUP) {
        let row = first_row + i / (SIDE / 4u);
        let column = first_column + i % (SIDE / 4u) * 4u;
        if (row < params.m && column < params.n) {
            let left = params.n - column;
            let at = i * 4u;
            let v = vec4<f32>(tile_c[at], tile_c[at + 1u], tile_c[at + 2u], tile_c[at + 3u]);
            store4_y((batch * params.m + row) * params.n + column, v + tail4_bias(column, left), left);
        }
    }
}
