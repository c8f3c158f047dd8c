//! How different programs name adapted weights. These tables list every spelling that is supported.

use serde_json::{Map, Value};

/// The role of a tensor in its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Down,
    Up,
    Alpha,
}

/// Endings of names: the role of the tensor, and the program that uses the spelling.
const ENDINGS: &[(&str, Role, &str)] = &[
    (".lora_A.weight", Role::Down, "PEFT"),
    (".lora_B.weight", Role::Up, "PEFT"),
    (".lora_A.default.weight", Role::Down, "PEFT"),
    (".lora_B.default.weight", Role::Up, "PEFT"),
    (".lora_linear_layer.down.weight", Role::Down, "diffusers"),
    (".lora_linear_layer.up.weight", Role::Up, "diffusers"),
    (".lora.down.weight", Role::Down, "diffusers"),
    (".lora.up.weight", Role::Up, "diffusers"),
    ("_lora.down.weight", Role::Down, "diffusers"),
    ("_lora.up.weight", Role::Up, "diffusers"),
    (".lora_down.weight", Role::Down, "kohya"),
    (".lora_up.weight", Role::Up, "kohya"),
    (".alpha", Role::Alpha, "kohya"),
];

/// Adapters of other kinds, which are refused: a part of the name, and what the kind is called.
const REFUSED: &[(&str, &str)] = &[
    (".dora_scale", "a DoRA"),
    (".lora_magnitude_vector", "a DoRA"),
    (".hada_w", "a LoHa"),
    (".lokr_w", "a LoKr"),
    (".lora_mid.", "a LoCon with a product of three"),
    (".oft_", "an OFT"),
    (".diff", "a full difference of weights"),
];

/// Prefixes of names, and the part of the model that each stands for. A name without a prefix belongs to the network.
const PARTS: &[(&str, &str)] = &[
    ("lora_unet_", "unet"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("lora_te_", "text_encoder"),
    ("unet.", "unet"),
    ("transformer.", "transformer"),
    ("text_encoder_2.", "text_encoder_2"),
    ("text_encoder.", "text_encoder"),
    ("base_model.model.", "unet"),
];

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
    ENDINGS.iter().find_map(|(end, role, kind)| Some((name.strip_suffix(end)?, *role, *kind)))
}

/// The kind of adapter a name belongs to, if it is one that is not supported.
pub(super) fn refused(name: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(sign, _)| name.contains(sign)).map(|(_, kind)| *kind)
}

/// The weight that a layer changes.
pub(super) fn target(module: &str) -> Target {
    let found = PARTS.iter().find_map(|(start, part)| Some((module.strip_prefix(start)?, *part)));
    let (name, part) = found.unwrap_or((module, "unet"));
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

/// What diffusers keeps of PEFT's configuration in a file's metadata: `{"unet.lora_alpha": 8, …}`.
#[derive(Debug, Default)]
pub(super) struct Settings(Map<String, Value>);

impl Settings {
    pub(super) fn read(text: Option<&str>) -> Result<Self, String> {
        let Some(text) = text else { return Ok(Self::default()) };
        let fields: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| format!("has lora_adapter_metadata that is not understood: {error}"))?;
        for (name, value) in &fields {
            let field = name.rsplit('.').next().unwrap_or(name);
            let set = value.as_object().is_some_and(|patterns| !patterns.is_empty()) || *value == Value::Bool(true);
            if set && ["alpha_pattern", "use_dora"].contains(&field) {
                return Err(format!("was trained with {name}, which is not supported"));
            }
        }
        Ok(Self(fields))
    }

    /// alpha / rank, or alpha / √rank where the file says so (Kalajdzievski 2023); 1 where it says nothing.
    pub(super) fn scale(&self, target: &Target, rank: usize) -> f64 {
        let field = |name: &str| self.0.get(&format!("{}.{name}", target.part)).or_else(|| self.0.get(name));
        let Some(alpha) = field("lora_alpha").and_then(Value::as_f64) else { return 1.0 };
        let rank = rank as f64;
        if field("use_rslora") == Some(&Value::Bool(true)) { alpha / rank.sqrt() } else { alpha / rank }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_weight_in_many_spellings() {
        let to_out = "down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_out_0";
        for name in [
            "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0.lora_A.weight",
            "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0.lora.down.weight",
            "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.processor.to_out_lora.down.weight",
            "down_blocks.1.attentions.0.transformer_blocks.0.attn2.processor.to_out_lora.down.weight",
            "base_model.model.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0.lora_A.weight",
            "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_out_0.lora_down.weight",
        ] {
            let (module, role, _) = split(name).expect(name);
            assert_eq!((role, target(module)), (Role::Down, Target { part: "unet", flat: to_out.into() }), "{name}");
        }
        for name in [
            "text_encoder_2.text_model.encoder.layers.3.self_attn.q_proj.lora_B.weight",
            "text_encoder_2.encoder.layers.3.self_attn.q_proj.lora_linear_layer.up.weight",
            "text_encoder_2.text_model.encoder.layers.3.self_attn.to_q_lora.up.weight",
            "lora_te2_text_model_encoder_layers_3_self_attn_q_proj.lora_up.weight",
        ] {
            let (module, role, _) = split(name).expect(name);
            let flat = "encoder_layers_3_self_attn_q_proj".to_owned();
            assert_eq!((role, target(module)), (Role::Up, Target { part: "text_encoder_2", flat }), "{name}");
        }
    }

    #[test]
    fn settings_of_peft() {
        let target = Target { part: "unet", flat: String::new() };
        let scale = |text: &str| Settings::read(Some(text)).map(|settings| settings.scale(&target, 4));
        assert_eq!(Settings::default().scale(&target, 4), 1.0);
        assert_eq!(scale(r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {}, "unet.use_dora": false}"#), Ok(2.0));
        assert_eq!(scale(r#"{"unet.lora_alpha": 8, "unet.use_rslora": true}"#), Ok(4.0));
        assert!(scale(r#"{"unet.alpha_pattern": {"to_q": 2}}"#).is_err_and(|error| error.contains("alpha_pattern")));
    }
}
