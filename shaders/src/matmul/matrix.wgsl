// Rows of a as they lie in memory, for register.wgsl and workgroup.wgsl. Row r has params.k elements.

fn row_a(r: u32, k: u32) -> f32 {
    return load_a(r * params.k + k);
}

fn row4_a(r: u32, k: u32) -> vec4<f32> {
    return load4_a(r * params.k + k);
}

fn row_tail4_a(r: u32, k: u32) -> vec4<f32> {
    return tail4_a(r * params.k + k, params.k - k);
}
