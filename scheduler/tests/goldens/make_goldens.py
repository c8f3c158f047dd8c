"""Writes diffusers.json, diffusers_more.json, carried_over.json, k_diffusion.json, k_diffusion_adaptive.json and
comfyui.json: tables and trajectories of the reference implementations.

    python make_goldens.py        # needs torch, diffusers, scipy, k-diffusion (for its sampling.py alone)

The model is a formula, the same here and in the Rust tests:

    D(x; sigma) = 1.5 tanh(x / (1 + sigma)) + 0.2 x / (1 + sigma^2)

and so is the noise: element j of draw k is sqrt(2) sin(1 + 12.9898 k + 78.233 j).

diffusers keeps its tables in f32. Its steps are run here in f64 over those very tables (`exact` below), so the Rust test
can hold the arithmetic of the steps to 1e-10 by running over the tables in the file, and hold its own tables to f32.
"""

import itertools
import json
import math
import pathlib
import sys
import warnings

import diffusers
import numpy as np
import torch

import comfyui
import k_diffusion_cases
from model import Draws, Path, X, denoised_of, exact, numbers

warnings.filterwarnings("ignore")
diffusers.utils.logging.set_verbosity_error()
HERE = pathlib.Path(__file__).parent
def middle_sigma(scheduler, index):
    """The noise level of the sample that is about to be denoised."""
    if getattr(scheduler, "sample", None) is not None:
        if getattr(scheduler, "mid_point_sigma", None) is not None:
            return scheduler.mid_point_sigma
        if isinstance(scheduler, diffusers.KDPM2DiscreteScheduler):
            return scheduler.sigmas_interpol[index]
        if isinstance(scheduler, diffusers.KDPM2AncestralDiscreteScheduler):
            return scheduler.sigmas_interpol[index - 1]
    return scheduler.sigmas[index]


def model_output(scheduler, sample, t, family):
    """What a perfect network of the scheduler's prediction type outputs for the denoised image above."""
    kind = getattr(scheduler.config, "prediction_type", "flow_prediction")
    index = scheduler.step_index if getattr(scheduler, "step_index", None) is not None else 0
    if family == "vp-alphas":
        abar = scheduler.alphas_cumprod[int(t)].clamp(min=1e-20)
        sigma = ((1 - abar) / abar) ** 0.5
        x = sample / abar**0.5
    else:
        sigma = middle_sigma(scheduler, index)
        x = sample * (sigma**2 + 1) ** 0.5 if family == "vp" else sample
    d = denoised_of(x, sigma)
    if family == "edm":
        total = sigma**2 + scheduler.config.sigma_data**2
        sign = -1 if kind == "v_prediction" else 1
        c_out = sign * sigma * scheduler.config.sigma_data / total**0.5
        return (d - scheduler.config.sigma_data**2 / total * x) / c_out, d
    if family == "consistency":
        low, data = scheduler.config.sigma_min, scheduler.config.sigma_data
        c_skip = data**2 / ((sigma - low) ** 2 + data**2)
        return (d - c_skip * x) / ((sigma - low) * data / (sigma**2 + data**2) ** 0.5), d
    if family == "flow":
        return (sample - d) / sigma, d
    if kind == "epsilon":
        return (x - d) / sigma, d
    if kind == "v_prediction":
        return ((x - d) / sigma - sigma * d) / (sigma**2 + 1) ** 0.5, d
    assert kind == "sample"
    return d, d


# Schedulers that list each inner entry twice, for their second evaluation.
SECOND_ORDER = {
    "HeunDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSDEScheduler",
}
FAMILY = {
    "DDIMScheduler": "vp-alphas", "DDPMScheduler": "vp-alphas", "PNDMScheduler": "vp-alphas", "LCMScheduler": "vp-alphas",
    "TCDScheduler": "vp-alphas", "DDIMParallelScheduler": "vp-alphas", "DDPMParallelScheduler": "vp-alphas",
    "DDIMInverseScheduler": "vp-alphas",
    "DPMSolverMultistepScheduler": "vp", "DPMSolverSinglestepScheduler": "vp", "UniPCMultistepScheduler": "vp", "DEISMultistepScheduler": "vp",
    "SASolverScheduler": "vp",
    "CMStochasticIterativeScheduler": "consistency",
    "EDMEulerScheduler": "edm", "EDMDPMSolverMultistepScheduler": "edm",
    "FlowMatchEulerDiscreteScheduler": "flow", "FlowMatchHeunDiscreteScheduler": "flow",
    "FlowMatchLCMScheduler": "flow",
}


