//! The model families that single files may belong to, from `families.json`.

use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// One family: where its parts lie in the file, and the fields that shapes do not determine.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Family {
    pub(crate) name: String,
    pub(crate) title: String,
    /// A prefix of names that only this family has.
    pub(crate) sign: String,
    pub(crate) parts: BTreeMap<String, Part>,
    heads: Heads,
    unet: Map<String, Value>,
    vae: Map<String, Value>,
    scheduler: Map<String, Value>,
    /// Fields of the scheduler's configuration that change when the model predicts velocities. Null removes a field.
    velocity: Map<String, Value>,
    /// Side of the latents of models that predict velocities, where it differs.
    velocity_size: Option<usize>,
    index: Map<String, Value>,
    pub(crate) pad: BTreeMap<String, String>,
}

/// Where a part lies in the file, and which section of the renames its names are in.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Part {
    pub(crate) prefix: String,
    pub(crate) names: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Heads {
    /// The number of heads at every level.
    Number(usize),
    /// The number of channels in each head.
    Channels(usize),
}

/// Architectures that are not supported but recognised, so that the error can name them: a part of a tensor's name, and
/// the architecture.
pub(crate) const OTHERS: &[(&str, &str)] = &[
    ("conditioner.embedders.0.model.", "a refiner of Stable Diffusion XL"),
    ("joint_blocks.", "Stable Diffusion 3"),
    ("double_blocks.", "Flux"),
    ("control_model.", "a ControlNet"),
    ("lora_down.weight", "a LoRA, which is added to a model and is none itself"),
    ("lora_A.weight", "a LoRA, which is added to a model and is none itself"),
    (".lora.down.weight", "a LoRA, which is added to a model and is none itself"),
];

/// Tensors that are not part of any model: schedules, averages and marks of training.
pub(crate) const IGNORED: &[&str] = &[
    "model_ema.",
    "alphas_cumprod",
    "betas",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "posterior_",
    "lvlb_weights",
    "logvar",
    "denoiser.",
    "global_step",
    "first_stage_model.loss.",
    "first_stage_model.model_ema.",
    "loss.",
    "cond_stage_model.model.logit_scale",
    "cond_stage_model.model.attn_mask",
    "cond_stage_model.logit_scale",
    "conditioner.embedders.1.model.logit_scale",
    "conditioner.embedders.1.model.attn_mask",
    "v_pred",
    "ztsnr",
];

/// Configurations that depend on whether the model predicts velocities.
pub(crate) struct Sampling {
    /// scheduler_config.json
    pub(crate) scheduler: Value,
    /// model_index.json
    pub(crate) index: Value,
    /// Side of the latents, if it is not the usual one.
    pub(crate) sample_size: Option<usize>,
}

impl Family {
    pub(crate) fn all() -> Vec<Self> {
        serde_json::from_str(include_str!("families.json")).expect("the table of families is well-formed")
    }

    /// Published fields of a part's configuration.
    pub(crate) fn fields(&self, part: &str) -> Option<&Map<String, Value>> {
        match part {
            "unet" => Some(&self.unet),
            "vae" => Some(&self.vae),
            _ => None,
        }
    }

    /// The UNet's heads, in the field that diffusers calls `attention_head_dim`.
    pub(crate) fn heads(&self, channels: &[usize]) -> Value {
        match self.heads {
            Heads::Number(number) => number.into(),
            Heads::Channels(each) => channels.iter().map(|all| (all / each).max(1)).collect::<Vec<_>>().into(),
        }
    }

    /// The files that depend on what the model predicts.
    pub(crate) fn sampling(&self, velocity: bool) -> Sampling {
        let (mut scheduler, mut index) = (self.scheduler.clone(), self.index.clone());
        if velocity {
            scheduler.insert("prediction_type".into(), "v_prediction".into());
            for (field, value) in &self.velocity {
                if value.is_null() {
                    scheduler.shift_remove(field)
                } else {
                    scheduler.insert(field.clone(), value.clone())
                };
            }
            index["scheduler"][1] = scheduler["_class_name"].clone();
        }
        let sample_size = self.velocity_size.filter(|_| velocity);
        Sampling { scheduler: scheduler.into(), index: index.into(), sample_size }
    }
}
