//! How different programs name adapted weights. These tables list every spelling that is supported.

/// The role of a tensor in its layer. LyCORIS' names are at its `weight_list`s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Down,
    Up,
    /// The core between the two matrices of a convolution.
    Mid,
    Alpha,
    /// What a bias changes by when the layer's product is added: PEFT's `lora_bias`.
    UpBias,
    /// The lengths of a weight's columns or rows: Liu et al. 2024.
    Magnitude,
    /// The same, and always of the rows, as PEFT has it.
    RowMagnitude,
    HadamardA1,
    HadamardB1,
    HadamardCore1,
    HadamardA2,
    HadamardB2,
    HadamardCore2,
    Kronecker1,
    KroneckerA1,
    KroneckerB1,
    Kronecker2,
    KroneckerA2,
    KroneckerB2,
    KroneckerCore2,
    Difference,
    BiasDifference,
}

/// Endings of names: the role of the tensor, and the program that uses the spelling.
const ENDINGS: &[(&str, Role, &str)] = &[
    (".lora_A.weight", Role::Down, "PEFT"),
    (".lora_B.weight", Role::Up, "PEFT"),
    (".lora_B.bias", Role::UpBias, "PEFT"),
    (".lora_magnitude_vector", Role::RowMagnitude, "PEFT"),
    (".lora_magnitude_vector.weight", Role::RowMagnitude, "PEFT"),
    (".lora_linear_layer.down.weight", Role::Down, "diffusers"),
    (".lora_linear_layer.up.weight", Role::Up, "diffusers"),
    (".lora.down.weight", Role::Down, "diffusers"),
    (".lora.up.weight", Role::Up, "diffusers"),
    ("_lora.down.weight", Role::Down, "diffusers"),
    ("_lora.up.weight", Role::Up, "diffusers"),
    (".lora_down.weight", Role::Down, "kohya"),
    (".lora_up.weight", Role::Up, "kohya"),
    (".lora_mid.weight", Role::Mid, "kohya"),
    ("_lora.alpha", Role::Alpha, "diffusers"),
    (".lora.alpha", Role::Alpha, "diffusers"),
    (".lora_linear_layer.alpha", Role::Alpha, "diffusers"),
    (".alpha", Role::Alpha, "kohya"),
    (".dora_scale", Role::Magnitude, "LyCORIS"),
    (".hada_w1_a", Role::HadamardA1, "LyCORIS"),
    (".hada_w1_b", Role::HadamardB1, "LyCORIS"),
    (".hada_t1", Role::HadamardCore1, "LyCORIS"),
    (".hada_w2_a", Role::HadamardA2, "LyCORIS"),
    (".hada_w2_b", Role::HadamardB2, "LyCORIS"),
    (".hada_t2", Role::HadamardCore2, "LyCORIS"),
    (".lokr_w1", Role::Kronecker1, "LyCORIS"),
    (".lokr_w1_a", Role::KroneckerA1, "LyCORIS"),
    (".lokr_w1_b", Role::KroneckerB1, "LyCORIS"),
    (".lokr_w2", Role::Kronecker2, "LyCORIS"),
    (".lokr_w2_a", Role::KroneckerA2, "LyCORIS"),
    (".lokr_w2_b", Role::KroneckerB2, "LyCORIS"),
    (".lokr_t2", Role::KroneckerCore2, "LyCORIS"),
    (".diff", Role::Difference, "LyCORIS"),
    (".diff_b", Role::BiasDifference, "LyCORIS"),
    (".w_norm", Role::Difference, "LyCORIS"),
    (".b_norm", Role::BiasDifference, "LyCORIS"),
];

/// PEFT's endings with an adapter's name inside: `.lora_A.default.weight`.
const NAMED: &[(&str, &str, Role)] = &[
    (".lora_A", ".weight", Role::Down),
    (".lora_B", ".weight", Role::Up),
    (".lora_B", ".bias", Role::UpBias),
    (".lora_magnitude_vector", ".weight", Role::RowMagnitude),
];

/// Adapters of other kinds, which are refused: the ending of a name, and what the kind is called.
const REFUSED: &[(&str, &str)] = &[
    (".oft_blocks", "an OFT"),
    (".oft_diag", "an OFT"),
    (".oft_R.weight", "an OFT"),
    (".boft_R", "a BOFT"),
    (".on_input", "an (IA)³"),
    (".ia3_l", "an (IA)³"),
    (".a1.weight", "a GLoRA"),
    (".a2.weight", "a GLoRA"),
    (".b1.weight", "a GLoRA"),
    (".b2.weight", "a GLoRA"),
    (".lokr_t1", "a LoKr with a core in its first factor"),
    (".lora_embedding_A", "an adapter of an embedding"),
    (".lora_embedding_B", "an adapter of an embedding"),
    (".vera_lambda_b", "a VeRA"),
    (".vera_lambda_d", "a VeRA"),
    (".bias_values", "a LyCORIS with sparse biases"),
    (".bias_indices", "a LyCORIS with sparse biases"),
    (".set_weight", "a set of weights to put in place of a model's"),
];

