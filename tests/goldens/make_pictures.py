"""Pictures that diffusers makes from a PixArt pipeline whose text encoder is CLIP's, in pixel space or on latents, with every sampler we have: pictures/
in each folder.

    pip install -r requirements.txt && python make_pictures.py FOLDER... [--out DIR] [--steps N]

diffusers' PixArtAlphaPipeline needs an autoencoder and T5, so its loop stands here, line for line in the same order: prompts padded
to the encoder's length with their mask, [negative, positive] in one batch, guidance, learned sigma dropped, the step of
diffusers' own scheduler made by `from_config`. Every picture is made a second time with networks in f64; a case in which the
two differ by more than one grey level would test rounding, not us, and stops the script.
"""

import argparse
import inspect
import json
import shutil
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL, PixArtTransformer2DModel
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

SAMPLERS = {
    "euler": "EulerDiscreteScheduler", "heun": "HeunDiscreteScheduler", "ddim": "DDIMScheduler", "dpmpp_2m": "DPMSolverMultistepScheduler",
}
PROMPT, NEGATIVE = "a red square on a blue background", "yellow, blurry"
NON_ASCII = {"prompt": "un carré ROUGE ❤ 红", "negative_prompt": "жёлтый"}  # fits the tiny tokenizers' 20 tokens


def cases(side, steps):
    """sampler None is the one of scheduler_config.json. Sides are multiples of every patch in use."""
    base = {"sampler": None, "prompt": PROMPT, "negative_prompt": "", "seed": 0, "steps": steps, "guidance_scale": 1.0, "height": side, "width": side}
    guided = {**base, "negative_prompt": NEGATIVE, "seed": 1234567890123, "guidance_scale": 4.5, "height": side, "width": 2 * side}
    for sampler in SAMPLERS:
        yield f"{sampler}", {**base, "sampler": sampler}
        yield f"{sampler}-guided-wide", {**guided, "sampler": sampler}
    yield "default-tall", {**guided, "seed": 7, "height": side + side // 2, "width": side}
    yield "non-ascii", {**base, "prompt": "un carré rouge naïf ❤️ 红色", "negative_prompt": "жёлтый", "guidance_scale": 4.5}
    yield "too-long", {**base, "prompt": "a green square, " * 30, "guidance_scale": 4.5}
    yield "empty", {**base, "prompt": "", "guidance_scale": 4.5, "steps": max(2, steps // 2)}


def consistency_cases(side):
    """A consistency model knows one sampler and needs no guidance."""
    base = {"sampler": None, "prompt": PROMPT, "negative_prompt": "", "seed": 0, "steps": 1, "guidance_scale": 1.0, "height": side, "width": side}
    yield "one-step", base
    yield "two-steps-wide", {**base, "seed": 1234567890123, "steps": 2, "width": 2 * side}
    yield "four-steps-non-ascii", {**base, "prompt": NON_ASCII["prompt"], "seed": 7, "steps": 4}
    yield "empty", {**base, "prompt": "", "seed": 3, "steps": 2}


class Pipeline:
    def __init__(self, folder):
        folder = Path(folder)
        self.index = json.loads((folder / "model_index.json").read_text())
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        self.text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()
        self.transformer = PixArtTransformer2DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32).eval()
        latent = self.index["vae"][0] is not None
        self.vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).eval() if latent else None
        self.scheduler_class = getattr(diffusers, self.index["scheduler"][1])
        self.scheduler = self.scheduler_class.from_pretrained(folder / "scheduler")

    def to(self, dtype):
        for network in filter(None, (self.text_encoder, self.transformer, self.vae)):
            network.to(dtype)
        return self

    @property
    def reduction(self):
        """Pixels to a latent, in each direction."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1) if self.vae else 1

    def encode(self, prompt):
        length = min(120, self.tokenizer.model_max_length)
        inputs = self.tokenizer(prompt, padding="max_length", max_length=length, truncation=True, add_special_tokens=True, return_tensors="pt")
        return self.text_encoder(inputs.input_ids, attention_mask=inputs.attention_mask)[0], inputs.attention_mask

    def __call__(self, sampler, prompt, negative_prompt, seed, steps, guidance_scale, height, width, dtype=torch.float32):
        kind = getattr(diffusers, SAMPLERS[sampler]) if sampler else self.scheduler_class
        scheduler = kind.from_config(self.scheduler.config)
        guided = guidance_scale > 1.0
        embeds, mask = self.encode(prompt)
        if guided:
            negative_embeds, negative_mask = self.encode(negative_prompt)
            embeds, mask = torch.cat([negative_embeds, embeds]), torch.cat([negative_mask, mask])
        scheduler.set_timesteps(steps)
        channels = self.transformer.config.in_channels
        generator = torch.Generator("cpu").manual_seed(seed)
        noise = torch.randn((1, channels, height // self.reduction, width // self.reduction), generator=generator)
        # As diffusers' pipelines do: a scheduler that adds noise goes on where the first left off.
        extra = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
        x = noise.to(dtype) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            inputs = torch.cat([x] * 2) if guided else x
            inputs = scheduler.scale_model_input(inputs, t)
            out = self.transformer(
                inputs, encoder_hidden_states=embeds, encoder_attention_mask=mask, timestep=t.expand(inputs.shape[0]),
                added_cond_kwargs={"resolution": None, "aspect_ratio": None}).sample
            if guided:
                negative, positive = out.chunk(2)
                out = negative + guidance_scale * (positive - negative)
            if self.transformer.config.out_channels // 2 == channels:
                out = out.chunk(2, dim=1)[0]
            x = scheduler.step(out, t, x, return_dict=False, **extra)[0]
        if self.vae:
            x = self.vae.decode(x / self.vae.config.scaling_factor).sample
        image = (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).float().numpy()
        return (image * 255).round().astype("uint8")[0], [float(t) for t in scheduler.timesteps]


def drawn(shape, generator=None, dtype=None, **_):
    """Noise in f32 whatever the type: torch's stream differs between them."""
    return torch.randn(shape, generator=generator).to(dtype)


def make(folder, out, steps):
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    pipeline, listed = Pipeline(folder), []
    side = pipeline.transformer.config.sample_size * pipeline.reduction
    consistent = pipeline.scheduler_class is diffusers.LCMScheduler
    for name, case in consistency_cases(side) if consistent else cases(side, steps):
        picture, timesteps = pipeline.to(torch.float32)(**case)
        precise, _ = pipeline.to(torch.float64)(**case, dtype=torch.float64)
        rounding = int(np.abs(picture.astype(int) - precise).max())
        assert rounding <= 1, f"{name}: f32 and f64 differ by {rounding} of 255"
        Image.fromarray(picture).save(out / f"{name}.png", optimize=True)
        saturated = float(np.isin(picture, [0, 255]).mean())
        print(f"{folder.name:12}{name:24}{picture.shape!s:16}f64 differs by {rounding}, {saturated:4.0%} saturated, spread {picture.std():.0f}")
        listed.append({"file": f"{name}.png", **case, "timesteps": timesteps, "f64_difference": rounding})
    (out / "cases.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in listed) + "\n]\n")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folders", nargs="+", type=Path)
    p.add_argument("--out", type=Path, help="where to write; FOLDER/pictures if not given")
    p.add_argument("--steps", type=int, default=8)
    a = p.parse_args()
    torch.set_grad_enabled(False)
    diffusers.schedulers.scheduling_lcm.randn_tensor = drawn
    for folder in a.folders:
        make(folder, a.out or folder / "pictures", a.steps)


if __name__ == "__main__":
    main()
