// y = epilogue(conv(a, b) + bias) for kernels of 3 x 3 at stride 1: one invocation for each 4 x 4 pixels of the result and
// four of its channels, by Winograd's F(2x2, 3x3) (Lavin & Gray 2015, section 4.1): Y = A'[(G g G') o (B' d B)]A for each
// 2 x 2 pixels, 16 products in place of 36.
//
// Expects: WORKGROUP, UPSAMPLE, params.{n, channels, in_rows, in_columns, out_rows, out_columns, top, left, blocks
// (how many of 4 x 4 pixels there are), block_rows, block_columns (of an image)}, load_a, load_b, tail4_bias, store4_y.
// Where pixels lie is worked out once, outside of the loop over channels: divisions are what software adapters are slowest
// at. Kernels are transformed where they are used, for four tiles at a time, so that they take no more memory.

const STEPS: vec4<u32> = vec4<u32>(0u, 1u, 2u, 3u);

// Where the pixels of six rows, or of six columns, lie in a, in units of such; the image's end where there are none.
struct Line {
    first: vec4<u32>,
    last: vec2<u32>,
}

fn line(first: u32, end: u32) -> Line {
    // Positions in the padding in front wrap around to numbers far beyond the image.
    var at = Line(vec4<u32>(first) + STEPS, vec2<u32>(first + 4u, first + 5u));
    if (UPSAMPLE) {
        at.first = at.first / 2u;
        at.last = at.last / 2u;
    }
    return Line(min(at.first, vec4<u32>(end)), min(at.last, vec2<u32>(end)));
}

fn pixel(row: u32, column: u32, base: u32) -> f32 {
    // What is beyond the image is read from its last pixel and left out. & where && would do: && is a branch, and some compilers take minutes for
    // dozens of branches among so many registers.
    let at = min(row, params.in_rows - 1u) * params.in_columns + min(column, params.in_columns - 1u);
    return select(0.0, load_a(base + at * params.channels), (row < params.in_rows) & (column < params.in_columns));
}

// Six pixels of a row: the first four, and the last four.
struct Row {
    left: vec4<f32>,
    right: vec4<f32>,
}

fn pixels(row: u32, columns: Line, base: u32) -> Row {
    let left = vec4<f32>(pixel(row, columns.first.x, base), pixel(row, columns.first.y, base),
        pixel(row, columns.first.z, base), pixel(row, columns.first.w, base));
    return Row(left, vec4<f32>(left.zw, pixel(row, columns.last.x, base), pixel(row, columns.last.y, base)));
}

// A row of d B.
fn image_row(d: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(d.x - d.z, d.y + d.z, d.z - d.y, d.y - d.w);
}

// B' d B, of four rows.
fn image(d0: vec4<f32>, d1: vec4<f32>, d2: vec4<f32>, d3: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(image_row(d0 - d2), image_row(d1 + d2), image_row(d2 - d1), image_row(d1 - d3));
}

// A row of g G'.
fn kernel_row(g: vec3<f32>) -> vec4<f32> {
    let ends = 0.5 * (g.x + g.z);
    return vec4<f32>(g.x, ends + 0.5 * g.y, ends - 0.5 * g.y, g.z);
}

// Three weights of a row of a kernel, which are as far apart as there are channels.
fn taps(at: u32) -> vec3<f32> {
    return vec3<f32>(load_b(at), load_b(at + params.channels), load_b(at + 2u * params.channels));
}

// G g G', of a kernel for one channel.
fn kernel(at: u32) -> mat4x4<f32> {
    let g0 = taps(at);
    let g1 = taps(at + 3u * params.channels);
    let g2 = taps(at + 6u * params.channels);
    let ends = 0.5 * (g0 + g2);
    return mat4x4<f32>(kernel_row(g0), kernel_row(ends + 0.5 * g1), kernel_row(ends - 0.5 * g1), kernel_row(g2));
}

// m + v o u
fn madd(m: mat4x4<f32>, v: mat4x4<f32>, u: mat4x4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(m[0] + v[0] * u[0], m[1] + v[1] * u[1], m[2] + v[2] * u[2], m[3] + v[3] * u[3]);
}

// A' m A: the upper two pixels, then the lower two.
fn result(m: mat4x4<f32>) -> vec4<f32> {
    let upper = m[0] + m[1] + m[2];
    let lower = m[1] - m[2] - m[3];
    return vec4<f32>(upper.x + upper.y + upper.z, upper.y - upper.z - upper.w,
        lower.x + lower.y + lower.z, lower.y - lower.z - lower.w);
}

