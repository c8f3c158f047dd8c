"""Pictures from an exported folder, through diffusers' own scheduler class.

    python sample.py MODEL "a red heart" "a green apple" --out grid.png
"""

import argparse
import json
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL, PixArtTransformer2DModel
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from data import encode

PROMPTS = ["a red heart", "a green apple", "a yellow star", "a blue fish", "a cat face", "a pizza", "a purple heart", "a house"]


def load_autoencoder(folder):
    """In f32; None if the folder's model has none."""
    if not (Path(folder) / "vae").exists():
        return None
    return AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=torch.float32).eval().requires_grad_(False)


def load(folder):
    """-> (transformer, text encoder, tokenizer, scheduler, autoencoder or None, defaults), the networks in f32."""
    folder = Path(folder)
    index = json.loads((folder / "model_index.json").read_text())
    return (
        PixArtTransformer2DModel.from_pretrained(folder, subfolder="transformer", torch_dtype=torch.float32).eval(),
        CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=torch.float32).eval(),
        CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        getattr(diffusers, index["scheduler"][1]).from_pretrained(folder, subfolder="scheduler"),
        load_autoencoder(folder),
        index["headwater"],
    )


@torch.no_grad()
def generate(transformer, text_encoder, tokenizer, scheduler, autoencoder, prompts, steps, guidance, negative="", seed=0):
    """-> uint8 (len(prompts), height, width, 3). Picture i starts from the noise of seed + i.

    Classifier-free guidance: x' = u + g (c - u) on the model's output (Ho & Salimans 2022); at g = 1 that is c alone."""
    channels, size = transformer.config.in_channels, transformer.config.sample_size
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    x = torch.cat([torch.randn(1, channels, size, size, generator=g) for g in generators])
    noisy_steps = {"generator": generators} if isinstance(scheduler, diffusers.LCMScheduler) else {}
    free = guidance == 1.0
    ids, mask = encode(tokenizer, [negative] * (0 if free else len(prompts)) + list(prompts), "longest")
    text = text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    scheduler.set_timesteps(steps)
    x = x * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        both = scheduler.scale_model_input(x if free else torch.cat([x, x]), t)
        out = transformer(both, encoder_hidden_states=text, timestep=t.expand(len(both)), encoder_attention_mask=mask).sample
        if not free:
            u, c = out.chunk(2)
            out = u + guidance * (c - u)
        x = scheduler.step(out, t, x, **noisy_steps).prev_sample
    if autoencoder:
        x = torch.cat([autoencoder.decode(part / autoencoder.config.scaling_factor).sample for part in x.split(8)])
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def enlarge(pictures, size):
    """Each to size x size, if it is smaller."""
    return [p if len(p) >= size else np.array(Image.fromarray(p).resize((size, size), Image.BICUBIC)) for p in pictures]


def grid(pictures, columns, scale=None):
    """One image of all pictures, each pixel `scale` wide; as it is, 64x64 are drawn twice as large and 128x128 as they are."""
    scale = scale or max(1, 128 // len(pictures[0]))
    rows = [np.concatenate(pictures[i : i + columns], 1) for i in range(0, len(pictures), columns)]
    return Image.fromarray(np.concatenate(rows).repeat(scale, 0).repeat(scale, 1))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("prompts", nargs="*", default=PROMPTS)
    p.add_argument("--out", default="grid.png")
    p.add_argument("--steps", type=int, nargs="*", help="several: one picture per prompt and number, a row of each number")
    p.add_argument("--guidance", type=float)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--count", type=int, default=4, help="pictures per prompt: one row of the grid")
    p.add_argument("--columns", type=int, help="one picture per prompt, so many a row")
    p.add_argument("--scale", type=int, help="how wide each pixel is drawn; by default 2 of pictures of 64, 1 of larger ones")
    a = p.parse_intermixed_args()
    *parts, defaults = load(a.model)
    steps, guidance = a.steps or [defaults["num_inference_steps"]], a.guidance or defaults["guidance_scale"]
    prompts = a.prompts or PROMPTS
    if a.columns or len(steps) > 1:
        rows, columns = [generate(*parts, prompts, n, guidance, seed=a.seed) for n in steps], a.columns or len(prompts)
    else:
        rows, columns = [generate(*parts, [prompt] * a.count, *steps, guidance, seed=a.seed) for prompt in prompts], a.count
    grid(np.concatenate(rows), columns, a.scale).save(a.out)


if __name__ == "__main__":
    main()
