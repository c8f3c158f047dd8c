"""Writes repaint.json: diffusers' RePaintScheduler, driven as RePaintPipeline drives it.

    python repaint.py        # needs torch, diffusers

The model and its noise are those of make_goldens.py, the start is X. IMAGE is known where MASK is 1. Every case has the steps in f64 over
diffusers' f32 tables: x before each of them and at the end, β where that table is short, and how far the same run in f32 ends from it.
"""

import json
import pathlib
import sys
import warnings

import diffusers
import torch

from model import Draws, X, denoised_of, exact, numbers

warnings.filterwarnings("ignore")
IMAGE = torch.tensor([0.4, -0.7, 0.1], dtype=torch.float64).reshape(1, 3, 1, 1)
MASKS = {"known": [0.0, 1.0, 0.25], "nothing": [0.0, 0.0, 0.0]}
TINY = {"num_train_timesteps": 40, "beta_start": 0.0025, "beta_end": 0.4}


def walk(scheduler, mask, dtype):
    """RePaintPipeline's loop: (x before every step and at the end, number of draws)."""
    draws = Draws()
    sys.modules[type(scheduler).__module__].randn_tensor = lambda *args, **kwargs: draws().to(dtype)
    sample, image, mask = X.to(dtype), IMAGE.to(dtype), mask.to(dtype)
    samples, last = [], scheduler.timesteps[0] + 1
    for t in scheduler.timesteps:
        if t < last:
            samples.append(numbers(sample))
            abar = scheduler.alphas_cumprod[int(t)]
            sigma = ((1 - abar) / abar) ** 0.5
            x = sample / abar**0.5
            sample = scheduler.step((x - denoised_of(x, sigma)) / sigma, t, sample, image, mask).prev_sample
        else:
            sample = scheduler.undo_step(sample, last)
        last = t
    return samples + [numbers(sample)], draws.k


def case(config, steps, jump_length, jump_n_sample, eta, mask="known", via="RePaintScheduler"):
    scheduler = diffusers.RePaintScheduler.from_config(getattr(diffusers, via).from_config(dict(config)).config)
    scheduler.set_timesteps(steps, jump_length, jump_n_sample)
    scheduler.eta = eta
    mask = torch.tensor(MASKS[mask], dtype=torch.float64).reshape(1, 3, 1, 1)
    single, _ = walk(scheduler, mask, torch.float32)
    for table in ("betas", "alphas_cumprod", "final_alpha_cumprod"):
        setattr(scheduler, table, getattr(scheduler, table).double())
    with exact(sys.modules[type(scheduler).__module__], None):
        samples, draws = walk(scheduler, mask, torch.float64)
    stride = scheduler.config.num_train_timesteps // steps
    levels = [scheduler.alphas_cumprod[i * stride] for i in reversed(range(steps))]
    return {
        "class": via, "config": config, "steps": steps, "jump_length": jump_length, "jump_n_sample": jump_n_sample, "eta": eta,
        "mask": numbers(mask), "image": numbers(IMAGE), "sigmas": [float(((1 - a) / a) ** 0.5) for a in levels] + [0.0],
        "betas": numbers(scheduler.betas) if len(scheduler.betas) <= 40 else None, "samples": samples, "draws": draws, "f32_error": max(abs(a - b) for a, b in zip(single[-1], samples[-1])),
    }


def cases():
    for eta in (0.0, 0.5, 1.0):
        yield case({}, 6, 2, 3, eta)
        yield case({**TINY, "clip_sample": False}, 12, 10, 10, eta)
    yield case({**TINY, "clip_sample": False}, 40, 5, 2, 1.0)
    yield case({**TINY, "num_train_timesteps": 45}, 11, 3, 2, 0.0)
    yield case({**TINY, "beta_schedule": "sigmoid"}, 12, 4, 3, 0.3)
    for beta_schedule in ("scaled_linear", "squaredcos_cap_v2"):
        yield case({"beta_schedule": beta_schedule, "clip_sample": False}, 9, 4, 2, 0.3)
    yield case({}, 5, 1, 4, 1.0, mask="nothing")
    yield case({}, 1, 10, 10, 0.0)
    # A file of another class: what RePaintScheduler does not know in it has no effect.
    carried = {"clip_sample_range": 0.5, "timestep_spacing": "trailing", "steps_offset": 1, "beta_schedule": "scaled_linear"}
    yield case(carried, 8, 3, 2, 0.0, via="DDIMScheduler")


if __name__ == "__main__":
    lines = [json.dumps(case, allow_nan=False) for case in cases()]
    pathlib.Path(__file__).with_name("repaint.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(len(lines), "cases")
