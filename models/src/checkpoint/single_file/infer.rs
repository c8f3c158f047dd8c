//! Derives the configurations that a single file lacks from the shapes of its tensors. The family gives the fields that
//! shapes do not determine.

use super::families::{Family, Marks};
use super::renames::Extents;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Shapes of one part's tensors, by the file's names without the part's prefix.
pub(crate) trait Shapes {
    /// A tensor's shape.
    fn shape(&self, name: &str) -> Option<&[usize]>;

    /// One extent of a tensor, if it is there.
    fn extent(&self, name: &str, axis: usize) -> Option<usize> {
        self.shape(name)?.get(axis).copied()
    }

    fn has(&self, name: &str) -> bool {
        self.shape(name).is_some()
    }

    /// The number of consecutive names that exist, starting with number `from`.
    fn count(&self, from: usize, name: impl Fn(usize) -> String) -> usize {
        (from..).take_while(|i| self.has(&name(*i))).count()
    }
}

/// Levels and layers of a part; zero where the file holds no such part.
pub(crate) fn extents(names: &str, file: &impl Shapes) -> Extents {
    match names {
        "unet" => {
            let resnets = file.count(1, |i| format!("input_blocks.{i}.0.in_layers.0.weight"));
            let layers = resnets;
            let m = layers + 1;
            let levels =
                if layers == 0 { 0 } else { 1 + file.count(1, |i| format!("input_blocks.{}.0.op.weight", i * m)) };
            let attention = |b| file.has(&format!("output_blocks.{}.1.proj_in.weight", b * m));
            Extents { levels, layers, attention: (0..levels).map(attention).collect() }
        }
        "vae" => Extents {
            levels: file.count(0, |b| format!("decoder.up.{b}.block.0.conv1.weight")),
            layers: file.count(0, |l| format!("decoder.up.0.block.{l}.conv1.weight")).saturating_sub(1),
            attention: Vec::new(),
        },
        "open_clip" => Extents {
            layers: file.count(0, |l| format!("transformer.resblocks.{l}.ln_1.weight")),
            ..Default::default()
        },
        _ => Extents::default(),
    }
}

/// Levels and layers of a part whose tensors have diffusers' names.
pub(crate) fn diffusers_extents<T>(names: &str, own: &BTreeMap<String, T>) -> Extents {
    let count = |name: &dyn Fn(usize) -> String| (0..).take_while(|i| own.contains_key(&name(*i))).count();
    match names {
        "unet" => {
            let levels = count(&|b| format!("up_blocks.{b}.resnets.0.conv1.weight"));
            let attention = |b| own.contains_key(&format!("up_blocks.{b}.attentions.0.proj_in.weight"));
            Extents {
                levels,
                layers: count(&|l| format!("down_blocks.0.resnets.{l}.conv1.weight")),
                attention: (0..levels).map(attention).collect(),
            }
        }
        "vae" => Extents {
            levels: count(&|b| format!("decoder.up_blocks.{b}.resnets.0.conv1.weight")),
            layers: count(&|k| format!("decoder.up_blocks.0.resnets.{k}.conv1.weight")).saturating_sub(1),
            attention: Vec::new(),
        },
        _ => Extents { layers: count(&|l| format!("encoder.layers.{l}.layer_norm1.weight")), ..Default::default() },
    }
}

/// A part's config.json. The error is the name of a tensor that is needed and missing.
pub(crate) fn config(
    part: &str,
    names: &str,
    file: &impl Shapes,
    extents: &Extents,
    family: &Family,
    marks: &Marks,
) -> Result<Value, String> {
    let mut fields = match names {
        "unet" => unet(file, extents, family)?,
        "vae" => vae(file, extents)?,
        _ => text(part, names, file, extents)?,
    };
    fields.extend(family.fields(part, marks));
    if names == "unet" && !fields.contains_key("addition_embed_type") {
        fields.remove("addition_time_embed_dim");
    }
    Ok(Value::Object(fields))
}

fn need(file: &impl Shapes, name: &str, axis: usize) -> Result<usize, String> {
    file.extent(name, axis).ok_or_else(|| name.to_owned())
}

