//! The model families that single files may belong to, from `families.json`.

use crate::checkpoint::tensor_names::has_sign;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// One family: where its parts lie in the file, and the fields that shapes do not determine. The first family whose sign a file has
/// is its own.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Family {
    pub(crate) name: String,
    pub(crate) title: String,
    /// A name that only this family has, or the beginning of one, which then ends with a dot.
    pub(crate) sign: String,
    /// Channels of the text that the UNet reads, which tell the family of a UNet alone. No two families have the same, but for those that
    /// have another sign in their UNet.
    pub(crate) text: usize,
    pub(crate) parts: BTreeMap<String, Part>,
    heads: Heads,
    unet: Map<String, Value>,
    vae: Map<String, Value>,
    scheduler: Map<String, Value>,
    /// Fields of the scheduler's configuration that change when the model predicts velocities. Null removes a field.
    velocity: Map<String, Value>,
    /// The same when the schedule ends without any signal.
    zero_snr: Map<String, Value>,
    /// Side of the latents of models that predict velocities, where it differs.
    velocity_size: Option<usize>,
    index: Map<String, Value>,
    /// Further configurations by their path in diffusers' layout.
    #[serde(default)]
    pub(crate) files: BTreeMap<String, Value>,
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

/// What is before the names of a UNet's tensors, by the programs that write them: a whole checkpoint's, ComfyUI's, and none.
pub(crate) const UNETS: &[&str] = &["model.diffusion_model.", "diffusion_model.", ""];

/// Architectures that are not supported but recognised, so that the error can name them: the first part of a network's names, and
/// the architecture.
pub(crate) const OTHERS: &[(&str, &str)] = &[("joint_blocks.", "Stable Diffusion 3"), ("double_blocks.", "Flux")];

/// Tensors that are not part of any model: schedules, averages and marks of training. Names, or beginnings of names that end with a dot.
const IGNORED: &[&str] = &[
    "model_ema.",
    "low_scale_model.",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "betas",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
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
    "conditioner.embedders.0.model.logit_scale",
    "conditioner.embedders.0.model.attn_mask",
    "conditioner.embedders.1.model.logit_scale",
    "conditioner.embedders.1.model.attn_mask",
    "v_pred",
    "ztsnr",
    "edm_vpred.",
    "edm_mean",
    "edm_std",
];

/// Whether a tensor is part of no model.
pub(crate) fn is_ignored(name: &str) -> bool {
    IGNORED.iter().any(|sign| has_sign(name, sign))
}

/// What a file's marks say about how it was trained.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks {
    /// The network predicts velocities.
    pub(crate) velocity: bool,
    /// The schedule ends without any signal.
    pub(crate) zero_snr: bool,
    /// The smallest and the largest noise level of CosXL's training, which is EDM's with velocities.
    pub(crate) cos: Option<[f32; 2]>,
    /// Mean and deviation of the latents of Playground v2.5, whose training is EDM's.
    pub(crate) latents: Option<[Vec<f32>; 2]>,
}

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

    /// The family of a name.
    pub(crate) fn named(name: &str) -> Self {
        Self::all().into_iter().find(|family| family.name == name).expect("a family of the table")
    }

    /// Whether the text encoder is OpenCLIP without its last layer, whose output is not read.
    pub(crate) fn leaves_out_a_layer(&self, part: &str) -> bool {
        part == "text_encoder" && self.parts.get(part).is_some_and(|place| place.names == "open_clip")
    }

    /// Published fields of a part's configuration.
    pub(crate) fn fields(&self, part: &str, marks: &Marks) -> Map<String, Value> {
        match part {
            "unet" => self.unet.clone(),
            "vae" => self.vae(marks),
            _ => Map::new(),
        }
    }

    /// The UNet's heads, in the field that diffusers calls `attention_head_dim`.
    pub(crate) fn heads(&self, channels: &[usize]) -> Value {
        match self.heads {
            Heads::Number(number) => number.into(),
            Heads::Channels(each) => channels.iter().map(|all| (all / each).max(1)).collect::<Vec<_>>().into(),
        }
    }

    /// The files that depend on how the model was trained.
    pub(crate) fn sampling(&self, marks: &Marks) -> Sampling {
        let (mut scheduler, mut index) = (self.scheduler.clone(), self.index.clone());
        let mut change = |fields: &Map<String, Value>| {
            for (field, value) in fields {
                if value.is_null() {
                    scheduler.shift_remove(field)
                } else {
                    scheduler.insert(field.clone(), value.clone())
                };
            }
        };
        if marks.velocity {
            change(&Map::from_iter([("prediction_type".to_owned(), "v_prediction".into())]));
            change(&self.velocity);
        }
        if marks.zero_snr {
            change(&self.zero_snr);
        }
        let sample_size = self.velocity_size.filter(|_| marks.velocity);
        let mut scheduler = Value::from(scheduler);
        if let Some([sigma_min, sigma_max]) = marks.cos {
            scheduler = json!({
                "_class_name": "EDMEulerScheduler", "num_train_timesteps": 1000, "prediction_type": "v_prediction",
                "sigma_data": 1.0, "sigma_max": decimal(sigma_max), "sigma_min": decimal(sigma_min),
                "sigma_schedule": "exponential"
            });
        } else if marks.latents.is_some() {
            scheduler = json!({
                "_class_name": "EDMDPMSolverMultistepScheduler", "algorithm_type": "dpmsolver++",
                "final_sigmas_type": "zero", "lower_order_final": true, "num_train_timesteps": 1000,
                "prediction_type": "epsilon", "rho": 7.0, "sigma_data": 0.5, "sigma_max": 80.0, "sigma_min": 0.002,
                "solver_order": 2, "solver_type": "midpoint"
            });
        }
        index["scheduler"][1] = scheduler["_class_name"].clone();
        Sampling { scheduler, index: index.into(), sample_size }
    }

    /// Fields of the autoencoder's configuration that shapes do not determine.
    fn vae(&self, marks: &Marks) -> Map<String, Value> {
        let mut fields = self.vae.clone();
        if let Some([mean, std]) = &marks.latents {
            let decimals = |values: &[f32]| values.iter().map(|v| Value::from(decimal(*v))).collect::<Vec<_>>();
            fields.insert("latents_mean".into(), decimals(mean).into());
            fields.insert("latents_std".into(), decimals(std).into());
            fields.insert("scaling_factor".into(), 0.5.into());
        }
        fields
    }
}

/// The scheduler of latent consistency models (Luo et al. 2023), as diffusers publishes it.
pub(crate) fn consistency_scheduler() -> Value {
    json!({
        "_class_name": "LCMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
        "clip_sample": false, "num_train_timesteps": 1000, "original_inference_steps": 50, "prediction_type": "epsilon",
        "set_alpha_to_one": true, "steps_offset": 0, "thresholding": false, "timestep_spacing": "leading",
        "trained_betas": null
    })
}

/// The number that a person would have written.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| value.into())
}