fn store_pixel(v: vec4<f32>, image: u32, row: u32, column: u32, channel: u32) {
    if (row < params.out_rows && column < params.out_columns) {
        let left = params.n - channel;
        let at = ((image * params.out_rows + row) * params.out_columns + column) * params.n + channel;
        store4_y(at, v + tail4_bias(channel, left), left);
    }
}

// One tile of 2 x 2 pixels, of which the matrices belong to four channels.
fn store_tile(m0: mat4x4<f32>, m1: mat4x4<f32>, m2: mat4x4<f32>, m3: mat4x4<f32>, image: u32, row: u32, column: u32,
    channel: u32) {
    let v = transpose(mat4x4<f32>(result(m0), result(m1), result(m2), result(m3)));
    store_pixel(v[0], image, row, column, channel);
    store_pixel(v[1], image, row, column + 1u, channel);
    store_pixel(v[2], image, row + 1u, column, channel);
    store_pixel(v[3], image, row + 1u, column + 1u, channel);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let quads = (params.n + 3u) / 4u;
    let unit = linear_group(group) * WORKGROUP + lane;
    if (unit >= params.blocks * quads) {
        return;
    }
    let channel = unit % quads * 4u;
    let block = unit / quads;
    let column = block % params.block_columns * 4u;
    let row = block / params.block_columns % params.block_rows * 4u;
    let image_at = block / (params.block_columns * params.block_rows);
    let rows = line(row - params.top, params.in_rows);
    let columns = line(column - params.left, params.in_columns);
    let first = image_at * params.in_rows * params.in_columns * params.channels;
    // Channels beyond the last repeat the last and are not stored.
    let kernels = min(vec4<u32>(channel) + STEPS, vec4<u32>(params.n - 1u)) * (9u * params.channels);

    // One matrix for each tile, named by its place, and channel.
    var m00_0 = mat4x4<f32>();
    var m00_1 = mat4x4<f32>();
    var m00_2 = mat4x4<f32>();
    var m00_3 = mat4x4<f32>();
    var m01_0 = mat4x4<f32>();
    var m01_1 = mat4x4<f32>();
    var m01_2 = mat4x4<f32>();
    var m01_3 = mat4x4<f32>();
    var m10_0 = mat4x4<f32>();
    var m10_1 = mat4x4<f32>();
    var m10_2 = mat4x4<f32>();
    var m10_3 = mat4x4<f32>();
    var m11_0 = mat4x4<f32>();
    var m11_1 = mat4x4<f32>();
    var m11_2 = mat4x4<f32>();
    var m11_3 = mat4x4<f32>();
    for (var c = 0u; c < params.channels; c++) {
        let base = first + c;
        let r0 = pixels(rows.first.x, columns, base);
        let r1 = pixels(rows.first.y, columns, base);
        let r2 = pixels(rows.first.z, columns, base);
        let r3 = pixels(rows.first.w, columns, base);
        let r4 = pixels(rows.last.x, columns, base);
        let r5 = pixels(rows.last.y, columns, base);
        let v00 = image(r0.left, r1.left, r2.left, r3.left);
        let v01 = image(r0.right, r1.right, r2.right, r3.right);
        let v10 = image(r2.left, r3.left, r4.left, r5.left);
        let v11 = image(r2.right, r3.right, r4.right, r5.right);
        let u0 = kernel(kernels.x + c);
        m00_0 = madd(m00_0, v00, u0);
        m01_0 = madd(m01_0, v01, u0);
        m10_0 = madd(m10_0, v10, u0);
        m11_0 = madd(m11_0, v11, u0);
        let u1 = kernel(kernels.y + c);
        m00_1 = madd(m00_1, v00, u1);
        m01_1 = madd(m01_1, v01, u1);
        m10_1 = madd(m10_1, v10, u1);
        m11_1 = madd(m11_1, v11, u1);
        let u2 = kernel(kernels.z + c);
        m00_2 = madd(m00_2, v00, u2);
        m01_2 = madd(m01_2, v01, u2);
        m10_2 = madd(m10_2, v10, u2);
        m11_2 = madd(m11_2, v11, u2);
        let u3 = kernel(kernels.w + c);
        m00_3 = madd(m00_3, v00, u3);
        m01_3 = madd(m01_3, v01, u3);
        m10_3 = madd(m10_3, v10, u3);
        m11_3 = madd(m11_3, v11, u3);
    }

    store_tile(m00_0, m00_1, m00_2, m00_3, image_at, row, column, channel);
    store_tile(m01_0, m01_1, m01_2, m01_3, image_at, row, column + 2u, channel);
    store_tile(m10_0, m10_1, m10_2, m10_3, image_at, row + 2u, column, channel);
    store_tile(m11_0, m11_1, m11_2, m11_3, image_at, row + 2u, column + 2u, channel);
}