fn unet(file: &impl Shapes, extents: &Extents, family: &Family) -> Result<Map<String, Value>, String> {
    let (levels, m) = (extents.levels, extents.layers + 1);
    if levels == 0 {
        return Err("input_blocks.1.0.in_layers.0.weight".into());
    }
    let depth = |place: &str| file.count(0, |i| format!("{place}.transformer_blocks.{i}.norm1.weight"));
    let middle = depth("middle_block.1");
    let mut channels = Vec::new();
    // Layers of every transformer on the way down and up, by level.
    let (mut down_depths, mut up_depths) = (Vec::new(), Vec::new());
    for b in 0..levels {
        channels.push(need(file, &format!("input_blocks.{}.0.out_layers.3.weight", 1 + b * m), 0)?);
        let own = (0..extents.layers).map(|l| depth(&format!("input_blocks.{}.1", 1 + b * m + l)));
        down_depths.push(own.collect::<Vec<_>>());
        up_depths.push((0..m).map(|k| depth(&format!("output_blocks.{}.1", b * m + k))).collect::<Vec<_>>());
    }
    let down = (0..levels).map(|b| file.has(&format!("input_blocks.{}.1.proj_in.weight", 1 + b * m)));
    let kinds = |has: bool, with: &str, without: &str| if has { with.to_owned() } else { without.to_owned() };
    let down: Vec<String> = down.map(|has| kinds(has, "CrossAttnDownBlock2D", "DownBlock2D")).collect();
    let up: Vec<String> = extents.attention.iter().map(|has| kinds(*has, "CrossAttnUpBlock2D", "UpBlock2D")).collect();
    // Distilled models have no attention in the middle, or no middle at all.
    let middle_type = match (file.has("middle_block.0.in_layers.0.weight"), middle) {
        (true, 1..) => Some("UNetMidBlock2DCrossAttn"),
        (true, 0) => Some("UNetMidBlock2D"),
        (false, _) => None,
    };
    let inputs = (1..levels * m).map(|i| format!("input_blocks.{i}.1"));
    let attends = |place: &String| file.has(&format!("{place}.proj_in.weight"));
    let attention = ["middle_block.1".to_owned()].into_iter().chain(inputs).find(attends);
    let attention = attention.ok_or("middle_block.1.proj_in.weight")?;
    let proj_in = format!("{attention}.proj_in.weight");
    let projection = file.shape(&proj_in).ok_or(proj_in)?;
    let (depths, reverse) = depths(&down_depths, &up_depths, middle);
    let Value::Object(mut fields) = json!({
        "_class_name": "UNet2DConditionModel", "act_fn": "silu", "attention_head_dim": family.heads(&channels),
        "block_out_channels": channels, "center_input_sample": false,
        "cross_attention_dim": need(file, &format!("{attention}.transformer_blocks.0.attn2.to_k.weight"), 1)?,
        "down_block_types": down, "downsample_padding": 1, "flip_sin_to_cos": true, "freq_shift": 0,
        "in_channels": need(file, "input_blocks.0.0.weight", 1)?, "layers_per_block": extents.layers,
        "mid_block_scale_factor": 1, "norm_eps": 1e-5, "norm_num_groups": 32,
        "out_channels": need(file, "out.2.weight", 0)?, "transformer_layers_per_block": depths,
        "up_block_types": up, "use_linear_projection": projection.len() == 2,
    }) else {
        unreachable!("an object above")
    };
    if middle_type != Some("UNetMidBlock2DCrossAttn") {
        fields.insert("mid_block_type".into(), json!(middle_type));
    }
    if let Some(reverse) = reverse {
        fields.insert("reverse_transformer_layers_per_block".into(), reverse);
    }
    if let Some(classes) = file.extent("label_emb.weight", 0) {
        fields.insert("num_class_embeds".into(), classes.into());
    }
    if let Some(channels) = file.extent("time_embed.cond_proj.weight", 1) {
        fields.insert("time_cond_proj_dim".into(), channels.into());
    }
    if let Some(channels) = file.extent("label_emb.0.0.weight", 1) {
        fields.insert("addition_embed_type".into(), "text_time".into());
        fields.insert("projection_class_embeddings_input_dim".into(), channels.into());
    }
    Ok(fields)
}

