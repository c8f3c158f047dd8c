// The sum over a workgroup by halving, for workgroup.wgsl of the norms.
//
// Expects: WORKGROUP, a power of two.

struct Invocation {
    @builtin(local_invocation_index) lane: u32,
}

var<workgroup> sums: array<f32, WORKGROUP>;

// The sum of `value` over the workgroup, for every invocation.
fn total(value: f32, own: Invocation) -> f32 {
    // Waits until every invocation has read the result of an earlier call.
    workgroupBarrier();
    sums[own.lane] = value;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (own.lane < half) {
            sums[own.lane] += sums[own.lane + half];
        }
    }
    workgroupBarrier();
    return sums[0];
}
