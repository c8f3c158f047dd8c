// Where element i of a gathered result lies in its table [rows, channels].
//
// Expects: params.rows, params.channels, load_ids.
// An id outside the table reads its nearest row; the outer min also covers NaN, whose conversion is undefined.
fn at(i: u32) -> u32 {
    let last = params.rows - 1u;
    let id = clamp(load_ids(i / params.channels), 0.0, f32(last));
    return min(u32(id), last) * params.channels + i % params.channels;
}