/// Wrappers that PEFT puts before the names of a model's parts.
const WRAPPERS: &[&str] = &["base_model.model."];

/// Prefixes of names, and the part of the model that each stands for. A name without a prefix belongs to the network.
const PARTS: &[(&str, &str)] = &[
    ("lora_unet_", "unet"),
    ("lora_transformer_", "unet"),
    ("lycoris_", "unet"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("lora_te_", "text_encoder"),
    ("unet.", "unet"),
    ("transformer.", "transformer"),
    ("text_encoder_2.", "text_encoder_2"),
    ("text_encoder.", "text_encoder"),
    ("diffusion_model.", "unet"),
    ("text_encoders.clip_l.transformer.", "text_encoder"),
    ("text_encoders.clip_h.transformer.", "text_encoder"),
    ("text_encoders.clip_g.transformer.", "text_encoder_2"),
    ("text_encoders.t5xxl.transformer.", "text_encoder"),
];

/// Beginnings of names that ComfyUI's extraction and training write, whose endings are kohya's.
const COMFYUI: &[&str] = &["diffusion_model.", "text_encoders."];

/// Endings of names that older versions of diffusers used for an attention's projections, and the endings of the
/// weights' names.
const NETWORK: &[(&str, &str)] = &[(".to_out", ".to_out.0")];
const TEXT: &[(&str, &str)] = &[
    (".self_attn.to_q", ".self_attn.q_proj"),
    (".self_attn.to_k", ".self_attn.k_proj"),
    (".self_attn.to_v", ".self_attn.v_proj"),
    (".self_attn.to_out", ".self_attn.out_proj"),
];

/// The weight that a layer changes: a part of the model, and the weight's name with underscores for dots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) part: &'static str,
    pub(crate) flat: String,
}

/// A name's layer, its role there, and whose spelling it is.
pub(super) fn split(name: &str) -> Option<(&str, Role, &'static str)> {
    let plain = ENDINGS.iter().find_map(|(end, role, kind)| Some((name.strip_suffix(end)?, *role, *kind)));
    let named = || {
        NAMED.iter().find_map(|(before, after, role)| {
            let (start, adapter) = name.strip_suffix(after)?.rsplit_once('.')?;
            Some((start.strip_suffix(before).filter(|_| !adapter.is_empty())?, *role, "PEFT"))
        })
    };
    let (module, role, kind) = plain.or_else(named).filter(|(module, ..)| !module.is_empty())?;
    Some((module, role, if COMFYUI.iter().any(|start| module.starts_with(start)) { "ComfyUI" } else { kind }))
}

/// The kind of adapter a name belongs to, if it is one that is not supported.
pub(super) fn refused(name: &str) -> Option<&'static str> {
    let known =
        |module: &str| PARTS.iter().map(|(start, _)| start).chain(WRAPPERS).any(|start| module.starts_with(start));
    REFUSED.iter().find(|(end, _)| name.strip_suffix(end).is_some_and(known)).map(|(_, kind)| *kind)
}

/// Whether a tensor of this name is part of an adapter and of nothing else.
pub(crate) fn is_of_adapter(name: &str) -> bool {
    split(name).is_some_and(|(_, role, _)| role != Role::Alpha) || refused(name).is_some()
}

/// A word inside an adapter's file, `bundle_emb.NAME.string_to_param.*` or `bundle_emb.NAME.KEY`: the word, and the
/// tensor's name among those of a textual inversion.
pub(super) fn bundled(name: &str) -> Option<(&str, &str)> {
    let (word, rest) = name.strip_prefix("bundle_emb.")?.split_once('.')?;
    // An old inversion has one vector under the name of the token that it was trained from.
    Some((word, if rest.starts_with("string_to_param.") { "emb_params" } else { rest }))
}

fn unwrapped(module: &str) -> &str {
    WRAPPERS.iter().find_map(|wrapper| module.strip_prefix(wrapper)).unwrap_or(module)
}

/// A layer's part of the model, and its name there.
pub(super) fn place(module: &str) -> (&'static str, &str) {
    let module = unwrapped(module);
    let found = PARTS.iter().find_map(|(start, part)| Some((*part, module.strip_prefix(start)?)));
    // A text encoder on its own, as PEFT keeps it.
    let other = if module.starts_with("text_model.") { "text_encoder" } else { "unet" };
    found.unwrap_or((other, module))
}

