"""Three tiny latent pipelines in diffusers' layout, and the pictures that diffusers' own pipelines make with them:
pipelines/stable_diffusion, pipelines/stable_diffusion_xl and pipelines/latent_consistency.

    pip install -r requirements.txt && python make_latents.py [--pictures] [NAME...]

Trained for a minute on coloured squares, as those of make_pipelines.py and for the same reason; with --pictures the checkpoints
that are there are kept. Every picture is made a second
time in f64; where the two differ by more than one grey level the case would test rounding, and stops the script.
"""

import json
import shutil
import sys
from pathlib import Path

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import (AutoencoderKL, AutoencoderTiny, DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, LatentConsistencyModelPipeline,
                       LCMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel)
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from make_pictures import NEGATIVE, NON_ASCII, PROMPT, SAMPLERS
from make_pipelines import HERE, batch

SIZE, STEPS = 32, 6
# Ends at a sigma of 4, not 15: a tiny network's error in epsilon is multiplied by it.
BETAS = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.0065, "beta_schedule": "scaled_linear"}
NET = {"sample_size": SIZE // 2, "in_channels": 4, "out_channels": 4, "block_out_channels": (12, 24), "layers_per_block": 1,
       "norm_num_groups": 4, "cross_attention_dim": 24, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
       "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}

PIPELINES = {
    # as Stable Diffusion 2: v-prediction, linear projections, a number of heads per level
    "stable_diffusion": {
        "class": StableDiffusionPipeline, "prediction": "v_prediction", "tokenizer": "files", "hidden_act": "gelu",
        "net": {"attention_head_dim": (2, 3), "use_linear_projection": True}, "vae": {"mid_block_add_attention": True},
        "scheduler": lambda: DDIMScheduler(
            **BETAS, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, steps_offset=1),
    },
    # two text encoders with their last layer but one, a pooled embedding, the picture's size, several layers in a block
    "stable_diffusion_xl": {
        "class": StableDiffusionXLPipeline, "prediction": "epsilon", "tokenizer": "files", "hidden_act": "quick_gelu",
        "net": {"attention_head_dim": (2, 3), "use_linear_projection": True, "transformer_layers_per_block": (1, 2),
                "cross_attention_dim": 24 + 16, "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
                "projection_class_embeddings_input_dim": 20 + 6 * 8}, "vae": {},
        "scheduler": lambda: EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1),
    },
    # as Stable Diffusion 1 and what was distilled from it: epsilon, convolutional projections, guidance as an input; a small autoencoder
    "latent_consistency": {
        "class": LatentConsistencyModelPipeline, "prediction": "epsilon", "tokenizer": "json", "hidden_act": "quick_gelu",
        "net": {"attention_head_dim": 4, "time_cond_proj_dim": 16}, "vae": None,
        "scheduler": lambda: LCMScheduler(**BETAS, set_alpha_to_one=True, original_inference_steps=50),
    },
}