def diffusers_case(name, config, steps=None, run=None, via=None, **tables):
    """One scheduler, one configuration: its tables, and a run over them. `via` is the class in the file, if it is another."""
    cls = getattr(diffusers, name)
    module = sys.modules[cls.__module__]
    if via is None:
        scheduler = cls.from_config(dict(config))
    else:
        scheduler = cls.from_config(getattr(diffusers, via).from_config(dict(config)).config)
    scheduler.set_timesteps(**({"num_inference_steps": steps} if steps else {}), **tables)
    family = FAMILY.get(name, "ve")
    if getattr(scheduler.config, "use_flow_sigmas", False):
        family = "flow"
    case = {"class": via or name, "sampler": name, "config": config, "steps": steps, "run": run or {}, "request": tables}
    if name.startswith("KDPM2"):
        # Its middle sigmas are made with the others, so these are made again without the rounding to f32.
        f32, np.float32, torch.float32 = (np.float32, torch.float32), np.float64, torch.float64
        scheduler.set_timesteps(steps)
        np.float32, torch.float32 = f32
    if name == "DPMSolverSDEScheduler":
        draws = Path()
        scheduler.noise_sampler = draws
    timesteps = list(scheduler.timesteps)
    stride = 2 if name in SECOND_ORDER else 1
    entries = timesteps[::stride]
    if name == "PNDMScheduler":
        entries = [torch.tensor(t) for t in scheduler._timesteps[::-1].copy()]
    if name == "DDIMInverseScheduler":
        entries = entries[::-1]
    case["timesteps"] = numbers(torch.stack(entries))
    if family == "vp-alphas":
        ratio = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
        alphas = scheduler.alphas_cumprod.double().clamp(min=1e-20)
        if name in ("DDIMScheduler", "DDIMParallelScheduler", "DDIMInverseScheduler", "PNDMScheduler"):
            final = scheduler.initial_alpha_cumprod if "Inverse" in name else scheduler.final_alpha_cumprod
            landing = [alphas[int(t) - ratio] if int(t) - ratio >= 0 else final.double() for t in entries]
        elif name == "TCDScheduler":
            eta = (run or {}).get("eta", 0.3)
            landing = [alphas[math.floor((1 - eta) * int(t))] for t in entries[1:]] + [alphas[0]]
        else:
            landing = [alphas[int(t)] for t in entries[1:]] + [torch.tensor(1.0, dtype=torch.float64)]
        table = [alphas[int(t)] for t in entries] + [landing[-1]]
        case["sigmas"] = [float(((1 - a) / a) ** 0.5) for a in table]
        case["landings"] = [float(((1 - a) / a) ** 0.5) for a in landing]
        if len(getattr(scheduler, "prk_timesteps", [])):
            # Between its first four timesteps: where the first half-step lands, and what the model is told there.
            pairs = [(int(a) - ratio // 2, int(b) + ratio // 2) for a, b in itertools.pairwise(entries[:4])]
            case["middles"] = [[float(((1 - alphas[t]) / alphas[t]) ** 0.5) for t in pair] for pair in pairs]
    elif stride == 2:
        case["sigmas"] = numbers(torch.cat([scheduler.sigmas[:1], scheduler.sigmas[1::2]])[: len(entries) + 1])
    else:
        case["sigmas"] = numbers(scheduler.sigmas[: len(timesteps) + 1])
    case["init_noise_sigma"] = float(getattr(scheduler, "init_noise_sigma", 1.0))

    for table in ("sigmas", "alphas_cumprod", "final_alpha_cumprod", "initial_alpha_cumprod"):
        if hasattr(scheduler, table):
            setattr(scheduler, table, getattr(scheduler, table).double())
    if name == "CMStochasticIterativeScheduler":
        # The root of the difference of this sigma and the same one rounded is no noise that anybody means to add.
        scheduler.sigmas[-1] = scheduler.config.sigma_min
    sample = X * case["init_noise_sigma"]
    if name != "DPMSolverSDEScheduler":
        draws = Draws()
    denoised = []
    with exact(module, draws):
        for t in timesteps:
            if hasattr(scheduler, "scale_model_input"):
                scheduler.scale_model_input(sample, t)
            elif scheduler.step_index is None:
                scheduler._init_step_index(t)
            if getattr(scheduler, "step_index", 0) is None:
                scheduler._init_step_index(t)
            output, d = model_output(scheduler, sample, t, family)
            denoised.append(numbers(d))
            sample = scheduler.step(output, t, sample, **(run or {}), return_dict=False)[0]
    case["denoised"] = denoised if len(denoised) <= 8 else denoised[:2] + denoised[-2:]
    case["evaluations"] = len(denoised)
    case["draws"] = draws.k
    case["result"] = numbers(sample)
    return case


def score_sde_ve_case(config, steps):
    """What diffusers' ScoreSdeVePipeline does with its scheduler."""
    from diffusers.schedulers import scheduling_sde_ve as module

    scheduler = diffusers.ScoreSdeVeScheduler(**config)
    scheduler.set_timesteps(steps)
    scheduler.set_sigmas(steps)
    case = {"class": "ScoreSdeVeScheduler", "sampler": "ScoreSdeVeScheduler", "config": config, "steps": steps, "run": {}, "request": {}}
    told, table = scheduler.sigmas.double(), scheduler.discrete_sigmas.double()
    case["timesteps"] = numbers(told)
    case["sigmas"] = numbers(torch.cat([table.flip(0), torch.zeros(1)]))
    case["init_noise_sigma"] = float(scheduler.init_noise_sigma)
    scheduler.discrete_sigmas = table
    draws, denoised, sample = Draws(), [], X * case["init_noise_sigma"]

    def score(x, i):
        sigma = table[steps - 1 - i]
        denoised.append(numbers(denoised_of(x, sigma)))
        return (denoised_of(x, sigma) - x) / sigma**2

    with exact(module, draws):
        for i in range(steps):
            for _ in range(scheduler.config.correct_steps):
                sample = scheduler.step_correct(score(sample, i), sample).prev_sample
            # A whole index: the rounding of i / (steps - 1) could lose one.
            t = (steps - 1 - i + 0.5) / (steps - 1) if i > 0 else 1.0
            output = scheduler.step_pred(score(sample, i), t, sample)
            sample = output.prev_sample
    case["denoised"] = denoised[:2]
    case["evaluations"], case["draws"], case["result"] = len(denoised), draws.k, numbers(output.prev_sample_mean)
    return case


SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
COUNTS = [1, 2, 5, 20]


def diffusers_cases():
    case = diffusers_case
    for name in ["EulerDiscreteScheduler", "HeunDiscreteScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"]:
        for spacing in ["linspace", "leading", "trailing"]:
            for steps in COUNTS + [7, 30]:
                if name == "DPMSolverMultistepScheduler" and spacing == "linspace" and steps == 30:
                    yield case(name, dict(SD, timestep_spacing=spacing, clip_sample=False, steps_offset=1), steps)
                yield case(name, dict(SD, timestep_spacing=spacing, clip_sample=False), steps)
            yield case(name, dict(SD, timestep_spacing=spacing, steps_offset=1, clip_sample=False), 13)
        for prediction in ["epsilon", "v_prediction", "sample"]:
            yield case(name, dict(prediction_type=prediction, beta_schedule="linear"), 6)
            yield case(name, dict(SD, prediction_type=prediction, clip_sample=False), 6)
        yield case(name, dict(beta_schedule="squaredcos_cap_v2", clip_sample=False), 9)
        yield case(name, dict(trained_betas=[0.02 + 0.01 * i for i in range(20)], num_train_timesteps=20, clip_sample=False), 5)
        yield case(name, dict(SD, num_train_timesteps=4000, clip_sample=False), 11)
    for name in ["EulerDiscreteScheduler", "HeunDiscreteScheduler", "DPMSolverMultistepScheduler"]:
        for conversion in ["karras", "exponential", "beta"]:
            use = f"use_{conversion}_sigmas"
            for steps in COUNTS:
                yield case(name, dict(SD, **{use: True}), steps)
            yield case(name, dict(SD, timestep_spacing="leading", **{use: True}), 8)
            yield case(name, dict(SD, sigma_min=0.05, sigma_max=10.0, **{use: True}), 8)
            yield case(name, dict(beta_schedule="squaredcos_cap_v2", **{use: True}), 8)

    euler = "EulerDiscreteScheduler"
    yield case(euler, dict(SD, interpolation_type="log_linear"), 7)
    yield case(euler, dict(SD, final_sigmas_type="sigma_min"), 7)
    yield case(euler, dict(SD, rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing"), 7)
    yield case(euler, dict(SD, timestep_type="continuous", prediction_type="v_prediction", use_karras_sigmas=True,
                           sigma_min=0.002, sigma_max=700.0), 25)
    yield case(euler, SD, timesteps=[999, 850, 545, 233, 24])
    yield case(euler, SD, sigmas=[14.615, 6.315, 1.342, 0.38, 0.0])
    yield case(euler, dict(SD, timestep_spacing="leading"), sigmas=[14.615, 6.315, 1.342, 0.38])
    heun = "HeunDiscreteScheduler"
    yield case(heun, dict(SD, clip_sample=True), 6)
    yield case(heun, dict(SD, clip_sample=True, clip_sample_range=0.5), 6)
    yield case(heun, SD, timesteps=[999, 850, 545, 233, 24])
    yield case(heun, dict(beta_schedule="exp"), 6)

    ddim = "DDIMScheduler"
    for spacing in ["linspace", "leading", "trailing"]:
        for eta in [0.5, 1.0]:
            yield case(ddim, dict(SD, timestep_spacing=spacing, clip_sample=False), 6, run={"eta": eta})
    yield case(ddim, dict(SD, set_alpha_to_one=False, steps_offset=1, clip_sample=False), 8)
    yield case(ddim, dict(SD, set_alpha_to_one=False, clip_sample=False, timestep_spacing="linspace"), 8)
    yield case(ddim, dict(), 10)
    yield case(ddim, dict(clip_sample_range=0.4), 10, run={"eta": 0.7})
    yield case(ddim, dict(SD, thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=1.2, clip_sample=False), 6)
    yield case(ddim, dict(SD, rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing",
                          clip_sample=False), 9)

    dpm = "DPMSolverMultistepScheduler"
    for order in [1, 2, 3]:
        for solver in ["midpoint", "heun"]:
            for steps in [5, 20]:
                yield case(dpm, dict(SD, solver_order=order, solver_type=solver), steps)
                # With karras and sigma_min the last step has no length, which diffusers divides by unless it is Euler's.
                yield case(dpm, dict(SD, solver_order=order, solver_type=solver, final_sigmas_type="sigma_min",
                                     use_karras_sigmas=steps < 15), steps)
        yield case(dpm, dict(SD, solver_order=order, lower_order_final=False, final_sigmas_type="sigma_min"), 5)
        yield case(dpm, dict(SD, solver_order=order, euler_at_final=True, final_sigmas_type="sigma_min"), 18)
    yield case(dpm, dict(SD, thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=1.2), 6)
    yield case(dpm, dict(SD, lambda_min_clipped=-5.1), 8)
    yield case(dpm, dict(beta_schedule="squaredcos_cap_v2", lambda_min_clipped=-5.1, timestep_spacing="trailing"), 8)
    yield case(dpm, dict(SD, use_lu_lambdas=True), 8)
    yield case(dpm, dict(SD, rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing"), 8)
    yield case(dpm, SD, timesteps=[999, 850, 545, 233, 24])
    for shift in [1.0, 3.0]:
        for steps in [1, 6, 20]:
            yield case(dpm, dict(use_flow_sigmas=True, flow_shift=shift, prediction_type="flow_prediction"), steps)
    yield case(dpm, dict(use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction", solver_order=3), 20)

    for name in ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"]:
        for sigma_schedule in ["karras", "exponential"]:
            for steps in COUNTS:
                yield case(name, dict(sigma_schedule=sigma_schedule), steps)
            yield case(name, dict(sigma_schedule=sigma_schedule, sigma_min=0.02, sigma_max=30.0, rho=5.0, sigma_data=1.0), 9)
        yield case(name, dict(prediction_type="v_prediction"), 6)
        yield case(name, dict(final_sigmas_type="sigma_min"), 6)
    yield case("EDMDPMSolverMultistepScheduler", dict(solver_type="heun"), 20)
    yield case("EDMDPMSolverMultistepScheduler", dict(solver_order=3), 20)
    yield case("EDMDPMSolverMultistepScheduler", dict(solver_order=1), 6)
    yield case("EDMDPMSolverMultistepScheduler", dict(final_sigmas_type="sigma_min"), 20)

    flow = "FlowMatchEulerDiscreteScheduler"
    for shift in [1.0, 3.0]:
        for steps in COUNTS:
            yield case(flow, dict(shift=shift), steps)
            yield case("FlowMatchHeunDiscreteScheduler", dict(shift=shift), steps)
    yield case(flow, dict(shift=3.0, shift_terminal=0.1), 8)
    for conversion in ["karras", "exponential", "beta"]:
        yield case(flow, {"shift": 3.0, f"use_{conversion}_sigmas": True}, 8)
    # mu as the pipelines compute it for 1024 image tokens.
    mu = 0.5 + (1.15 - 0.5) / (4096 - 256) * (1024 - 256)
    yield case(flow, dict(use_dynamic_shifting=True), 8, mu=mu)
    yield case(flow, dict(use_dynamic_shifting=True, time_shift_type="linear"), 8, mu=mu)
    yield case(flow, dict(use_dynamic_shifting=True), sigmas=[1.0, 0.75, 0.5, 0.25], mu=mu)
    yield case(flow, dict(shift=2.0), sigmas=[1.0, 0.75, 0.5, 0.25])


def more_diffusers_cases():
    case = diffusers_case
    for name in ["EulerAncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "LMSDiscreteScheduler",
                 "DPMSolverSDEScheduler"]:
        for spacing in ["linspace", "leading", "trailing"]:
            for steps in [2, 5, 12]:
                yield case(name, dict(SD, timestep_spacing=spacing, steps_offset=1 if spacing == "leading" else 0), steps)
        yield case(name, dict(SD, prediction_type="v_prediction"), 6)
        yield case(name, dict(beta_schedule="squaredcos_cap_v2"), 6)
        if name != "EulerAncestralDiscreteScheduler":
            for conversion in ["karras", "exponential", "beta"]:
                yield case(name, dict(SD, **{f"use_{conversion}_sigmas": True}), 7)
    yield case("EulerAncestralDiscreteScheduler", dict(SD, rescale_betas_zero_snr=True, prediction_type="v_prediction",
                                                       timestep_spacing="trailing"), 6)

    sde = dict(SD, algorithm_type="sde-dpmsolver++")
    for steps in [1, 5, 20]:
        for solver in ["midpoint", "heun"]:
            yield case("DPMSolverMultistepScheduler", dict(sde, solver_type=solver), steps)
        yield case("DPMSolverMultistepScheduler", dict(sde, solver_order=1), steps)
        yield case("EDMDPMSolverMultistepScheduler", dict(algorithm_type="sde-dpmsolver++"), steps)
    yield case("DPMSolverMultistepScheduler", dict(sde, use_karras_sigmas=True), 9)
    yield case("DPMSolverMultistepScheduler", dict(sde, final_sigmas_type="sigma_min"), 18)

    for name in ["UniPCMultistepScheduler", "DEISMultistepScheduler"]:
        for spacing in ["linspace", "leading", "trailing"]:
            for steps in [1, 2, 5, 20]:
                yield case(name, dict(SD, timestep_spacing=spacing), steps)
        for order in [1, 2, 3]:
            for steps in [6, 20]:
                yield case(name, dict(SD, solver_order=order), steps)
                # Full order to sigma 0 would divide by infinity.
                full = dict(lower_order_final=False, final_sigmas_type="sigma_min")
                yield case(name, dict(SD, solver_order=order, **full), steps)
        for prediction in ["v_prediction", "sample"]:
            yield case(name, dict(SD, prediction_type=prediction), 6)
        for conversion in ["karras", "exponential", "beta"]:
            # Without lower orders at the end, the last step of DEIS, which has no length, would divide by it.
            yield case(name, dict(SD, **{f"use_{conversion}_sigmas": True}), 8)
        # Not squaredcos_cap_v2: its timesteps round to the same one twice, from which these classes start at the second step.
        yield case(name, dict(use_karras_sigmas=True), 8)
        yield case(name, dict(SD, thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=1.2), 6)
        for shift in [1.0, 3.0]:
            yield case(name, dict(use_flow_sigmas=True, flow_shift=shift, prediction_type="flow_prediction"), 8)
    unipc = "UniPCMultistepScheduler"
    for order in [2, 3]:
        yield case(unipc, dict(SD, solver_type="bh1", solver_order=order, final_sigmas_type="sigma_min"), 12)
    yield case(unipc, dict(SD, disable_corrector=[0, 1, 4]), 8)
    yield case(unipc, dict(SD, final_sigmas_type="sigma_min", solver_order=3), 18)
    yield case(unipc, dict(SD, rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing"), 8)
    yield case(unipc, dict(use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction", solver_order=3), 20)

    single = "DPMSolverSinglestepScheduler"
    for order in [1, 2, 3]:
        for steps in [1, 2, 3, 4, 5, 6, 7]:
            yield case(single, dict(SD, solver_order=order, lower_order_final=True), steps)
        yield case(single, dict(SD, solver_order=order, solver_type="heun", lower_order_final=True), 9)
        yield case(single, dict(SD, solver_order=order, final_sigmas_type="sigma_min"), 6)
    for conversion in ["karras", "exponential", "beta"]:
        yield case(single, dict(SD, lower_order_final=True, **{f"use_{conversion}_sigmas": True}), 8)
    yield case(single, dict(SD, prediction_type="v_prediction", lambda_min_clipped=-5.1), 6)

    sa = "SASolverScheduler"
    for spacing in ["linspace", "leading", "trailing"]:
        for steps in [1, 2, 5, 20]:
            yield case(sa, dict(SD, timestep_spacing=spacing), steps)
    for orders in [(1, 1), (1, 2), (2, 3), (3, 1), (3, 3)]:
        yield case(sa, dict(SD, predictor_order=orders[0], corrector_order=orders[1]), 8)
    yield case(sa, dict(SD, lower_order_final=False), 8)
    yield case(sa, dict(SD, prediction_type="v_prediction"), 8)
    yield case(sa, dict(SD, use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction", lower_order_final=False), 8)

    for steps in [1, 2, 3, 5, 20, 50]:
        for prediction in ["epsilon", "v_prediction"]:
            yield case("PNDMScheduler", dict(SD, skip_prk_steps=True, steps_offset=1, prediction_type=prediction), steps)
    yield case("PNDMScheduler", dict(SD, skip_prk_steps=True, set_alpha_to_one=True), 10)

    for steps in [4, 5, 7, 20, 30]:
        for prediction in ["epsilon", "v_prediction"]:
            yield case("PNDMScheduler", dict(prediction_type=prediction), steps)
    yield case("PNDMScheduler", dict(SD, steps_offset=1, set_alpha_to_one=True), 10)

    for steps in [1, 2, 5, 20]:
        for prediction in ["epsilon", "v_prediction"]:
            yield case("DDIMInverseScheduler", dict(SD, clip_sample=False, prediction_type=prediction), steps)
    yield case("DDIMInverseScheduler", dict(clip_sample=True), 10)
    yield case("DDIMInverseScheduler", dict(SD, clip_sample=False, set_alpha_to_one=False, steps_offset=1), 8)
    yield case("DDIMInverseScheduler", dict(SD, clip_sample=False, timestep_spacing="trailing"), 10)

    for steps in [1, 3, 8]:
        yield case("DDIMParallelScheduler", dict(SD, clip_sample=False), steps)
        yield case("DDPMParallelScheduler", dict(), steps)
        yield case("FlowMatchLCMScheduler", dict(shift=3.0), steps)
        if steps > 1:
            yield score_sde_ve_case(dict(), steps)
            yield score_sde_ve_case(dict(snr=0.075, sigma_max=378.0, sampling_eps=1e-3, correct_steps=2), steps)

    for spacing in ["linspace", "leading", "trailing"]:
        for steps in [1, 2, 6]:
            yield case("DDPMScheduler", dict(timestep_spacing=spacing), steps)
        for variance in ["fixed_large", "fixed_small_log"]:
            yield case("DDPMScheduler", dict(timestep_spacing=spacing, variance_type=variance, clip_sample=False), 6)
    for prediction in ["v_prediction", "sample"]:
        yield case("DDPMScheduler", dict(SD, prediction_type=prediction, clip_sample_range=0.6), 6)
    yield case("DDPMScheduler", dict(SD, thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=1.2), 6)

    for steps in [1, 2, 3, 4, 8, 50]:
        yield case("LCMScheduler", dict(), steps)
    yield case("LCMScheduler", dict(original_inference_steps=100, timestep_scaling=0.01, set_alpha_to_one=False), 7)
    yield case("LCMScheduler", dict(prediction_type="v_prediction", clip_sample=True, rescale_betas_zero_snr=True), 4)
    yield case("LCMScheduler", dict(), timesteps=[999, 759, 499, 259])

    for steps in [1, 2, 4, 8]:
        for eta in [0.0, 0.3, 1.0]:
            yield case("TCDScheduler", dict(), steps, run={"eta": eta})
    yield case("TCDScheduler", dict(prediction_type="v_prediction"), 4, run={"eta": 0.3})

    cm = "CMStochasticIterativeScheduler"
    for steps in [1, 2, 5, 18]:
        yield case(cm, dict(), steps)
    yield case(cm, dict(clip_denoised=False, s_noise=1.01, sigma_max=60.0, rho=5.0), 6)
    yield case(cm, dict(num_train_timesteps=201), timesteps=[106, 0])


# What the files of well-known checkpoints say.
CHECKPOINTS = {
    "PNDMScheduler": dict(SD, clip_sample=False, num_train_timesteps=1000, set_alpha_to_one=False, skip_prk_steps=True,
                          steps_offset=1, trained_betas=None),
    "DDIMScheduler": dict(SD, clip_sample=False, num_train_timesteps=1000, prediction_type="v_prediction", set_alpha_to_one=False,
                          skip_prk_steps=True, steps_offset=1, trained_betas=None),
    "EulerDiscreteScheduler": dict(SD, clip_sample=False, interpolation_type="linear", prediction_type="epsilon",
                                   sample_max_value=1.0, set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1,
                                   timestep_spacing="leading", trained_betas=None, use_karras_sigmas=False),
    "DPMSolverMultistepScheduler": dict(beta_start=0.0001, beta_end=0.02, beta_schedule="linear", algorithm_type="dpmsolver++",
                                        dynamic_thresholding_ratio=0.995, euler_at_final=False, lambda_min_clipped="-Infinity",
                                        lower_order_final=True, num_train_timesteps=1000, prediction_type="epsilon",
                                        sample_max_value=1.0, solver_order=2, solver_type="midpoint", steps_offset=0,
                                        thresholding=False, timestep_spacing="linspace", trained_betas=None,
                                        use_karras_sigmas=False, use_lu_lambdas=False, variance_type=None),
    "DDPMScheduler": dict(beta_start=0.0001, beta_end=0.02, beta_schedule="linear", clip_sample=True, num_train_timesteps=1000,
                          trained_betas=None, variance_type="fixed_small"),
}


def carried_over_cases():
    """Every sampler over every checkpoint's configuration: what `from_config` makes of it."""
    targets = ["EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler",
               "KDPM2AncestralDiscreteScheduler", "LMSDiscreteScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "DPMSolverSDEScheduler",
               "SASolverScheduler",
               "DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler",
               "LCMScheduler", "TCDScheduler"]
    for via, config in CHECKPOINTS.items():
        for target in targets:
            if target == "PNDMScheduler" and "skip_prk_steps" not in config:
                continue  # its Runge-Kutta start has cases of its own
            if target == "SASolverScheduler" and "algorithm_type" in config:
                continue  # which it does not take from a DPM-Solver's file
            config = {k: -math.inf if v == "-Infinity" else v for k, v in config.items()}
            case = diffusers_case(target, config, 7, run={"eta": 0.3} if target == "TCDScheduler" else None, via=via)
            case["config"] = {k: "-Infinity" if v == -math.inf else v for k, v in config.items()}
            yield case


def write(name, cases):
    lines = []
    for case in cases:
        if all(math.isfinite(v) for v in case.get("result", [])):
            lines.append(json.dumps(case, allow_nan=False))
        else:
            print("the reference gives no number for", case["class"], case["config"], case["steps"])
    (HERE / name).write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(name, len(lines), "cases")


if __name__ == "__main__":
    write("diffusers.json", diffusers_cases())
    write("diffusers_more.json", more_diffusers_cases())
    write("carried_over.json", carried_over_cases())
    write("k_diffusion.json", itertools.chain(k_diffusion_cases.cases(), k_diffusion_cases.fast_cases()))
    write("k_diffusion_adaptive.json", k_diffusion_cases.adaptive_cases())
    write("comfyui.json", comfyui.cases(Draws))
