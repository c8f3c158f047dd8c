//! Names of tensors that changed between versions of the libraries that write checkpoints. Names are compared by their parts
//! between the dots: one that merely contains such a word is another tensor's.

/// Parts of names in newer and in older files. diffusers renamed the attention of autoencoders in version 0.17.
const RENAMED: &[(&str, &str)] = &[("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")];

/// Whole names in newer and in older files. T5's embedding has two names, because files hold this one tensor under either.
const RENAMED_WHOLE: &[(&str, &str)] = &[("shared.weight", "encoder.embed_tokens.weight")];

/// Endings of tensors that a file may hold and that are not read: buffers that are computed here, and the second copy
/// of T5's embedding.
const HARMLESS: &[&str] = &["position_ids", "pos_embed.pos_embed", "encoder.embed_tokens.weight"];

/// Whether a tensor of this name is not read, and its absence from a model no loss.
pub(crate) fn is_harmless(name: &str) -> bool {
    HARMLESS.iter().any(|end| ends_with(name, end))
}

/// Whether a tensor holds the numbers of CLIP's positions, which older files store.
pub(crate) fn is_position_ids(name: &str) -> bool {
    ends_with(name, "position_ids")
}

/// Names that a weight may have in older files.
pub(crate) fn older_names(name: &str) -> impl Iterator<Item = String> + '_ {
    let whole = RENAMED_WHOLE.iter().filter(move |(now, _)| name == *now).map(|(_, then)| (*then).to_owned());
    whole.chain(RENAMED.iter().filter_map(move |(now, then)| replace(name, now, then)))
}

/// The name that diffusers gives to an autoencoder's tensor since version 0.17.
pub(crate) fn newer_vae_name(name: &str) -> String {
    RENAMED.iter().find_map(|(now, then)| replace(name, then, now)).unwrap_or_else(|| name.to_owned())
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
    name.split('.').any(|part| part == "quant_state")
        || name.rsplit('.').next().is_some_and(|end| ENDINGS.contains(&end))
}

/// Whether a name is this one, or begins with it if it ends with a dot.
pub(crate) fn has_sign(name: &str, sign: &str) -> bool {
    if sign.ends_with('.') { name.starts_with(sign) } else { name == sign }
}

/// Whether the last parts of a name are these.
fn ends_with(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|start| start.is_empty() || start.ends_with('.'))
}

/// A name with other parts in the place of these, the first time that they stand between others.
fn replace(name: &str, from: &str, to: &str) -> Option<String> {
    let places = name.match_indices(from).map(|(start, _)| (start, start + from.len()));
    let mut whole = places.filter(|(start, end)| name[..*start].ends_with('.') && name[*end..].starts_with('.'));
    let (start, end) = whole.next()?;
    Some(format!("{}{to}{}", &name[..start], &name[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_whole() {
        let attention = "mid_block.attentions.0";
        for (now, then) in [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")] {
            let [now, then] = [now, then].map(|part| format!("{attention}.{part}.weight"));
            assert_eq!(newer_vae_name(&then), now);
            assert_eq!(older_names(&now).collect::<Vec<_>>(), [then]);
        }
        assert_eq!(older_names("shared.weight").collect::<Vec<_>>(), ["encoder.embed_tokens.weight"]);
        for name in ["to_q.weight", "a.to_q", "a.into_q.weight", "a.to_qk.weight", "unshared.weight", "a.shared.weight"]
        {
            assert_eq!(older_names(name).count(), 0, "{name}");
        }
        for name in ["a.my_query.weight", "a.query_norm.weight", "query.weight", "a.value"] {
            assert_eq!(newer_vae_name(name), name);
        }
        for name in ["position_ids", "text_model.embeddings.position_ids", "encoder.embed_tokens.weight"] {
            assert!(is_harmless(name), "{name}");
        }
        for name in ["a.my_position_ids", "composition_ids", "decoder.embed_tokens.weight", "position_ids.weight"] {
            assert!(!is_harmless(name), "{name}");
        }
        for name in ["a.weight.quant_state.bitsandbytes__nf4", "a.scale_weight", "scaled_fp8", "a.qweight"] {
            assert!(is_quantization(name), "{name}");
        }
        for name in ["a.my_quant_state.b", "a.upscale_weight", "a.scale_weight.bias", "unscaled_fp8", "SCBx"] {
            assert!(!is_quantization(name), "{name}");
        }
    }
}
