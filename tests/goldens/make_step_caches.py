"""Pictures of the tiny pipelines with values kept from step to step, by those who published it: step_caches/.

    pip install -r requirements.txt && pip install --no-deps DeepCache==0.1.1 tgate==1.0.0 && python make_step_caches.py

first-block: diffusers' own hook. deep: DeepCache's helper around diffusers' pipelines. t-gate: T-GATE's pipelines, without their second version's reuse
of self attention (`sp_interval=1`). Each case lists how many evaluations used kept values, counted at a layer that is then not computed. Every
picture is made a second time in f64; where the two differ by more than one grey level, or in that count, the case would test rounding, and
stops the script.
"""

import json
import shutil
from pathlib import Path

import diffusers
import numpy as np
import torch
from DeepCache import DeepCacheSDHelper
from diffusers import DiTPipeline, PixArtAlphaPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.hooks import FirstBlockCacheConfig, apply_first_block_cache
from diffusers.hooks.hooks import CacheContext, _set_cache_context
from PIL import Image
from tgate import TgatePixArtAlphaLoader, TgateSDLoader, TgateSDXLLoader

import make_latents
import make_noise_pipelines
import make_pictures
from make_pictures import NEGATIVE, PROMPT, SAMPLERS

HERE = Path(__file__).parent
TEXT = {"sampler": None, "prompt": PROMPT, "negative_prompt": NEGATIVE, "seed": 11, "steps": 10, "guidance_scale": 3.0, "height": 32, "width": 32}
CLASS = {"sampler": None, "prompt": "", "negative_prompt": "", "class_label": 1, "seed": 11, "steps": 10, "guidance_scale": 3.0, "height": 16, "width": 16}
LATENT = {"safety_checker": None}

# folder: class, arguments of it, cases
PIPELINES = {
    "pixels": (make_pictures.Pipeline, None, {
        "first-block": {**TEXT, "step_cache": "first-block:0.15"},
        "first-block-euler-wide": {**TEXT, "sampler": "euler", "steps": 16, "width": 64, "step_cache": "first-block:0.2"},
        "first-block-unguided": {**TEXT, "guidance_scale": 1.0, "step_cache": "first-block:0.1"},
        "first-block-heun": {**TEXT, "sampler": "heun", "step_cache": "first-block:0.15"},
    }),
    "dit": (DiTPipeline, {}, {
        "first-block": {**CLASS, "step_cache": "first-block:0.1"},
        "first-block-ddim": {**CLASS, "sampler": "ddim", "steps": 14, "class_label": 2, "step_cache": "first-block:0.2"},
    }),
    "pixart_alpha": (PixArtAlphaPipeline, {}, {
        "t-gate": {**TEXT, "step_cache": "t-gate:4"},
        "t-gate-unguided": {**TEXT, "guidance_scale": 1.0, "negative_prompt": "", "step_cache": "t-gate:3"},
    }),
    "stable_diffusion": (StableDiffusionPipeline, LATENT, {
        "deep": {**TEXT, "step_cache": "deep:3"},
        "deep-euler-wide": {**TEXT, "sampler": "euler", "width": 64, "step_cache": "deep:4"},
        "deep-unguided": {**TEXT, "sampler": "dpmpp_2m", "guidance_scale": 1.0, "step_cache": "deep:2"},
        "t-gate": {**TEXT, "step_cache": "t-gate:4"},
        "t-gate-euler": {**TEXT, "sampler": "euler", "step_cache": "t-gate:1"},
    }),
    "stable_diffusion_xl": (StableDiffusionXLPipeline, {"add_watermarker": False}, {
        "deep": {**TEXT, "step_cache": "deep:3"},
        "t-gate": {**TEXT, "step_cache": "t-gate:5"},
    }),
}


def network(pipeline):
    return getattr(pipeline, "unet", None) or pipeline.transformer


def skipped_layer(pipeline, kind):
    """A layer that is computed in every whole evaluation and in no other."""
    net = network(pipeline)
    if kind == "first-block":
        return net.transformer_blocks[-1].ff
    if kind == "deep":
        return net.mid_block.resnets[0]
    return [module for name, module in net.named_modules() if name.endswith("attn2.to_k")][0]


