// The sum over a workgroup, as tree.wgsl: each subgroup adds up in registers, and every invocation adds up the subgroups.
//
// Expects: WORKGROUP, an adapter with subgroups. They may be of any size, full or not: there are never more of them than
// invocations, and nothing asks which invocation is in which.
// Two barriers, where the tree has two and one for each halving.

struct Invocation {
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
}

var<workgroup> sums: array<f32, WORKGROUP>;

// The sum of `value` over the workgroup, for every invocation.
fn total(value: f32, own: Invocation) -> f32 {
    let part = subgroupAdd(value);
    // Waits until every invocation has read the result of an earlier call.
    workgroupBarrier();
    // All of a subgroup write the same number.
    sums[own.subgroup] = part;
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < own.subgroups; i++) {
        sum += sums[i];
    }
    return sum;
}
