"""Two tiny pipelines whose networks see a picture, in diffusers' layout: pipelines/inpainting and pipelines/upscaler.

    pip install -r requirements.txt && python make_edited_pipelines.py [NAME...] && python make_edits.py

Trained for a minute on the coloured squares of make_pipelines.py; text encoder and tokenizer (and the autoencoder of inpainting) are those
of pipelines/stable_diffusion.
"""

import shutil
import sys

import torch
import torch.nn.functional as F
from diffusers import (AutoencoderKL, DDIMScheduler, DDPMScheduler, PNDMScheduler, StableDiffusionInpaintPipeline, StableDiffusionPipeline,
                       StableDiffusionUpscalePipeline, UNet2DConditionModel)

from make_latents import BETAS, NET, encode, minimise
from make_pipelines import HERE, batch

SIZE = 32
SMALL = {**NET, "block_out_channels": (8, 16), "attention_head_dim": 4}
LOW = {"num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}


def masks(count, size):
    """Rectangles; one in four is everywhere."""
    out = torch.zeros(count, 1, size, size)
    for i in range(count):
        y, x = torch.randint(0, size // 2, (2,))
        h, w = torch.randint(size // 4, size, (2,))
        out[i, :, y:y + h, x:x + w] = 1
    out[::4] = 1
    return out


def inpainting(parts):
    vae = parts.vae
    net = UNet2DConditionModel(**{**SMALL, "in_channels": 9})
    noiser = DDPMScheduler(**BETAS)
    latents = lambda pictures: vae.encode(pictures).latent_dist.sample() * vae.config.scaling_factor

    def prediction():
        x0, captions = batch(SIZE, 32)
        mask = masks(len(x0), SIZE)
        with torch.no_grad():
            hidden, _ = encode([(parts.tokenizer, parts.text_encoder)], captions)
            clean, rest = latents(x0), latents(x0 * (mask < 0.5))
        noise, t = torch.randn_like(clean), torch.randint(0, 1000, (len(x0),))
        seen = torch.cat([noiser.add_noise(clean, noise, t), F.interpolate(mask, size=clean.shape[-2:]), rest], 1)
        return F.mse_loss(net(seen, t, hidden).sample, noise)

    minimise("inpainting unet", net.parameters(), 1000, prediction)
    return StableDiffusionInpaintPipeline(
        vae=vae, text_encoder=parts.text_encoder, tokenizer=parts.tokenizer, unet=net,
        scheduler=PNDMScheduler(**BETAS, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False)


def upscaler(parts):
    vae = AutoencoderKL(block_out_channels=(4, 8, 8), down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
                        latent_channels=4, norm_num_groups=4, sample_size=2 * SIZE, mid_block_add_attention=False)

    def reconstruction():
        x0, _ = batch(2 * SIZE, 12)
        latents = vae.encode(x0).latent_dist
        kl = 0.5 * (latents.mean ** 2 + latents.var - 1 - latents.logvar).mean()
        return F.mse_loss(vae.decode(latents.sample()).sample, x0) + 1e-3 * kl

    minimise("upscaler vae", vae.parameters(), 500, reconstruction)
    vae.requires_grad_(False)
    vae.register_to_config(scaling_factor=round(1 / vae.encode(batch(2 * SIZE, 64)[0]).latent_dist.mean.std().item(), 4))
    net = UNet2DConditionModel(**{**SMALL, "in_channels": 7, "num_class_embeds": 100})
    noiser, low = DDPMScheduler(**BETAS), DDPMScheduler(**LOW)

    def prediction():
        x0, captions = batch(2 * SIZE, 24)
        with torch.no_grad():
            hidden, _ = encode([(parts.tokenizer, parts.text_encoder)], captions)
            clean = vae.encode(x0).latent_dist.mean * vae.config.scaling_factor
        small = F.interpolate(x0, size=clean.shape[-2:], mode="area")
        level = torch.randint(0, 100, (len(x0),))
        small = low.add_noise(small, torch.randn_like(small), level)
        noise, t = torch.randn_like(clean), torch.randint(0, 1000, (len(x0),))
        seen = torch.cat([noiser.add_noise(clean, noise, t), small], 1)
        return F.mse_loss(net(seen, t, hidden, class_labels=level).sample, noiser.get_velocity(clean, noise, t))

    minimise("upscaler unet", net.parameters(), 1000, prediction)
    return StableDiffusionUpscalePipeline(
        vae=vae, text_encoder=parts.text_encoder, tokenizer=parts.tokenizer, unet=net, low_res_scheduler=DDPMScheduler(**LOW),
        scheduler=DDIMScheduler(**BETAS, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        max_noise_level=90)


def main():
    torch.set_num_threads(1)
    for name in sys.argv[1:] or ("inpainting", "upscaler"):
        torch.manual_seed(0)
        parts = StableDiffusionPipeline.from_pretrained(HERE / "pipelines/stable_diffusion", torch_dtype=torch.float32, safety_checker=None)
        for part in (parts.vae, parts.text_encoder):
            part.requires_grad_(False)
        folder = HERE / "pipelines" / name
        shutil.rmtree(folder, ignore_errors=True)
        {"inpainting": inpainting, "upscaler": upscaler}[name](parts).to(torch.float16).save_pretrained(folder)
        shutil.rmtree(folder / "tokenizer")
        shutil.copytree(HERE / "pipelines/stable_diffusion/tokenizer", folder / "tokenizer")


if __name__ == "__main__":
    main()
