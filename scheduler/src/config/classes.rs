//! The scheduler classes of diffusers that are read: their fields and each one's own defaults.

use std::fmt;

use self::Default::{Flag, Null, Number, Text};
use crate::error::Error;

/// The default of a field that a file does not have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Default {
    /// Python's None.
    Null,
    Flag(bool),
    Number(f64),
    Text(&'static str),
}

impl fmt::Display for Default {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Null => f.write_str("null"),
            Flag(value) => write!(f, "{value}"),
            Number(value) => write!(f, "{value}"),
            Text(value) => write!(f, "\"{value}\""),
        }
    }
}

/// The rules by which a class's tables are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// A discrete variance-preserving training schedule.
    Discrete,
    /// Karras et al. 2022.
    Edm,
    /// Flow matching.
    Flow,
    /// OpenAI's consistency models.
    Consistency,
    /// score_sde's variance-exploding models.
    Score,
}

/// A scheduler class.
#[derive(Debug, PartialEq)]
pub(super) struct Class {
    pub(super) name: &'static str,
    pub(super) family: Family,
    /// The name of its sampler here.
    pub(super) sampler: &'static str,
    /// ᾱ at the end of a schedule rescaled to zero signal.
    pub(super) zero_snr_floor: f32,
    /// `__init__`'s parameters.
    pub(super) fields: &'static [Fields],
}

impl Class {
    /// The field's default; none if the class has no such field.
    pub(super) fn default(&self, field: &str) -> Option<Default> {
        self.fields.iter().copied().flatten().find(|(name, _)| *name == field).map(|&(_, default)| default)
    }
}

/// The class of a name.
pub(super) fn find(name: &str) -> Result<&'static Class, Error> {
    CLASSES.iter().find(|class| class.name == name).ok_or_else(|| Error::UnknownClass { class: name.to_owned() })
}

/// Whether any class has this field.
pub(super) fn is_known_field(field: &str) -> bool {
    CLASSES.iter().any(|class| class.default(field).is_some()) || RETIRED.contains(&field)
}

/// Fields that older diffusers versions wrote and that have no effect today. `predict_epsilon` = false is handled
/// separately.
const RETIRED: &[&str] = &["predict_epsilon", "tensor_format", "timestep_values", "noise_sampler_seed"];

/// ᾱ of Euler's and the multistep solvers where the schedule ends without signal: the smallest f16 subnormal.
const TWO_TO_MINUS_24: f32 = 1.0 / 16_777_216.0;

/// The other classes keep ᾱ = 0, which is harmless in their variance-preserving frame. Here σ would be infinite; σ =
/// 1e10 differs from that by 1e-10, and its square still fits an f32.
const NEARLY_NOTHING: f32 = 1e-20;

type Fields = &'static [(&'static str, Default)];

/// The training schedule of most classes.
const TRAINING: Fields = &[
    ("num_train_timesteps", Number(1000.0)),
    ("beta_start", Number(0.0001)),
    ("beta_end", Number(0.02)),
    ("beta_schedule", Text("linear")),
    ("trained_betas", Null),
    ("prediction_type", Text("epsilon")),
];
/// The training schedule of the classes that came from k-diffusion.
const TRAINING_0012: Fields = &[
    ("num_train_timesteps", Number(1000.0)),
    ("beta_start", Number(0.00085)),
    ("beta_end", Number(0.012)),
    ("beta_schedule", Text("linear")),
    ("trained_betas", Null),
    ("prediction_type", Text("epsilon")),
];
/// The training schedule of latent consistency models.
const DISTILLED: Fields = &[
    ("num_train_timesteps", Number(1000.0)),
    ("beta_start", Number(0.00085)),
    ("beta_end", Number(0.012)),
    ("beta_schedule", Text("scaled_linear")),
    ("trained_betas", Null),
    ("prediction_type", Text("epsilon")),
    ("original_inference_steps", Number(50.0)),
    ("timestep_scaling", Number(10.0)),
    ("set_alpha_to_one", Flag(true)),
];
const LINSPACE: Fields = &[("timestep_spacing", Text("linspace")), ("steps_offset", Number(0.0))];
const LEADING: Fields = &[("timestep_spacing", Text("leading")), ("steps_offset", Number(0.0))];
const CONVERSIONS: Fields =
    &[("use_karras_sigmas", Flag(false)), ("use_exponential_sigmas", Flag(false)), ("use_beta_sigmas", Flag(false))];
