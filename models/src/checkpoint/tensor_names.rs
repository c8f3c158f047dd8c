//! Names of tensors that changed between versions of the libraries that write checkpoints.

/// Parts of names in newer and in older files. diffusers renamed the attention of autoencoders in version 0.17. T5's
/// embedding has two names, because files hold this one tensor under either.
pub(crate) const RENAMED: &[(&str, &str)] = &[
    (".to_q.", ".query."),
    (".to_k.", ".key."),
    (".to_v.", ".value."),
    (".to_out.0.", ".proj_attn."),
    ("shared.weight", "encoder.embed_tokens.weight"),
];

/// Endings of tensors that a file may hold and that are not read: buffers that are computed here, and the second copy
/// of T5's embedding.
pub(crate) const HARMLESS: &[&str] = &["position_ids", "pos_embed.pos_embed", "encoder.embed_tokens.weight"];

/// The name that diffusers gives to an autoencoder's tensor since version 0.17.
pub(crate) fn newer_vae_name(name: &str) -> String {
    let found = RENAMED.iter().find(|(_, then)| name.contains(then));
    found.map_or_else(|| name.to_owned(), |(now, then)| name.replace(then, now))
}

/// Whether a tensor says what the numbers of another one mean: bitsandbytes' and GPTQ's tables, ComfyUI's scales of 8-bit weights.
pub(crate) fn is_quantization(name: &str) -> bool {
    const ENDINGS: &[&str] = &[
        "scale_weight",
        "weight_scale",
        "weight_scale_2",
        "scale_input",
        "input_scale",
        "SCB",
        "absmax",
        "quant_map",
        "qweight",
        "qzeros",
        "comfy_quant",
        "scaled_fp8",
    ];
    name.contains(".quant_state.") || name.rsplit('.').next().is_some_and(|end| ENDINGS.contains(&end))
}