def run(pipeline, name, case, dtype):
    kind, value = case["step_cache"].split(":")
    case = {key: value for key, value in case.items() if key != "step_cache"}
    net, counts = network(pipeline), {"all": 0, "whole": 0}
    handles = [
        (net.conv_in if hasattr(net, "conv_in") else net.pos_embed).register_forward_hook(lambda *_: counts.update(all=counts["all"] + 1)),
        skipped_layer(pipeline, kind).register_forward_hook(lambda *_: counts.update(whole=counts["whole"] + 1)),
    ]
    helper, call = None, pipeline
    if kind == "first-block":
        apply_first_block_cache(net, FirstBlockCacheConfig(threshold=float(value)))
        # As `cache_context` does, which these networks lack.
        _set_cache_context(net, CacheContext("both prompts"))
    elif kind == "deep":
        helper = DeepCacheSDHelper(pipe=pipeline)
        helper.set_params(cache_interval=int(value), cache_branch_id=0)
        helper.enable()
    else:
        load = {"pixart_alpha": TgatePixArtAlphaLoader, "stable_diffusion": TgateSDLoader, "stable_diffusion_xl": TgateSDXLLoader}[name]
        settings = {"gate_step": int(value), "sp_interval": 1, "fi_interval": 1, "warm_up": 0}
        pipeline = load(pipeline, **settings)
        if case["guidance_scale"] <= 1.0:
            settings["lcm"] = True  # their word for one prediction, whose attentions are no pairs
        call = lambda **arguments: pipeline.tgate(**settings, **arguments)
    if name == "pixels":
        picture, timesteps = pipeline.to(dtype)(**case, dtype=dtype)
    elif name == "dit":
        picture, timesteps = make_noise_pipelines.draw(pipeline, case, dtype)
    else:
        picture, timesteps = draw(pipeline.to(dtype), call, case, dtype)
    for handle in handles:
        handle.remove()
    if helper:
        helper.disable()
    return picture, timesteps, counts["all"] - counts["whole"]


def draw(pipeline, call, case, dtype):
    """Noise is drawn in f32 for either type: torch's stream differs between them."""
    arguments = {key: case[key] for key in ("prompt", "guidance_scale", "height", "width")}
    generator = torch.Generator("cpu").manual_seed(case["seed"])
    factor = pipeline.vae_scale_factor
    latents = torch.randn((1, 4, case["height"] // factor, case["width"] // factor), generator=generator).to(dtype)
    more = {"use_resolution_binning": False} if isinstance(pipeline, PixArtAlphaPipeline) else {}
    picture = call(**arguments, **more, negative_prompt=case["negative_prompt"] or None, latents=latents, generator=generator,
                   num_inference_steps=case["steps"], output_type="np").images[0]
    return (picture * 255).round().astype("uint8"), [float(t) for t in pipeline.scheduler.timesteps]


def load(name, sampler):
    """A fresh one for every picture: hooks stay where they are."""
    kind, arguments, _ = PIPELINES[name]
    folder = HERE / "pipelines" / name
    if name == "pixels":
        return kind(folder)
    pipeline = kind.from_pretrained(folder, torch_dtype=torch.float32, **arguments)
    if sampler:
        pipeline.scheduler = getattr(diffusers, SAMPLERS[sampler]).from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def main():
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    make_noise_pipelines.draw_in_f32()
    for name, (_, _, cases) in PIPELINES.items():
        out, listed = HERE / "step_caches" / name, []
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        for case_name, case in cases.items():
            picture, timesteps, reused = run(load(name, case["sampler"]), name, case, torch.float32)
            precise, _, again = run(load(name, case["sampler"]), name, case, torch.float64)
            rounding = int(np.abs(picture.astype(int) - precise).max())
            assert rounding <= 1 and reused == again, f"{case_name}: f32 and f64 differ by {rounding} of 255, {reused} and {again} were reused"
            height, width = picture.shape[:2]
            Image.fromarray(picture).save(out / f"{case_name}.png", optimize=True)
            print(f"{name:20}{case_name:24}f64 differs by {rounding}, {reused} of {len(timesteps)} reused, spread {picture.std():.0f}")
            listed.append({"file": f"{case_name}.png", **case, "height": height, "width": width, "timesteps": timesteps, "reused": reused})
        (out / "cases.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in listed) + "\n]\n")


if __name__ == "__main__":
    main()