const THRESHOLDING: Fields =
    &[("thresholding", Flag(false)), ("dynamic_thresholding_ratio", Number(0.995)), ("sample_max_value", Number(1.0))];
const CLIPPING: Fields = &[("clip_sample", Flag(true)), ("clip_sample_range", Number(1.0))];
const NO_CLIPPING: Fields = &[("clip_sample", Flag(false)), ("clip_sample_range", Number(1.0))];
const FLOW_SIGMAS: Fields = &[("use_flow_sigmas", Flag(false)), ("flow_shift", Number(1.0))];
const SHIFTING: Fields = &[("use_dynamic_shifting", Flag(false)), ("time_shift_type", Text("exponential"))];
const DDIM: &[Fields] = &[
    TRAINING,
    LEADING,
    THRESHOLDING,
    CLIPPING,
    &[("set_alpha_to_one", Flag(true)), ("rescale_betas_zero_snr", Flag(false))],
];
const DDPM: &[Fields] = &[
    TRAINING,
    LEADING,
    THRESHOLDING,
    CLIPPING,
    &[("variance_type", Text("fixed_small")), ("rescale_betas_zero_snr", Flag(false))],
];
const FLOW_MATCH: Fields = &[
    ("num_train_timesteps", Number(1000.0)),
    ("shift", Number(1.0)),
    ("base_shift", Number(0.5)),
    ("max_shift", Number(1.15)),
    ("base_image_seq_len", Number(256.0)),
    ("max_image_seq_len", Number(4096.0)),
    ("invert_sigmas", Flag(false)),
    ("shift_terminal", Null),
];
/// Karras et al. 2022.
const EDM: Fields = &[
    ("sigma_min", Number(0.002)),
    ("sigma_max", Number(80.0)),
    ("sigma_data", Number(0.5)),
    ("sigma_schedule", Text("karras")),
    ("num_train_timesteps", Number(1000.0)),
    ("prediction_type", Text("epsilon")),
    ("rho", Number(7.0)),
];