/// `transformer_layers_per_block` and, where the way up is no mirror image of the way down, its reverse.
fn depths(down: &[Vec<usize>], up: &[Vec<usize>], middle: usize) -> (Value, Option<Value>) {
    let coarsest = down.len() - 1;
    // The depths that occur in each level; none in one without transformers, which may then have any.
    let found: Vec<BTreeSet<usize>> = (down.iter().zip(up.iter().rev()).enumerate())
        .map(|(b, (down, up))| {
            let middle = (b == coarsest).then_some(middle);
            down.iter().chain(up).copied().chain(middle).filter(|depth| *depth > 0).collect()
        })
        .collect();
    if found.iter().all(|depths| depths.len() <= 1) {
        let all: BTreeSet<usize> = found.iter().flatten().copied().collect();
        if let (1, Some(depth)) = (all.len(), all.first()) {
            return (json!(depth), None);
        }
        let depths: Vec<usize> = found.iter().map(|depths| depths.first().copied().unwrap_or(1)).collect();
        return (json!(depths), None);
    }
    // The middle has as many layers as the coarsest level says, be there transformers or not.
    let of = |all: &Vec<usize>| if all[0] == 0 { json!(middle.max(1)) } else { json!(all) };
    let list = |levels: &[Vec<usize>]| levels.iter().map(of).collect::<Vec<Value>>();
    (list(down).into(), Some(list(up).into()))
}

fn vae(file: &impl Shapes, extents: &Extents) -> Result<Map<String, Value>, String> {
    let levels = extents.levels;
    if levels == 0 {
        return Err("decoder.up.0.block.0.conv1.weight".into());
    }
    let channels = (0..levels).map(|b| need(file, &format!("decoder.up.{b}.block.0.conv1.weight"), 0));
    let channels: Vec<usize> = channels.collect::<Result<_, _>>()?;
    let Value::Object(fields) = json!({
        "_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": channels,
        "down_block_types": vec!["DownEncoderBlock2D"; levels], "up_block_types": vec!["UpDecoderBlock2D"; levels],
        "in_channels": file.extent("encoder.conv_in.weight", 1).unwrap_or(3),
        "latent_channels": need(file, "decoder.conv_in.weight", 1)?, "layers_per_block": extents.layers,
        "mid_block_add_attention": file.has("decoder.mid.attn_1.q.weight"), "norm_num_groups": 32,
        "out_channels": need(file, "decoder.conv_out.weight", 0)?,
        "use_quant_conv": file.has("quant_conv.weight"), "use_post_quant_conv": file.has("post_quant_conv.weight"),
    }) else {
        unreachable!("an object above")
    };
    Ok(fields)
}

fn text(part: &str, names: &str, file: &impl Shapes, extents: &Extents) -> Result<Map<String, Value>, String> {
    let open = names == "open_clip";
    let prefix = if !open && file.has("text_model.embeddings.token_embedding.weight") { "text_model." } else { "" };
    let name = |clip: &str, own: &str| if open { own.to_owned() } else { format!("{prefix}{clip}") };
    let words = name("embeddings.token_embedding.weight", "token_embedding.weight");
    let (vocabulary, width) = (need(file, &words, 0)?, need(file, &words, 1)?);
    let positions = name("embeddings.position_embedding.weight", "positional_embedding");
    let layers =
        if open { extents.layers } else { file.count(0, |l| format!("{prefix}encoder.layers.{l}.layer_norm1.weight")) };
    let first = name("encoder.layers.0.mlp.fc1.weight", "transformer.resblocks.0.mlp.c_fc.weight");
    let projected = part == "text_encoder_2";
    let projection = if projected { need(file, "text_projection", 1)? } else { width };
    let Value::Object(fields) = json!({
        "architectures": [if projected { "CLIPTextModelWithProjection" } else { "CLIPTextModel" }],
        "model_type": "clip_text_model", "vocab_size": vocabulary, "hidden_size": width,
        "intermediate_size": need(file, &first, 0)?, "num_hidden_layers": layers,
        // Every published CLIP has heads of 64 channels.
        "num_attention_heads": (width / 64).max(1), "max_position_embeddings": need(file, &positions, 0)?,
        "hidden_act": if open { "gelu" } else { "quick_gelu" }, "layer_norm_eps": 1e-5, "projection_dim": projection,
        "bos_token_id": vocabulary.saturating_sub(2), "eos_token_id": vocabulary.saturating_sub(1),
        "pad_token_id": if open { 0 } else { vocabulary.saturating_sub(1) },
    }) else {
        unreachable!("an object above")
    };
    Ok(fields)
}
