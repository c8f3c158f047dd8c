"""Tiny pipelines that begin with a picture, in diffusers' layout: pipelines/inpainting and pipelines/upscaler, whose networks see it, and
pipelines/refiner.

    pip install -r requirements.txt && python make_edited_pipelines.py [NAME...] && python make_edits.py

Trained for a minute on the coloured squares of make_pipelines.py; text encoder and tokenizer (and the autoencoder of inpainting) are those
of pipelines/stable_diffusion, or of pipelines/stable_diffusion_xl for the refiner.
"""

import shutil
import sys

import torch
import torch.nn.functional as F
from diffusers import (AutoencoderKL, DDIMScheduler, DDPMScheduler, PNDMScheduler, StableDiffusionInpaintPipeline, StableDiffusionPipeline,
                       StableDiffusionUpscalePipeline, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline, UNet2DConditionModel)

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


def refiner(parts):
    """As the refiner of SDXL, the second text encoder alone and a score; with means and deviations of latents, as Playground has them."""
    vae, text, tokenizer = parts.vae, parts.text_encoder_2, parts.tokenizer_2
    raw = vae.encode(batch(SIZE, 64)[0]).latent_dist.mean
    rounded = lambda values: [round(v, 4) for v in values.tolist()]
    vae.register_to_config(scaling_factor=0.5, latents_mean=rounded(raw.mean((0, 2, 3))), latents_std=rounded(raw.std((0, 2, 3))))
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
    net = UNet2DConditionModel(**{
        **SMALL, "attention_head_dim": (2, 3), "block_out_channels": (8, 12), "cross_attention_dim": 16, "use_linear_projection": True,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 20 + 5 * 8})
    noiser = DDPMScheduler(**BETAS)

    def prediction():
        x0, captions = batch(SIZE, 32)
        tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        with torch.no_grad():
            out = text(tokens.input_ids, output_hidden_states=True)
            # A low score is a pale picture.
            score = 2 + 5 * torch.rand(len(x0))
            x0 = (vae.encode(x0 * (score / 7)[:, None, None, None]).latent_dist.mean - mean) * vae.config.scaling_factor / std
        noise, t = torch.randn_like(x0), torch.randint(0, 1000, (len(x0),))
        ids = torch.cat([torch.tensor([[SIZE, SIZE, 0.0, 0.0]]).expand(len(x0), 4), score[:, None]], 1)
        added = {"text_embeds": out.text_embeds, "time_ids": ids}
        return F.mse_loss(net(noiser.add_noise(x0, noise, t), t, out.hidden_states[-2], added_cond_kwargs=added).sample, noise)

    minimise("refiner unet", net.parameters(), 600, prediction)
    return StableDiffusionXLImg2ImgPipeline(
        vae=vae, text_encoder=None, text_encoder_2=text, tokenizer=None, tokenizer_2=tokenizer, unet=net, scheduler=parts.scheduler,
        requires_aesthetics_score=True, force_zeros_for_empty_prompt=False, add_watermarker=False)


MAKE = {
    "inpainting": (inpainting, StableDiffusionPipeline, "stable_diffusion", "tokenizer"),
    "upscaler": (upscaler, StableDiffusionPipeline, "stable_diffusion", "tokenizer"),
    "refiner": (refiner, StableDiffusionXLPipeline, "stable_diffusion_xl", "tokenizer_2"),
}


def main():
    torch.set_num_threads(1)
    for name in sys.argv[1:] or MAKE:
        torch.manual_seed(0)
        make, kind, source, tokenizer = MAKE[name]
        extra = {"safety_checker": None} if kind is StableDiffusionPipeline else {"add_watermarker": False}
        parts = kind.from_pretrained(HERE / "pipelines" / source, torch_dtype=torch.float32, **extra)
        texts = [part for part in (parts.text_encoder, getattr(parts, "text_encoder_2", None)) if part is not None]
        for part in (parts.vae, *texts):
            part.requires_grad_(False)
        folder = HERE / "pipelines" / name
        shutil.rmtree(folder, ignore_errors=True)
        make(parts).to(torch.float16).save_pretrained(folder)
        shutil.rmtree(folder / tokenizer)
        shutil.copytree(HERE / "pipelines" / source / tokenizer, folder / tokenizer)


if __name__ == "__main__":
    main()
