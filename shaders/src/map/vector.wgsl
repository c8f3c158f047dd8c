// y[i..i + 4] = value4(i): one invocation for each four elements of the result.
//
// Expects: WORKGROUP, params.count (elements of y, a multiple of four), y as vectors, kept4, value4(i).
// A quarter of the index arithmetic of the naive body, and 16 bytes an access.

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (linear_group(group) * WORKGROUP + lane) * 4u;
    if (i < params.count) {
        y[i >> 2u] = kept4(value4(i));
    }
}
