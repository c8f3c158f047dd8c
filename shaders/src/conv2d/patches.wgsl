// Rows of the matrix whose row r is what the kernel sees at pixel r of the result: kernel rows, kernel columns, channels,
// the last innermost. It is never stored: an element is one of the image a, or a zero of the padding.
//
// Expects: params.{k, channels, in_rows, in_columns, out_rows, out_columns, kernel_columns, stride, top, left}, UPSAMPLE
// (the image is seen with every pixel twice along both axes), VECTORS (channels are multiples of four), load_a, load4_a.

const PADDING: u32 = 0xffffffffu;

// Where in a element k of row r lies. Nothing here branches: tiles of registers read dozens of elements, and some compilers take minutes for so many
// branches among so many registers.
fn patch_at(r: u32, k: u32) -> u32 {
    let tap = k / params.channels;
    // Positions in the padding in front wrap around to numbers far beyond the image.
    var row = r / params.out_columns % params.out_rows * params.stride + tap / params.kernel_columns - params.top;
    var column = r % params.out_columns * params.stride + tap % params.kernel_columns - params.left;
    if (UPSAMPLE) {
        row = row / 2u;
        column = column / 2u;
    }
    let image = r / (params.out_columns * params.out_rows);
    let at = ((image * params.in_rows + row) * params.in_columns + column) * params.channels + k % params.channels;
    return select(PADDING, at, (row < params.in_rows) & (column < params.in_columns));
}

// In the padding the first element is read and left out.
fn row_a(r: u32, k: u32) -> f32 {
    let at = patch_at(r, k);
    return select(load_a(select(at, 0u, at == PADDING)), 0.0, at == PADDING);
}

fn row4_a(r: u32, k: u32) -> vec4<f32> {
    if (VECTORS) {
        let at = patch_at(r, k);
        return select(load4_a(select(at, 0u, at == PADDING)), vec4<f32>(), at == PADDING);
    }
    return vec4<f32>(row_a(r, k), row_a(r, k + 1u), row_a(r, k + 2u), row_a(r, k + 3u));
}

// The same with zeros beyond the row's end.
fn row_tail4_a(r: u32, k: u32) -> vec4<f32> {
    if (VECTORS || k + 4u <= params.k) {
        return row4_a(r, k);
    }
    var v = vec4<f32>(row_a(r, k), 0.0, 0.0, 0.0);
    if (k + 1u < params.k) {
        v.y = row_a(r, k + 1u);
    }
    if (k + 2u < params.k) {
        v.z = row_a(r, k + 2u);
    }
    return v;
}