static CLASSES: &[Class] = &[
    Class {
        name: "DDIMScheduler",
        family: Family::Discrete,
        sampler: "ddim",
        zero_snr_floor: NEARLY_NOTHING,
        fields: DDIM,
    },
    Class {
        name: "DDIMParallelScheduler",
        family: Family::Discrete,
        sampler: "ddim",
        zero_snr_floor: NEARLY_NOTHING,
        fields: DDIM,
    },
    Class {
        name: "DDIMInverseScheduler",
        family: Family::Discrete,
        sampler: "ddim_inverse",
        zero_snr_floor: NEARLY_NOTHING,
        fields: &[
            TRAINING,
            LEADING,
            CLIPPING,
            &[("set_alpha_to_one", Flag(true)), ("rescale_betas_zero_snr", Flag(false))],
        ],
    },
    Class {
        name: "DDPMScheduler",
        family: Family::Discrete,
        sampler: "ddpm",
        zero_snr_floor: NEARLY_NOTHING,
        fields: DDPM,
    },
    Class {
        name: "DDPMParallelScheduler",
        family: Family::Discrete,
        sampler: "ddpm",
        zero_snr_floor: NEARLY_NOTHING,
        fields: DDPM,
    },
    Class {
        name: "RePaintScheduler",
        family: Family::Discrete,
        sampler: "repaint",
        zero_snr_floor: NEARLY_NOTHING,
        // diffusers' has no prediction_type and takes every network's output for noise.
        fields: &[TRAINING, &[("eta", Number(0.0)), ("clip_sample", Flag(true))]],
    },
    Class {
        name: "PNDMScheduler",
        family: Family::Discrete,
        sampler: "pndm",
        zero_snr_floor: NEARLY_NOTHING,
        fields: &[TRAINING, LEADING, &[("skip_prk_steps", Flag(false)), ("set_alpha_to_one", Flag(false))]],
    },
    Class {
        name: "EulerDiscreteScheduler",
        family: Family::Discrete,
        sampler: "euler",
        zero_snr_floor: TWO_TO_MINUS_24,
        fields: &[
            TRAINING,
            LINSPACE,
            CONVERSIONS,
            &[
                ("interpolation_type", Text("linear")),
                ("sigma_min", Null),
                ("sigma_max", Null),
                ("timestep_type", Text("discrete")),
                ("rescale_betas_zero_snr", Flag(false)),
                ("final_sigmas_type", Text("zero")),
            ],
        ],
    },
    Class {
        name: "EulerAncestralDiscreteScheduler",
        family: Family::Discrete,
        sampler: "euler_ancestral",
        zero_snr_floor: TWO_TO_MINUS_24,
        fields: &[TRAINING, LINSPACE, &[("rescale_betas_zero_snr", Flag(false))]],
    },
    Class {
        name: "HeunDiscreteScheduler",
        family: Family::Discrete,
        sampler: "heun",
        zero_snr_floor: NEARLY_NOTHING,
        fields: &[TRAINING_0012, LINSPACE, CONVERSIONS, NO_CLIPPING],
    },
    Class {
        name: "KDPM2DiscreteScheduler",
        family: Family::Discrete,
        sampler: "dpm_2",
        zero_snr_floor: NEARLY_NOTHING,
        fields: &[TRAINING_0012, LINSPACE, CONVERSIONS],
    },
    Class {
        name: "KDPM2AncestralDiscreteScheduler",
        family: Family::Discrete,
        sampler: "dpm_2_ancestral",
        zero_snr_floor: NEARLY_NOTHING,
        fields: &[TRAINING_0012, LINSPACE, CONVERSIONS],
    },
    Class {
        name: "LMSDiscreteScheduler",
        family: Family::Discrete,
        sampler: "lms",
        zero_snr_floor: NEARLY_NOTHING,
        fields: &[TRAINING, LINSPACE, CONVERSIONS],
    },
    Class {
        name: "DPMSolverMultistepScheduler",
        family: Family::Discrete,
        sampler: "dpmpp_2m",
        zero_snr_floor: TWO_TO_MINUS_24,
        fields: &[
            TRAINING,
            LINSPACE,
            CONVERSIONS,
            THRESHOLDING,
            FLOW_SIGMAS,
            SHIFTING,
            &[
                ("solver_order", Number(2.0)),
                ("algorithm_type", Text("dpmsolver++")),
                ("solver_type", Text("midpoint")),
                ("lower_order_final", Flag(true)),
                ("euler_at_final", Flag(false)),
                ("use_lu_lambdas", Flag(false)),
                ("final_sigmas_type", Text("zero")),
                ("lambda_min_clipped", Number(f64::NEG_INFINITY)),
                ("variance_type", Null),
                ("rescale_betas_zero_snr", Flag(false)),
            ],
        ],
    },
    Class {
        name: "DPMSolverSinglestepScheduler",
        family: Family::Discrete,
        sampler: "dpmpp_2s",
        zero_snr_floor: NEARLY_NOTHING,
        fields: &[
            TRAINING,
            CONVERSIONS,
            THRESHOLDING,
            FLOW_SIGMAS,
            SHIFTING,
            &[
                ("solver_order", Number(2.0)),
                ("algorithm_type", Text("dpmsolver++")),
                ("solver_type", Text("midpoint")),
                ("lower_order_final", Flag(false)),
                ("final_sigmas_type", Text("zero")),
                ("lambda_min_clipped", Number(f64::NEG_INFINITY)),
                ("variance_type", Null),
            ],
        ],
    },
    Class {
        name: "DPMSolverSDEScheduler",
        family: Family::Discrete,
        sampler: "dpmpp_sde",
        zero_snr_floor: NEARLY_NOTHING,
        fields: &[TRAINING_0012, LINSPACE, CONVERSIONS, &[("noise_sampler_seed", Null)]],
    },
    Class {
        name: "UniPCMultistepScheduler",
        family: Family::Discrete,
        sampler: "unipc",
        zero_snr_floor: TWO_TO_MINUS_24,
        fields: &[
            TRAINING,
            LINSPACE,
            CONVERSIONS,
            THRESHOLDING,
            FLOW_SIGMAS,
            SHIFTING,
            &[
                ("solver_order", Number(2.0)),
                ("predict_x0", Flag(true)),
                ("solver_type", Text("bh2")),
                ("lower_order_final", Flag(true)),
                ("disable_corrector", Null),
                ("solver_p", Null),
                ("final_sigmas_type", Text("zero")),
                ("rescale_betas_zero_snr", Flag(false)),
                ("sigma_min", Null),
                ("sigma_max", Null),
                ("shift_terminal", Null),
            ],
        ],
    },
    Class {
        name: "DEISMultistepScheduler",
        family: Family::Discrete,
        sampler: "deis",
        zero_snr_floor: NEARLY_NOTHING,
        fields: &[
            TRAINING,
            LINSPACE,
            CONVERSIONS,
            THRESHOLDING,
            FLOW_SIGMAS,
            SHIFTING,
            &[
                ("solver_order", Number(2.0)),
                ("algorithm_type", Text("deis")),
                ("solver_type", Text("logrho")),
                ("lower_order_final", Flag(true)),
            ],
        ],
    },
    Class {
        name: "SASolverScheduler",
        family: Family::Discrete,
        sampler: "sa_solver",
        zero_snr_floor: NEARLY_NOTHING,
        fields: &[
            TRAINING,
            LINSPACE,
            CONVERSIONS,
            THRESHOLDING,
            FLOW_SIGMAS,
            &[
                ("predictor_order", Number(2.0)),
                ("corrector_order", Number(2.0)),
                ("tau_func", Null),
                ("algorithm_type", Text("data_prediction")),
                ("lower_order_final", Flag(true)),
                ("lambda_min_clipped", Number(f64::NEG_INFINITY)),
                ("variance_type", Null),
            ],
        ],
    },
    Class {
        name: "LCMScheduler",
        family: Family::Discrete,
        sampler: "lcm",
        zero_snr_floor: NEARLY_NOTHING,
        fields: &[DISTILLED, LEADING, THRESHOLDING, NO_CLIPPING, &[("rescale_betas_zero_snr", Flag(false))]],
    },
    Class {
        name: "TCDScheduler",
        family: Family::Discrete,
        sampler: "tcd",
        zero_snr_floor: NEARLY_NOTHING,
        fields: &[DISTILLED, LEADING, THRESHOLDING, NO_CLIPPING, &[("rescale_betas_zero_snr", Flag(false))]],
    },
    Class {
        name: "EDMEulerScheduler",
        family: Family::Edm,
        sampler: "euler",
        zero_snr_floor: NEARLY_NOTHING,
        fields: &[EDM, &[("final_sigmas_type", Text("zero"))]],
    },
    Class {
        name: "EDMDPMSolverMultistepScheduler",
        family: Family::Edm,
        sampler: "dpmpp_2m",
        zero_snr_floor: NEARLY_NOTHING,
        fields: &[
            THRESHOLDING,
            EDM,
            &[
                ("solver_order", Number(2.0)),
                ("algorithm_type", Text("dpmsolver++")),
                ("solver_type", Text("midpoint")),
                ("lower_order_final", Flag(true)),
                ("euler_at_final", Flag(false)),
                ("final_sigmas_type", Text("zero")),
            ],
        ],
    },
    Class {
        name: "FlowMatchEulerDiscreteScheduler",
        family: Family::Flow,
        sampler: "euler",
        zero_snr_floor: NEARLY_NOTHING,
        fields: &[CONVERSIONS, SHIFTING, FLOW_MATCH, &[("stochastic_sampling", Flag(false))]],
    },
    Class {
        name: "FlowMatchLCMScheduler",
        family: Family::Flow,
        sampler: "lcm",
        zero_snr_floor: NEARLY_NOTHING,
        fields: &[CONVERSIONS, SHIFTING, FLOW_MATCH, &[("scale_factors", Null), ("upscale_mode", Text("bicubic"))]],
    },
    Class {
        name: "FlowMatchHeunDiscreteScheduler",
        family: Family::Flow,
        sampler: "heun",
        zero_snr_floor: NEARLY_NOTHING,
        fields: &[&[("num_train_timesteps", Number(1000.0)), ("shift", Number(1.0))]],
    },
    Class {
        name: "CMStochasticIterativeScheduler",
        family: Family::Consistency,
        sampler: "consistency",
        zero_snr_floor: NEARLY_NOTHING,
        fields: &[&[
            ("num_train_timesteps", Number(40.0)),
            ("sigma_min", Number(0.002)),
            ("sigma_max", Number(80.0)),
            ("sigma_data", Number(0.5)),
            ("s_noise", Number(1.0)),
            ("rho", Number(7.0)),
            ("clip_denoised", Flag(true)),
        ]],
    },
    Class {
        name: "ScoreSdeVeScheduler",
        family: Family::Score,
        sampler: "predictor_corrector",
        zero_snr_floor: NEARLY_NOTHING,
        fields: &[&[
            ("num_train_timesteps", Number(2000.0)),
            ("snr", Number(0.15)),
            ("sigma_min", Number(0.01)),
            ("sigma_max", Number(1348.0)),
            ("sampling_eps", Number(1e-5)),
            ("correct_steps", Number(1.0)),
        ]],
    },
];