/// The weight that a layer changes.
pub(super) fn target(module: &str) -> Target {
    let (part, name) = place(module);
    let mut name = name.replace(".processor.", ".");
    for (end, own) in if part.starts_with("text") { TEXT } else { NETWORK } {
        if let Some(start) = name.strip_suffix(end) {
            name = format!("{start}{own}");
            break;
        }
    }
    let flat = name.replace('.', "_");
    let flat =
        if part.starts_with("text") { flat.strip_prefix("text_model_").unwrap_or(&flat).to_owned() } else { flat };
    Target { part, flat }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_weight_in_many_spellings() {
        let to_out = "down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_out_0";
        for name in [
            "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0.lora_A.weight",
            "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0.lora_A.default.weight",
            "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0.lora_A.my-style.weight",
            "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0.lora.down.weight",
            "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.processor.to_out_lora.down.weight",
            "down_blocks.1.attentions.0.transformer_blocks.0.attn2.processor.to_out_lora.down.weight",
            "base_model.model.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0.lora_A.weight",
            "base_model.model.unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0.lora_A.weight",
            "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_out_0.lora_down.weight",
            "lycoris_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_out_0.lora_down.weight",
            "diffusion_model.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0.lora_down.weight",
        ] {
            let (module, role, _) = split(name).expect(name);
            assert_eq!((role, target(module)), (Role::Down, Target { part: "unet", flat: to_out.into() }), "{name}");
        }
        for name in [
            "text_encoder_2.text_model.encoder.layers.3.self_attn.q_proj.lora_B.weight",
            "text_encoder_2.encoder.layers.3.self_attn.q_proj.lora_linear_layer.up.weight",
            "text_encoder_2.text_model.encoder.layers.3.self_attn.to_q_lora.up.weight",
            "lora_te2_text_model_encoder_layers_3_self_attn_q_proj.lora_up.weight",
            "text_encoders.clip_g.transformer.text_model.encoder.layers.3.self_attn.q_proj.lora_up.weight",
            "base_model.model.text_encoder_2.text_model.encoder.layers.3.self_attn.q_proj.lora_B.weight",
        ] {
            let (module, role, _) = split(name).expect(name);
            let flat = "encoder_layers_3_self_attn_q_proj".to_owned();
            assert_eq!((role, target(module)), (Role::Up, Target { part: "text_encoder_2", flat }), "{name}");
        }
        let alone = target("base_model.model.text_model.encoder.layers.3.mlp.fc1");
        assert_eq!(alone, Target { part: "text_encoder", flat: "encoder_layers_3_mlp_fc1".into() });
    }

    #[test]
    fn alphas_belong_to_their_matrices() {
        for (alpha, matrix) in [
            ("lora_unet_x.alpha", "lora_unet_x.lora_up.weight"),
            ("unet.x.to_q.alpha", "unet.x.to_q.lora.up.weight"),
            ("unet.x.to_q.lora.alpha", "unet.x.to_q.lora.up.weight"),
            ("unet.x.processor.to_q_lora.alpha", "unet.x.processor.to_q_lora.up.weight"),
            ("text_encoder.x.lora_linear_layer.alpha", "text_encoder.x.lora_linear_layer.up.weight"),
        ] {
            assert_eq!(split(alpha).map(|found| found.0), split(matrix).map(|found| found.0), "{alpha}");
        }
    }

    #[test]
    fn adapters_are_told_from_models() {
        for name in [
            "lora_unet_x.hada_w1_a",
            "lora_unet_x.lokr_w2",
            "lora_unet_x.lora_mid.weight",
            "lora_unet_x.oft_blocks",
            "unet.x.lora_magnitude_vector",
            "diffusion_model.out.2.diff",
            "diffusion_model.out.2.diff_b",
        ] {
            assert!(is_of_adapter(name), "{name}");
        }
        for name in [
            "model.diffusion_model.input_blocks.0.0.weight",
            "model.diffusion_model.input_blocks.1.1.proj_in.bias",
            "first_stage_model.encoder.conv_in.weight",
            "text_model.encoder.layers.0.mlp.fc1.weight",
            "lora_unet_x.alpha",
            "net.a1.weight",
            ".diff",
            "alpha",
        ] {
            assert!(!is_of_adapter(name), "{name}");
        }
        assert_eq!(bundled("bundle_emb.cat.string_to_param.*"), Some(("cat", "emb_params")));
        assert_eq!(bundled("bundle_emb.cat.clip_l"), Some(("cat", "clip_l")));
        assert_eq!(bundled("bundle_emb.cat"), None);
    }
}
