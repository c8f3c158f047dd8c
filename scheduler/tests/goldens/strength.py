"""Writes strength.json: diffusers' schedulers started in the middle, as its image-to-image and inpainting pipelines do.

    python strength.py        # needs torch, diffusers

The model and its noise are those of make_goldens.py. The image is IMAGE and the noise that is added to it the start of the other runs, X.
Where `keeps` is true the second element is put back after every step, noised to the next timestep and clean after the last: the loop of
StableDiffusionInpaintPipeline, with the image as its latents.
"""

import json
import pathlib
import sys
import warnings

import diffusers
import numpy as np
import torch

from make_goldens import FAMILY, model_output
from model import Draws, X, exact, numbers

warnings.filterwarnings("ignore")
IMAGE = torch.tensor([0.4, -0.7, 0.1], dtype=torch.float64).reshape(1, 3, 1, 1)
KEEP = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64).reshape(1, 3, 1, 1)
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
LEADING = {**BETAS, "timestep_spacing": "leading", "steps_offset": 1}
CASES = [
    ("DDIMScheduler", {**LEADING, "clip_sample": False, "set_alpha_to_one": False}),
    ("DDIMScheduler", {**BETAS, "clip_sample": False, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}),
    ("DDPMScheduler", {**LEADING, "clip_sample": False}),
    ("PNDMScheduler", {**LEADING, "skip_prk_steps": True, "set_alpha_to_one": False}),
    ("PNDMScheduler", {**LEADING, "skip_prk_steps": True, "prediction_type": "v_prediction"}),
    ("EulerDiscreteScheduler", LEADING),
    ("EulerDiscreteScheduler", {**BETAS, "use_karras_sigmas": True, "prediction_type": "v_prediction"}),
    ("EulerAncestralDiscreteScheduler", LEADING),
    ("HeunDiscreteScheduler", BETAS),
    ("KDPM2DiscreteScheduler", BETAS),
    ("KDPM2AncestralDiscreteScheduler", BETAS),
    ("LMSDiscreteScheduler", BETAS),
    ("DPMSolverMultistepScheduler", BETAS),
    ("DPMSolverMultistepScheduler", {**BETAS, "solver_order": 3, "use_karras_sigmas": True}),
    ("DPMSolverMultistepScheduler", {**BETAS, "algorithm_type": "sde-dpmsolver++"}),
    ("DPMSolverSinglestepScheduler", BETAS),
    ("UniPCMultistepScheduler", BETAS),
    ("DEISMultistepScheduler", BETAS),
    ("LCMScheduler", BETAS),
    ("TCDScheduler", BETAS),
]


def begin(scheduler, steps, strength):
    """The pipelines' get_timesteps."""
    first = max(steps - min(int(steps * strength), steps), 0)
    timesteps = scheduler.timesteps[first * scheduler.order:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first * scheduler.order)
    return timesteps


def case(name, config, steps, strength, keeps):
    cls = getattr(diffusers, name)
    scheduler, module = cls.from_config(dict(config)), sys.modules[cls.__module__]
    distilled = name == "LCMScheduler" and not keeps
    scheduler.set_timesteps(steps, **({"strength": strength} if distilled else {}))
    if name.startswith("KDPM2"):
        f32, np.float32, torch.float32 = (np.float32, torch.float32), np.float64, torch.float64
        scheduler.set_timesteps(steps)
        np.float32, torch.float32 = f32
    timesteps = scheduler.timesteps if distilled else begin(scheduler, steps, strength)
    for table in ("sigmas", "alphas_cumprod", "final_alpha_cumprod"):
        if hasattr(scheduler, table):
            setattr(scheduler, table, getattr(scheduler, table).double())
    draws, asked = Draws(), []
    with exact(module, draws):
        sample = scheduler.add_noise(IMAGE, X, timesteps[:1])
        for i, t in enumerate(timesteps):
            scheduler.scale_model_input(sample, t)
            if getattr(scheduler, "step_index", 0) is None:
                scheduler._init_step_index(t)
            output, _ = model_output(scheduler, sample, t, FAMILY.get(name, "ve"))
            asked.append(float(t))
            sample = scheduler.step(output, t, sample, return_dict=False)[0]
            if keeps:
                original = IMAGE
                if i < len(timesteps) - 1:
                    original = scheduler.add_noise(IMAGE, X, torch.tensor([timesteps[i + 1]]))
                sample = KEEP * original + (1 - KEEP) * sample
    return {"class": name, "config": config, "steps": steps, "strength": strength, "keeps": keeps, "distilled": distilled, "timesteps": asked,
            "result": numbers(sample)}


def main():
    cases = []
    for name, config in CASES:
        for steps, strength in ((8, 0.9), (8, 0.5), (6, 0.17), (20, 0.77)):
            for keeps in (False, True):
                cases.append(case(name, config, steps, strength, keeps))
    for name in ("DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler"):
        cases.append(case(name, LEADING if name != "PNDMScheduler" else {**LEADING, "skip_prk_steps": True}, 5, 1.0, True))
    lines = [json.dumps(case, allow_nan=False) for case in cases]
    pathlib.Path(__file__).with_name("strength.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(len(lines), "cases")


if __name__ == "__main__":
    main()
