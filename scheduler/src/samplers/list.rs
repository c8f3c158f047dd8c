//! The one list of samplers: command line, documentation and tests follow from it.

use super::Emit::{self, Adaptive, Fixed};
use super::{
    Aliases, Sampler, cfg_pp, consistency, ddim, ddpm, deis, dpm_2, dpm_adaptive, dpm_fast, dpmpp_2m, dpmpp_2m_sde,
    dpmpp_2s, dpmpp_2s_ancestral, dpmpp_sde, er_sde, euler, euler_ancestral, gradient_estimation, heun, inverse, ipndm,
    ipndm_v, langevin, lcm, lms, pndm, repaint, res_multistep, reverse_sde, rk45, sa_solver, tcd, unipc,
};

const EDM: &str =
    "Karras et al. 2022, Elucidating the Design Space of Diffusion-Based Generative Models, arXiv:2206.00364";
const DPM: &str = "Lu et al. 2022, DPM-Solver, arXiv:2206.00927";
const SDE: &str =
    "Song et al. 2021, Score-Based Generative Modeling through Stochastic Differential Equations, arXiv:2011.13456";
const DPMPP: &str = "Lu et al. 2022, DPM-Solver++, arXiv:2211.01095";
const KD: &str = "Crowson 2022, k-diffusion";
const DDIM: &str = "Song et al. 2021, Denoising Diffusion Implicit Models, arXiv:2010.02502";
const CM: &str = "Song et al. 2023, Consistency Models, arXiv:2303.01469";
const CFG_PP: &str = "Chung et al. 2024, CFG++: Manifold-constrained Classifier Free Guidance, arXiv:2406.08070";
const EXPONENTIAL: &str =
    "Zhang & Chen 2023, Fast Sampling of Diffusion Models with Exponential Integrator, arXiv:2204.13902";
const RES: &str = "Zhang et al. 2023, Improved Order Analysis and Design of Exponential Integrator for Diffusion Models Sampling, arXiv:2308.02157";
const GE: &str = "Permenter & Yuan 2024, Interpreting and Improving Diffusion Models from an Optimization Perspective, arXiv:2306.04848";
const UNIPC: &str = "Zhao et al. 2023, UniPC, arXiv:2302.04867";

const NONE: Aliases = Aliases { diffusers: &[], comfyui: &[], a1111: &[], sdcpp: &[], other: &[] };

/// A sampler of the probability-flow ODE: no noise but the first.
const fn ode(
    name: &'static str,
    summary: &'static str,
    order: u32,
    evaluations: u32,
    paper: &'static str,
    emit: Emit,
) -> Sampler {
    Sampler {
        name,
        aliases: NONE,
        summary,
        order,
        stochastic: false,
        evaluations,
        eta: None,
        class: None,
        paper,
        inverts: false,
        constrains: false,
        emit,
    }
}

/// A sampler that draws noise on the way, with a share of noise that can be set.
const fn sde(
    name: &'static str,
    summary: &'static str,
    order: u32,
    evaluations: u32,
    paper: &'static str,
    emit: Emit,
) -> Sampler {
    Sampler { eta: Some(1.0), ..noisy(name, summary, order, evaluations, paper, emit) }
}

/// A sampler that draws noise on the way, with an amount fixed by its method.
const fn noisy(
    name: &'static str,
    summary: &'static str,
    order: u32,
    evaluations: u32,
    paper: &'static str,
    emit: Emit,
) -> Sampler {
    Sampler { stochastic: true, ..ode(name, summary, order, evaluations, paper, emit) }
}

