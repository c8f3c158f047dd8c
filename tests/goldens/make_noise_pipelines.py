"""Tiny pipelines that see no text, and the pictures that diffusers' own pipelines make with them: pipelines/ddpm,
pipelines/consistency and pipelines/dit.

    pip install -r requirements.txt && python make_noise_pipelines.py [NAME...]

Trained for a minute on coloured squares, as those of make_pipelines.py and for the same reason. Every picture is made a second
time in f64; where the two differ by more than one grey level the case would test rounding, and stops the script.
"""

import json
import shutil
import sys

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import (AutoencoderKL, CMStochasticIterativeScheduler, ConsistencyModelPipeline, DDIMPipeline, DDIMScheduler, DDPMPipeline,
                       DDPMScheduler, DiTPipeline, DiTTransformer2DModel, UNet2DModel)
from PIL import Image
from safetensors.torch import load_file, save_file

from make_latents import minimise
from make_pictures import SAMPLERS
from make_pipelines import COLOURS, HERE

# Ends at a sigma of 4, not 150: a tiny network's error in epsilon is multiplied by it.
BETAS = {"num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.0055, "beta_schedule": "linear"}
STEPS = 8
# As the first checkpoints of DDPM: no folders, and names of attention from before diffusers 0.17.
DDPM = {"sample_size": (16, 24), "block_out_channels": (12, 24), "layers_per_block": 1, "norm_num_groups": 4, "norm_eps": 1e-6,
        "attention_head_dim": None, "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
OLDER = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
# As OpenAI's of ImageNet.
CONSISTENCY = {"sample_size": 16, "block_out_channels": (12, 16, 16), "layers_per_block": 1, "norm_num_groups": 4, "attn_norm_num_groups": 4,
               "attention_head_dim": 8, "num_class_embeds": len(COLOURS), "resnet_time_scale_shift": "scale_shift", "downsample_type": "resnet",
               "upsample_type": "resnet", "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
               "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D")}

DIT = {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 8, "num_layers": 2, "sample_size": 12}


def batch(height, width, count):
    """Squares of one colour on another, with the number of the square's colour."""
    colours = torch.tensor(list(COLOURS.values()), dtype=torch.float32) * 0.8
    pictures, labels = torch.empty(count, 3, height, width), torch.empty(count, dtype=torch.long)
    for i in range(count):
        labels[i], background = torch.randperm(len(colours))[:2]
        pictures[i] = colours[background][:, None, None]
        y, x = torch.randint(1, height // 2, (1,)), torch.randint(1, width // 2, (1,))
        pictures[i, :, y:y + height // 2, x:x + height // 2] = colours[labels[i]][:, None, None]
    return pictures, labels


def ddpm(folder):
    net, scheduler = UNet2DModel(**DDPM), DDPMScheduler(**BETAS)

    def loss():
        x0, _ = batch(*DDPM["sample_size"], 16)
        noise, t = torch.randn_like(x0), torch.randint(0, 1000, (len(x0),))
        return F.mse_loss(net(scheduler.add_noise(x0, noise, t), t).sample, noise)

    minimise("ddpm", net.parameters(), 2000, loss)
    net.half().save_pretrained(folder)
    weights = folder / "diffusion_pytorch_model.safetensors"
    older = {}
    for name, tensor in load_file(weights).items():
        for new, old in OLDER.items():
            name = name.replace(f".{new}.", f".{old}.")
        older[name] = tensor
    save_file(older, weights, metadata={"format": "pt"})
    scheduler.save_pretrained(folder)
    return DDPMPipeline, {"scheduler": scheduler, "unet": net}


def consistency(folder):
    """It learns to denoise, which is not consistent, and serves as well: one step makes the mean picture of a class."""
    net, scheduler = UNet2DModel(**CONSISTENCY), CMStochasticIterativeScheduler(sigma_max=20.0)
    c = scheduler.config

    def loss():
        x0, labels = batch(16, 16, 16)
        sigma = (0.05 + 20 * torch.rand(len(x0), 1, 1, 1) ** 4)
        x = x0 + sigma * torch.randn_like(x0)
        c_skip, c_out = scheduler.get_scalings_for_boundary_condition(sigma)
        t = 250 * torch.log(sigma.flatten() + 1e-44)
        out = net(x / (sigma**2 + c.sigma_data**2) ** 0.5, t, class_labels=labels).sample
        return F.mse_loss(c_skip * x + c_out * out, x0)

    minimise("consistency", net.parameters(), 2000, loss)
    net.half().save_pretrained(folder / "unet")
    scheduler.save_pretrained(folder / "scheduler")
    return ConsistencyModelPipeline, {"scheduler": scheduler, "unet": net}


def dit(folder):
    """The class of none is 1000, whatever the configuration says, so that there must be a thousand; five are taught."""
    net, scheduler = DiTTransformer2DModel(**DIT), DDIMScheduler(**BETAS, clip_sample=False)
    vae = AutoencoderKL(block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
                        latent_channels=4, norm_num_groups=4, sample_size=24)

    def reconstruction():
        x0, _ = batch(24, 24, 16)
        latents = vae.encode(x0).latent_dist
        kl = 0.5 * (latents.mean ** 2 + latents.var - 1 - latents.logvar).mean()
        return F.mse_loss(vae.decode(latents.sample()).sample, x0) + 1e-3 * kl

    minimise("dit vae", vae.parameters(), 1200, reconstruction)
    vae.requires_grad_(False)
    vae.register_to_config(scaling_factor=round(1 / float(vae.encode(batch(24, 24, 256)[0]).latent_dist.mean.std()), 3))

    def loss():
        x0, labels = batch(24, 24, 32)
        x0 = vae.encode(x0).latent_dist.mean * vae.config.scaling_factor
        labels[::6] = 1000
        noise, t = torch.randn_like(x0), torch.randint(0, 1000, (len(x0),))
        return F.mse_loss(net(scheduler.add_noise(x0, noise, t), t, labels).sample[:, :4], noise)

    minimise("dit", net.parameters(), 2000, loss)
    net.half().save_pretrained(folder / "transformer")
    vae.half().save_pretrained(folder / "vae")
    scheduler.save_pretrained(folder / "scheduler")
    return DiTPipeline, {"scheduler": scheduler, "transformer": net, "vae": vae}


def cases(name):
    base = {"sampler": None, "prompt": "", "negative_prompt": "", "seed": 0, "steps": STEPS, "guidance_scale": 1.0}
    if name == "ddpm":
        base |= {"height": 16, "width": 24}
        yield "default", base
        yield "default-more", {**base, "seed": 7, "steps": 20}
        for sampler in SAMPLERS:
            yield sampler, {**base, "sampler": sampler, "seed": 1234567890123}
        return
    if name == "dit":
        guided = {**base, "height": 24, "width": 24, "guidance_scale": 3.0, "class_label": 0}
        yield "class-0", guided
        yield "class-2-unguided", {**guided, "class_label": 2, "guidance_scale": 1.0, "seed": 7}
        yield "class-4-ddpm", {**guided, "class_label": 4, "sampler": "ddpm", "seed": 1234567890123}
        yield "class-4-ddpm-unguided", {**guided, "class_label": 4, "sampler": "ddpm", "guidance_scale": 1.0}
        yield "class-3-dpmpp_2m", {**guided, "class_label": 3, "sampler": "dpmpp_2m", "steps": 12}
        return
    base |= {"height": 16, "width": 16}
    for steps in (1, 2, 5):
        yield f"class-0-{steps}", {**base, "steps": steps, "class_label": 0}
    yield "class-4-timesteps", {**base, "class_label": 4, "seed": 7, "steps": 3, "explicit_timesteps": [22, 13, 0]}


class Loop:
    """A sampler that diffusers' pipeline of the checkpoint does not scale inputs for."""

    def __init__(self, unet, scheduler):
        self.unet, self.scheduler = unet, scheduler

    def to(self, dtype):
        self.unet.to(dtype)
        return self

    def __call__(self, generator, num_inference_steps, output_type):
        self.scheduler.set_timesteps(num_inference_steps)
        x = torch.randn((1, 3, *self.unet.config.sample_size), generator=generator).to(self.unet.dtype) * self.scheduler.init_noise_sigma
        for t in self.scheduler.timesteps:
            out = self.unet(self.scheduler.scale_model_input(x, t), t).sample
            x = self.scheduler.step(out, t, x).prev_sample
        self.images = (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
        return self


def draw_in_f32():
    """Noise is drawn in f32 for either type: torch's stream differs between them."""
    def randn_tensor(shape, generator=None, device=None, dtype=None, layout=None):
        return torch.randn(shape, generator=generator).to(dtype)

    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("diffusers.") and "randn_tensor" in vars(module):
            module.randn_tensor = randn_tensor


def draw(pipeline, case, dtype):
    """The picture and the timesteps."""
    arguments = {"num_inference_steps": case["steps"]}
    if isinstance(pipeline, DiTPipeline):
        arguments |= {"class_labels": [case["class_label"]], "guidance_scale": case["guidance_scale"]}
    elif "class_label" in case:
        arguments["class_labels"] = case["class_label"]
    if "explicit_timesteps" in case:
        arguments = {**arguments, "timesteps": case["explicit_timesteps"], "num_inference_steps": None}
    # PyTorch's own generator: DiTPipeline gives schedulers none, and so they draw from that one.
    generator = torch.manual_seed(case["seed"])
    picture = pipeline.to(dtype)(**arguments, generator=generator, output_type="np").images[0]
    return (picture * 255).round().astype("uint8"), [float(t) for t in pipeline.scheduler.timesteps]


def with_sampler(pipeline, sampler):
    if not sampler:
        return pipeline
    scheduler = getattr(diffusers, {**SAMPLERS, "ddpm": "DDPMScheduler"}[sampler]).from_config(pipeline.scheduler.config)
    if isinstance(pipeline, DiTPipeline):
        return DiTPipeline(transformer=pipeline.transformer, vae=pipeline.vae, scheduler=scheduler)
    return (DDIMPipeline if sampler == "ddim" else Loop)(pipeline.unet, scheduler)


def pictures(name, folder, kind):
    pipeline = kind.from_pretrained(folder, torch_dtype=torch.float32)
    draw_in_f32()
    listed, out = [], folder / "pictures"
    out.mkdir()
    for case_name, case in cases(name):
        made = with_sampler(pipeline, case["sampler"])
        if not isinstance(made, Loop):
            made.set_progress_bar_config(disable=True)
        picture, timesteps = draw(made, case, torch.float32)
        precise, _ = draw(made, case, torch.float64)
        rounding = int(np.abs(picture.astype(int) - precise).max())
        assert rounding <= 1, f"{case_name}: f32 and f64 differ by {rounding} of 255"
        Image.fromarray(picture).save(out / f"{case_name}.png", optimize=True)
        saturated = float(np.isin(picture, [0, 255]).mean())
        print(f"{name:20}{case_name:24}f64 differs by {rounding}, {saturated:4.0%} saturated, spread {picture.std():.0f}")
        listed.append({"file": f"{case_name}.png", **case, "timesteps": timesteps, "f64_difference": rounding})
    (out / "cases.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in listed) + "\n]\n")


def main():
    torch.set_num_threads(1)  # such small products only lose time to more
    for name in sys.argv[1:] or ("ddpm", "consistency", "dit"):
        folder = HERE / "pipelines" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        torch.manual_seed(0)
        kind, parts = {"ddpm": ddpm, "consistency": consistency, "dit": dit}[name](folder)
        index = {"_class_name": kind.__name__, "_diffusers_version": diffusers.__version__}
        index |= {part: ["diffusers", type(model).__name__] for part, model in parts.items()}
        if name == "dit":
            index["id2label"] = {str(i): name for i, name in enumerate(COLOURS)}
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
        with torch.no_grad():
            pictures(name, folder, kind)


if __name__ == "__main__":
    main()