def minimise(name, parameters, steps, loss):
    optimizer = torch.optim.Adam(parameters, lr=2e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for step in range(steps):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        rate.step()
        if step % 200 == 199:
            print(name, step + 1, f"{value.item():.4f}", flush=True)


def train(name, spec):
    torch.manual_seed(0)
    if spec["vae"] is None:
        vae = AutoencoderTiny(encoder_block_out_channels=(12, 12), decoder_block_out_channels=(12, 12), num_encoder_blocks=(1, 1),
                              num_decoder_blocks=(1, 1))
    else:
        vae = AutoencoderKL(
            block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4, norm_num_groups=4, sample_size=SIZE, **spec["vae"])

    def reconstruction():
        x0, _ = batch(SIZE, 16)
        if spec["vae"] is None:
            latents = vae.encode(x0).latents
            return F.mse_loss(vae.decode(latents + 0.1 * torch.randn_like(latents)).sample, x0) + 1e-3 * (latents ** 2).mean()
        latents = vae.encode(x0).latent_dist
        kl = 0.5 * (latents.mean ** 2 + latents.var - 1 - latents.logvar).mean()
        return F.mse_loss(vae.decode(latents.sample()).sample, x0) + 1e-3 * kl

    minimise(f"{name} vae", vae.parameters(), 600, reconstruction)
    vae.requires_grad_(False)
    vae.register_to_config(scaling_factor=round(1 / encoded(vae, batch(SIZE, 64)[0]).std().item(), 4))

    texts = text_parts(spec)
    net = UNet2DConditionModel(**{**NET, **spec["net"]})
    noiser = DDPMScheduler(**BETAS)
    embeds_guidance = net.config.time_cond_proj_dim is not None

    def prediction():
        x0, captions = batch(SIZE, 32)
        x0 = encoded(vae, x0) * vae.config.scaling_factor
        hidden, added = encode(texts, captions)
        noise, t = torch.randn_like(x0), torch.randint(0, 1000, (len(x0),))
        target, condition = noise, None
        if spec["prediction"] == "v_prediction":
            target = noiser.get_velocity(x0, noise, t)
        if embeds_guidance:
            # Not distilled: guidance is taught to be contrast where noise is strong, so that a wrong embedding shows.
            w = 5 * torch.rand(len(x0))
            condition = guidance_embedding(w, net.config.time_cond_proj_dim)
            alpha_bar, contrast = (v[:, None, None, None] for v in (noiser.alphas_cumprod[t], 0.5 + 0.1 * w))
            target = noise + (alpha_bar * (1 - alpha_bar)).sqrt() * (1 - contrast) * x0
        out = net(noiser.add_noise(x0, noise, t), t, hidden, timestep_cond=condition, added_cond_kwargs=added).sample
        return F.mse_loss(out, target)

    minimise(f"{name} unet", [*net.parameters(), *(p for _, text in texts for p in text.parameters())], 1200, prediction)
    return texts, net, vae


def encoded(vae, pictures):
    out = vae.encode(pictures)
    return out.latents if isinstance(vae, AutoencoderTiny) else out.latent_dist.mean


def text_parts(spec):
    """Every tokenizer with its text encoder; of two, the second pads with another token and has a projection."""
    parts = []
    for kind, size in ((CLIPTextModel, 24), (CLIPTextModelWithProjection, 16))[:2 if spec["class"] is StableDiffusionXLPipeline else 1]:
        pad = {"pad_token": "!"} if parts else {}
        tokenizer = CLIPTokenizer.from_pretrained(HERE / "tokenizers" / spec["tokenizer"], **pad)
        parts.append((tokenizer, kind(CLIPTextConfig(
            vocab_size=len(tokenizer), max_position_embeddings=tokenizer.model_max_length, hidden_size=size, num_attention_heads=2,
            num_hidden_layers=2 if spec["class"] is StableDiffusionXLPipeline else 1, intermediate_size=96, projection_dim=20,
            hidden_act="gelu" if parts else spec["hidden_act"], bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id))))
    return parts


def encode(texts, captions):
    out = []
    for tokenizer, text in texts:
        tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        out.append(text(tokens.input_ids, output_hidden_states=True))
    if len(texts) == 1:
        return out[0].last_hidden_state, None
    ids = torch.tensor([[SIZE, SIZE, 0, 0, SIZE, SIZE]], dtype=torch.float32).expand(len(captions), 6)
    return torch.cat([o.hidden_states[-2] for o in out], -1), {"text_embeds": out[1].text_embeds, "time_ids": ids}


def guidance_embedding(w, channels):
    return LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, w, channels)


