//! Names of tensors that changed between versions of the libraries that write checkpoints.

/// Parts of names that diffusers gives otherwise since version 0.17, and what they were: an autoencoder's attention. And the other name of
/// T5's embedding, which is one tensor in memory and either in a file.
pub(crate) const RENAMED: &[(&str, &str)] = &[
    (".to_q.", ".query."),
    (".to_k.", ".key."),
    (".to_v.", ".value."),
    (".to_out.0.", ".proj_attn."),
    ("shared.weight", "encoder.embed_tokens.weight"),
];

/// Buffers that older libraries saved and that are computed here, and the second copy of T5's embedding.
pub(crate) const HARMLESS: &[&str] = &["embeddings.position_ids", "pos_embed.pos_embed", "encoder.embed_tokens.weight"];

/// diffusers' name for an autoencoder's tensor since version 0.17.
pub(crate) fn newer_vae_name(name: &str) -> String {
    let found = RENAMED.iter().find(|(_, then)| name.contains(then));
    found.map_or_else(|| name.to_owned(), |(now, then)| name.replace(then, now))
}
