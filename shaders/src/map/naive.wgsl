// y[i] = value(i): one invocation for each element of the result.
//
// Expects: WORKGROUP, params.count (elements of y), y, kept, value(i).
// No invocation depends on another; adjacent ones write adjacent elements.

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear_group(group) * WORKGROUP + lane;
    if (i < params.count) {
        y[i] = kept(value(i));
    }
}