def save(folder, spec, texts, net, vae):
    shutil.rmtree(folder, ignore_errors=True)
    scheduler = spec["scheduler"]()
    # Half the bytes, and as most checkpoints of these classes are published.
    models = {"unet": net, "vae": vae}
    parts = {"feature_extractor": None, "scheduler": scheduler, **models}
    index = {"_class_name": spec["class"].__name__, "_diffusers_version": diffusers.__version__}
    if len(texts) == 1:
        parts["safety_checker"], index["requires_safety_checker"] = None, False
    else:
        parts["image_encoder"], index["force_zeros_for_empty_prompt"] = None, True
    for suffix, (tokenizer, text) in zip(("", "_2"), texts):
        parts["tokenizer" + suffix], parts["text_encoder" + suffix] = tokenizer, text
        models["text_encoder" + suffix] = text
        to = folder / ("tokenizer" + suffix)
        shutil.copytree(HERE / "tokenizers" / spec["tokenizer"], to)
        for file in ("tokenizer_config.json", "special_tokens_map.json"):
            if (to / file).exists():
                fields = json.loads((to / file).read_text())
                fields["pad_token"] = tokenizer.pad_token
                (to / file).write_text(json.dumps(fields, indent=2) + "\n")
    for part, model in models.items():
        model.half().save_pretrained(folder / part)
    scheduler.save_pretrained(folder / "scheduler")
    for part, model in parts.items():
        library = type(model).__module__.split(".")[0]
        index[part] = [None, None] if model is None else [library, "CLIPTokenizer" if "tokenizer" in part else type(model).__name__]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def cases(name):
    base = {"sampler": None, "prompt": PROMPT, "negative_prompt": "", "seed": 0, "steps": STEPS, "height": SIZE, "width": SIZE}
    if name == "latent_consistency":
        for steps in (1, 2, 4):
            yield f"default-{steps}", {**base, "steps": steps, "guidance_scale": 5.0}
        yield "wide", {**base, "steps": 4, "seed": 5, "guidance_scale": 2.0, "width": 2 * SIZE}
        yield "unguided", {**base, "steps": 4, "guidance_scale": 1.0, "prompt": "a green square, " * 30, "prompt_syntax": "plain"}
        yield "non-ascii", {**base, "steps": 3, "seed": 2, "guidance_scale": 4.0, "prompt": NON_ASCII["prompt"]}
        return
    guided = {**base, "negative_prompt": NEGATIVE, "seed": 1234567890123, "guidance_scale": 3.0}
    for sampler in SAMPLERS:
        yield sampler, {**base, "sampler": sampler, "guidance_scale": 1.0}
        yield f"{sampler}-guided-wide", {**guided, "sampler": sampler, "width": 2 * SIZE}
    if name == "stable_diffusion_xl":
        yield "no-negative", {**base, "guidance_scale": 3.0}
    yield "default-tall", {**guided, "seed": 7, "height": SIZE + SIZE // 2}
    yield "empty", {**base, "prompt": "", "guidance_scale": 3.0}
    yield "non-ascii", {**guided, **NON_ASCII, "seed": 2}


def draw(pipeline, case, dtype):
    """The picture and the timesteps. Noise is drawn in f32 for either type: torch's stream differs between them."""
    arguments = {k: v for k, v in case.items() if k not in ("sampler", "steps", "seed", "prompt_syntax")}
    # An empty negative prompt is none: the XL pipeline then reads zeros.
    arguments["negative_prompt"] = arguments["negative_prompt"] or None
    if isinstance(pipeline, LatentConsistencyModelPipeline):
        del arguments["negative_prompt"]
    generator = torch.Generator("cpu").manual_seed(case["seed"])
    shape = (1, 4, case["height"] // 2, case["width"] // 2)
    latents = torch.randn(shape, generator=generator).to(dtype)
    drawn = diffusers.schedulers.scheduling_lcm.randn_tensor
    diffusers.schedulers.scheduling_lcm.randn_tensor = lambda shape, generator, **_: torch.randn(shape, generator=generator).to(dtype)
    picture = pipeline.to(dtype)(
        **arguments, latents=latents, generator=generator, num_inference_steps=case["steps"], output_type="np").images[0]
    diffusers.schedulers.scheduling_lcm.randn_tensor = drawn
    return (picture * 255).round().astype("uint8"), [float(t) for t in pipeline.scheduler.timesteps]


def pictures(name, folder, kind):
    pipeline = kind.from_pretrained(
        folder, torch_dtype=torch.float32, **({"add_watermarker": False} if kind is StableDiffusionXLPipeline else {"safety_checker": None}))
    pipeline.set_progress_bar_config(disable=True)
    default, listed, out = pipeline.scheduler, [], folder / "pictures"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for case_name, case in cases(name):
        pipeline.scheduler = default
        if case["sampler"]:
            pipeline.scheduler = getattr(diffusers, SAMPLERS[case["sampler"]]).from_config(default.config)
        picture, timesteps = draw(pipeline, case, torch.float32)
        precise, _ = draw(pipeline, case, torch.float64)
        rounding = int(np.abs(picture.astype(int) - precise).max())
        assert rounding <= 1, f"{case_name}: f32 and f64 differ by {rounding} of 255"
        Image.fromarray(picture).save(out / f"{case_name}.png", optimize=True)
        saturated = float(np.isin(picture, [0, 255]).mean())
        print(f"{name:20}{case_name:20}f64 differs by {rounding}, {saturated:4.0%} saturated, spread {picture.std():.0f}")
        listed.append({"file": f"{case_name}.png", **case, "timesteps": timesteps, "f64_difference": rounding})
    (out / "cases.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in listed) + "\n]\n")


def main():
    torch.set_num_threads(1)  # such small products only lose time to more
    names = [a for a in sys.argv[1:] if a != "--pictures"]
    for name in names or PIPELINES:
        spec = PIPELINES[name]
        folder = HERE / "pipelines" / name
        if "--pictures" not in sys.argv:
            save(folder, spec, *train(name, spec))
        with torch.no_grad():
            pictures(name, folder, spec["class"])


if __name__ == "__main__":
    main()