/// Every sampler. To add one: a file beside this one, its `mod` in mod.rs, an entry here.
pub static SAMPLERS: &[&Sampler] = &[
    &Sampler {
        class: Some("EulerDiscreteScheduler"),
        aliases: Aliases {
            diffusers: &["EulerDiscreteScheduler", "EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler"],
            comfyui: &["euler"],
            a1111: &["Euler"],
            sdcpp: &["euler"],
            other: &["flow_euler", "k_euler"],
        },
        ..ode("euler", "Euler's method on the probability-flow ODE", 1, 1, EDM, Fixed(euler::euler))
    },
    &Sampler {
        class: Some("EulerAncestralDiscreteScheduler"),
        aliases: Aliases {
            diffusers: &["EulerAncestralDiscreteScheduler"],
            comfyui: &["euler_ancestral"],
            a1111: &["Euler a"],
            sdcpp: &["euler_a"],
            other: &["k_euler_ancestral", "k_euler_a"],
        },
        ..sde(
            "euler_ancestral",
            "Euler's method with fresh noise in every step",
            1,
            1,
            EDM,
            Fixed(euler_ancestral::euler_ancestral),
        )
    },
    &Sampler {
        class: Some("HeunDiscreteScheduler"),
        aliases: Aliases {
            diffusers: &["HeunDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"],
            comfyui: &["heun"],
            a1111: &["Heun"],
            sdcpp: &["heun"],
            other: &["flow_heun", "k_heun"],
        },
        ..ode("heun", "Heun's second-order method", 2, 2, EDM, Fixed(heun::heun))
    },
    &Sampler {
        class: Some("KDPM2DiscreteScheduler"),
        aliases: Aliases {
            diffusers: &["KDPM2DiscreteScheduler"],
            comfyui: &["dpm_2"],
            a1111: &["DPM2"],
            sdcpp: &["dpm2"],
            other: &["k_dpm_2"],
        },
        ..ode("dpm_2", "midpoint method in the logarithm of sigma", 2, 2, DPM, Fixed(dpm_2::dpm_2))
    },
    &Sampler {
        class: Some("KDPM2AncestralDiscreteScheduler"),
        aliases: Aliases {
            diffusers: &["KDPM2AncestralDiscreteScheduler"],
            comfyui: &["dpm_2_ancestral"],
            a1111: &["DPM2 a"],
            other: &["k_dpm_2_ancestral", "k_dpm_2_a"],
            ..NONE
        },
        ..sde("dpm_2_ancestral", "dpm_2 with fresh noise in every step", 2, 2, DPM, Fixed(dpm_2::dpm_2_ancestral))
    },
    &Sampler {
        class: Some("LMSDiscreteScheduler"),
        aliases: Aliases {
            diffusers: &["LMSDiscreteScheduler"],
            comfyui: &["lms"],
            a1111: &["LMS"],
            other: &["k_lms"],
            ..NONE
        },
        ..ode("lms", "linear multistep, four steps", 4, 1, KD, Fixed(lms::lms))
    },
    &Sampler {
        class: Some("DPMSolverMultistepScheduler"),
        aliases: Aliases {
            diffusers: &["DPMSolverMultistepScheduler", "EDMDPMSolverMultistepScheduler"],
            comfyui: &["dpmpp_2m"],
            a1111: &["DPM++ 2M"],
            sdcpp: &["dpm++2m"],
            other: &["k_dpmpp_2m"],
        },
        ..ode("dpmpp_2m", "DPM-Solver++, two-step", 2, 1, DPMPP, Fixed(dpmpp_2m::dpmpp_2m))
    },
    &Sampler {
        class: Some("DPMSolverMultistepScheduler"),
        aliases: Aliases {
            comfyui: &["dpmpp_2m_sde", "dpmpp_2m_sde_gpu"],
            a1111: &["DPM++ 2M SDE"],
            other: &["k_dpmpp_2m_sde"],
            ..NONE
        },
        ..sde(
            "dpmpp_2m_sde",
            "DPM-Solver++, two-step, of the reverse SDE",
            2,
            1,
            DPMPP,
            Fixed(dpmpp_2m_sde::dpmpp_2m_sde),
        )
    },
    &Sampler {
        class: Some("DPMSolverMultistepScheduler"),
        aliases: Aliases {
            comfyui: &["dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu"],
            a1111: &["DPM++ 2M SDE Heun"],
            ..NONE
        },
        ..sde(
            "dpmpp_2m_sde_heun",
            "dpmpp_2m_sde with its linear part integrated exactly",
            2,
            1,
            DPMPP,
            Fixed(dpmpp_2m_sde::dpmpp_2m_sde_heun),
        )
    },
    &Sampler {
        aliases: Aliases {
            comfyui: &["dpmpp_3m_sde", "dpmpp_3m_sde_gpu"],
            a1111: &["DPM++ 3M SDE"],
            other: &["k_dpmpp_3m_sde"],
            ..NONE
        },
        ..sde(
            "dpmpp_3m_sde",
            "DPM-Solver++, three-step, of the reverse SDE",
            2,
            1,
            KD,
            Fixed(dpmpp_2m_sde::dpmpp_3m_sde),
        )
    },
    &Sampler {
        aliases: Aliases {
            comfyui: &["dpmpp_2s_ancestral"],
            a1111: &["DPM++ 2S a"],
            sdcpp: &["dpm++2s_a"],
            other: &["dpmpp_2s_a", "k_dpmpp_2s_a"],
            ..NONE
        },
        ..sde(
            "dpmpp_2s_ancestral",
            "DPM-Solver++, one-step, with fresh noise in every step",
            2,
            2,
            DPMPP,
            Fixed(dpmpp_2s_ancestral::dpmpp_2s_ancestral),
        )
    },
    &Sampler {
        class: Some("DPMSolverSinglestepScheduler"),
        aliases: Aliases { diffusers: &["DPMSolverSinglestepScheduler"], other: &["DPM++ 2S"], ..NONE },
        ..ode(
            "dpmpp_2s",
            "DPM-Solver++, one-step, over two of the schedule's sigmas at a time",
            2,
            1,
            DPMPP,
            Fixed(dpmpp_2s::dpmpp_2s),
        )
    },
    &Sampler {
        class: Some("DPMSolverSDEScheduler"),
        aliases: Aliases {
            diffusers: &["DPMSolverSDEScheduler"],
            comfyui: &["dpmpp_sde", "dpmpp_sde_gpu"],
            a1111: &["DPM++ SDE"],
            other: &["k_dpmpp_sde"],
            ..NONE
        },
        ..sde("dpmpp_sde", "DPM-Solver++, one-step, of the reverse SDE", 2, 2, DPMPP, Fixed(dpmpp_sde::dpmpp_sde))
    },
    &Sampler {
        class: Some("DDIMScheduler"),
        aliases: Aliases {
            diffusers: &["DDIMScheduler", "DDIMParallelScheduler"],
            comfyui: &["ddim"],
            a1111: &["DDIM"],
            sdcpp: &["ddim_trailing"],
            ..NONE
        },
        eta: Some(0.0),
        ..ode("ddim", "denoising diffusion implicit model", 1, 1, DDIM, Fixed(ddim::ddim))
    },
    &Sampler {
        class: Some("DDPMScheduler"),
        aliases: Aliases {
            diffusers: &["DDPMScheduler", "DDPMParallelScheduler"],
            comfyui: &["ddpm"],
            other: &["ancestral_sampling"],
            ..NONE
        },
        ..noisy(
            "ddpm",
            "ancestral sampling of the diffusion model",
            1,
            1,
            "Ho et al. 2020, Denoising Diffusion Probabilistic Models, arXiv:2006.11239",
            Fixed(ddpm::ddpm),
        )
    },
    &Sampler {
        class: Some("RePaintScheduler"),
        constrains: true,
        aliases: Aliases { diffusers: &["RePaintScheduler"], ..NONE },
        eta: Some(0.0),
        ..noisy(
            "repaint",
            "ddim that takes steps back and repeats them, to paint around what is known",
            1,
            1,
            "Lugmayr et al. 2022, RePaint: Inpainting using Denoising Diffusion Probabilistic Models, arXiv:2201.09865",
            Fixed(repaint::repaint),
        )
    },
    &Sampler {
        class: Some("PNDMScheduler"),
        aliases: Aliases { diffusers: &["PNDMScheduler"], a1111: &["PLMS"], ..NONE },
        ..ode(
            "pndm",
            "pseudo linear multistep",
            2,
            1,
            "Liu et al. 2022, Pseudo Numerical Methods for Diffusion Models on Manifolds, arXiv:2202.09778",
            Fixed(pndm::pndm),
        )
    },
    &Sampler {
        class: Some("UniPCMultistepScheduler"),
        aliases: Aliases {
            diffusers: &["UniPCMultistepScheduler"],
            comfyui: &["uni_pc_bh2"],
            a1111: &["UniPC"],
            other: &["unipc_bh2"],
            ..NONE
        },
        ..ode("unipc", "predictor and corrector in one evaluation, B(h) = e^h - 1", 3, 1, UNIPC, Fixed(unipc::unipc))
    },
    &Sampler {
        class: Some("UniPCMultistepScheduler"),
        aliases: Aliases { comfyui: &["uni_pc"], other: &["uni_pc_bh1"], ..NONE },
        ..ode("unipc_bh1", "unipc with B(h) = h", 3, 1, UNIPC, Fixed(unipc::unipc_bh1))
    },
    &Sampler {
        class: Some("DEISMultistepScheduler"),
        aliases: Aliases { diffusers: &["DEISMultistepScheduler"], comfyui: &["deis"], ..NONE },
        ..ode("deis", "exponential integrator with extrapolated noise", 2, 1, EXPONENTIAL, Fixed(deis::deis))
    },
    &Sampler {
        class: Some("LCMScheduler"),
        aliases: Aliases {
            diffusers: &["LCMScheduler", "FlowMatchLCMScheduler"],
            comfyui: &["lcm"],
            a1111: &["LCM"],
            sdcpp: &["lcm"],
            ..NONE
        },
        ..noisy(
            "lcm",
            "latent consistency model, a few steps",
            1,
            1,
            "Luo et al. 2023, Latent Consistency Models, arXiv:2310.04378",
            Fixed(lcm::lcm),
        )
    },
    &Sampler {
        class: Some("CMStochasticIterativeScheduler"),
        aliases: Aliases {
            diffusers: &["CMStochasticIterativeScheduler"],
            other: &["consistency_models", "multistep_consistency"],
            ..NONE
        },
        ..noisy("consistency", "consistency model, one or a few steps", 1, 1, CM, Fixed(consistency::consistency))
    },
    &Sampler {
        aliases: Aliases { other: &["onestep"], ..NONE },
        ..ode("one_step", "the denoised image of the first noise level", 1, 1, CM, Fixed(consistency::one_step))
    },
    &Sampler {
        aliases: Aliases { other: &["heun_churn", "edm_stochastic"], ..NONE },
        ..noisy("edm_heun", "Heun's method with churn", 2, 2, EDM, Fixed(heun::heun))
    },
    &Sampler {
        aliases: Aliases { comfyui: &["res_multistep"], sdcpp: &["res_multistep"], other: &["res"], ..NONE },
        ..ode("res_multistep", "refined exponential solver, two-step", 2, 1, RES, Fixed(res_multistep::res_multistep))
    },
    &Sampler {
        aliases: Aliases { comfyui: &["gradient_estimation"], other: &["ge"], ..NONE },
        ..ode(
            "gradient_estimation",
            "Euler's method with an extrapolated derivative",
            1,
            1,
            GE,
            Fixed(gradient_estimation::gradient_estimation),
        )
    },
    &Sampler {
        aliases: Aliases { comfyui: &["euler_cfg_pp"], a1111: &["DDIM CFG++"], ..NONE },
        ..ode("euler_cfg_pp", "euler with the noise of the unguided image", 1, 1, CFG_PP, Fixed(cfg_pp::euler))
    },
    &Sampler {
        aliases: Aliases { comfyui: &["euler_ancestral_cfg_pp"], ..NONE },
        ..sde(
            "euler_ancestral_cfg_pp",
            "euler_ancestral with the noise of the unguided image",
            1,
            1,
            CFG_PP,
            Fixed(cfg_pp::euler_ancestral),
        )
    },
    &Sampler {
        aliases: Aliases { comfyui: &["dpmpp_2m_cfg_pp"], ..NONE },
        ..ode("dpmpp_2m_cfg_pp", "dpmpp_2m with the noise of the unguided image", 2, 1, CFG_PP, Fixed(cfg_pp::dpmpp_2m))
    },
    &Sampler {
        aliases: Aliases { comfyui: &["dpmpp_2s_ancestral_cfg_pp"], ..NONE },
        ..sde(
            "dpmpp_2s_ancestral_cfg_pp",
            "dpmpp_2s_ancestral with the noise of the unguided image",
            2,
            2,
            CFG_PP,
            Fixed(cfg_pp::dpmpp_2s_ancestral),
        )
    },
    &Sampler {
        aliases: Aliases { comfyui: &["res_multistep_cfg_pp"], ..NONE },
        ..ode(
            "res_multistep_cfg_pp",
            "res_multistep with the noise of the unguided image",
            2,
            1,
            CFG_PP,
            Fixed(cfg_pp::res_multistep),
        )
    },
    &Sampler {
        aliases: Aliases { comfyui: &["gradient_estimation_cfg_pp"], ..NONE },
        ..ode(
            "gradient_estimation_cfg_pp",
            "gradient_estimation with the noise of the unguided image",
            1,
            1,
            CFG_PP,
            Fixed(cfg_pp::gradient_estimation),
        )
    },
    &Sampler {
        class: Some("TCDScheduler"),
        aliases: Aliases { diffusers: &["TCDScheduler"], sdcpp: &["tcd"], ..NONE },
        eta: Some(0.3),
        ..sde(
            "tcd",
            "trajectory consistency model, a few steps",
            1,
            1,
            "Zheng et al. 2024, Trajectory Consistency Distillation, arXiv:2402.19159",
            Fixed(tcd::tcd),
        )
    },
    &Sampler {
        aliases: Aliases { comfyui: &["ipndm"], sdcpp: &["ipndm"], ..NONE },
        ..ode(
            "ipndm",
            "pseudo linear multistep with the weights of equal steps",
            2,
            1,
            EXPONENTIAL,
            Fixed(ipndm::ipndm),
        )
    },
    &Sampler {
        aliases: Aliases { comfyui: &["ipndm_v"], sdcpp: &["ipndm_v"], ..NONE },
        ..ode(
            "ipndm_v",
            "pseudo linear multistep with weights for unequal steps",
            2,
            1,
            "Zhou et al. 2024, Fast ODE-based Sampling for Diffusion Models in Around 5 Steps, arXiv:2312.00094",
            Fixed(ipndm_v::ipndm_v),
        )
    },
    &Sampler {
        aliases: Aliases { other: &["em"], ..NONE },
        ..noisy("euler_maruyama", "Euler-Maruyama on the reverse SDE", 1, 1, SDE, Fixed(reverse_sde::euler_maruyama))
    },
    &Sampler {
        aliases: Aliases { other: &["reverse_diffusion_predictor"], ..NONE },
        ..noisy(
            "reverse_diffusion",
            "the reverse SDE, discretised as the forward one",
            1,
            1,
            SDE,
            Fixed(reverse_sde::reverse_diffusion),
        )
    },
    &Sampler {
        aliases: Aliases { comfyui: &["er_sde"], other: &["er_sde_solver_3"], ..NONE },
        ..noisy(
            "er_sde",
            "extended reverse-time SDE, three-step",
            2,
            1,
            "Cui et al. 2023, Elucidating the Solution Space of Extended Reverse-Time SDE for Diffusion Models, arXiv:2309.06169",
            Fixed(er_sde::er_sde),
        )
    },
    &Sampler {
        aliases: Aliases {
            comfyui: &["dpm_adaptive"],
            a1111: &["DPM adaptive"],
            other: &["k_dpm_adaptive", "k_dpm_ad"],
            ..NONE
        },
        ..ode("dpm_adaptive", "DPM-Solver-23 with adaptive steps", 3, 3, DPM, Adaptive(dpm_adaptive::dpm_adaptive))
    },
    &Sampler {
        aliases: Aliases { other: &["dopri5", "dormand_prince"], ..NONE },
        ..ode("rk45", "Dormand-Prince 5(4) with adaptive steps", 5, 6, SDE, Adaptive(rk45::rk45))
    },
    &Sampler {
        aliases: Aliases { comfyui: &["dpm_fast"], a1111: &["DPM fast"], other: &["k_dpm_fast"], ..NONE },
        ..ode("dpm_fast", "DPM-Solver, as many evaluations as steps", 3, 1, DPM, Fixed(dpm_fast::dpm_fast))
    },
    &Sampler {
        class: Some("ScoreSdeVeScheduler"),
        constrains: true,
        aliases: Aliases { diffusers: &["ScoreSdeVeScheduler"], other: &["pc"], ..NONE },
        ..noisy(
            "predictor_corrector",
            "the reverse SDE with a Langevin step at every noise level",
            1,
            2,
            SDE,
            Adaptive(langevin::predictor_corrector),
        )
    },
    &Sampler {
        aliases: Aliases { other: &["annealed_langevin"], ..NONE },
        constrains: true,
        ..noisy(
            "ald",
            "annealed Langevin dynamics, five steps at every noise level",
            1,
            5,
            "Song & Ermon 2019, Generative Modeling by Estimating Gradients of the Data Distribution, arXiv:1907.05600",
            Fixed(langevin::ald),
        )
    },
    &Sampler {
        class: Some("SASolverScheduler"),
        aliases: Aliases { diffusers: &["SASolverScheduler"], comfyui: &["sa_solver"], ..NONE },
        ..sde(
            "sa_solver",
            "stochastic Adams predictor and corrector",
            2,
            1,
            "Xue et al. 2023, SA-Solver: Stochastic Adams Solver for Fast Sampling of Diffusion Models, arXiv:2309.05019",
            Fixed(sa_solver::sa_solver),
        )
    },
    &Sampler {
        class: Some("DDIMInverseScheduler"),
        aliases: Aliases { diffusers: &["DDIMInverseScheduler"], other: &["ddim_inversion"], ..NONE },
        inverts: true,
        ..ode("ddim_inverse", "from an image to its noise, by DDIM backwards", 1, 1, DDIM, Fixed(inverse::ddim_inverse))
    },
    &Sampler {
        aliases: Aliases { other: &["heun_inversion"], ..NONE },
        inverts: true,
        ..ode("heun_inverse", "from an image to its noise, by Heun's method", 2, 2, EDM, Fixed(inverse::heun_inverse))
    },
];
