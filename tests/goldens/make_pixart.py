"""T5's tokenizer and two tiny PixArt pipelines with it: tokenizers/t5*, tokenizers/t5.json, pipelines/pixart_alpha and pixart_sigma with pictures.

    pip install -r requirements.txt && python make_pixart.py [--pictures] [pixart_alpha|pixart_sigma]...

Trained as the pipelines of make_latents.py, and checked against f64 as there. diffusers cleans captions only where bs4 is installed, which it
must not be here.
"""

import json
import shutil
import struct
import sys

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import (AutoencoderKL, DDPMScheduler, DPMSolverMultistepScheduler, PixArtAlphaPipeline, PixArtSigmaPipeline, PixArtTransformer2DModel)
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from make_latents import BETAS, encoded, minimise
from make_pictures import NEGATIVE, NON_ASCII, PROMPT, SAMPLERS
from make_pipelines import HERE, batch
from make_tokenizers import PROMPTS, TEXT

OUT = HERE / "tokenizers"
MARKS = ["<pad>", "</s>", "<unk>"]
EXTRA_IDS = 5


def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def field(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def train_tokenizer():
    """A unigram model in both forms: SentencePiece's protocol buffer (without a map of characters) and tokenizer.json."""
    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    unigram.train_from_iterator(TEXT.lower().split("\n") * 4, trainers.UnigramTrainer(
        vocab_size=160, special_tokens=MARKS, unk_token="<unk>", show_progress=False))
    vocab = [(piece, float(np.float32(score))) for piece, score in json.loads(unigram.to_str())["model"]["vocab"]]
    assert [piece for piece, _ in vocab[:3]] == MARKS
    kinds = {"<pad>": 3, "</s>": 3, "<unk>": 2}
    proto = b""
    for piece, score in vocab:
        kind = varint(3 << 3) + varint(kinds[piece]) if piece in kinds else b""
        proto += field(1, field(1, piece.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score) + kind)
    proto += field(2, varint(3 << 3) + varint(1) + varint(40 << 3) + varint(2)) + field(3, field(1, b"identity"))
    shutil.rmtree(OUT / "t5_spiece", ignore_errors=True)
    (OUT / "t5_spiece").mkdir()
    (OUT / "t5_spiece/spiece.model").write_bytes(proto)
    config = {"tokenizer_class": "T5Tokenizer", "model_max_length": 512, "extra_ids": EXTRA_IDS, "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (OUT / "t5_spiece/tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    # What transformers makes of such a file, which it reads by a library that need not be installed.
    vocab += [(f"<extra_id_{i}>", 0.0) for i in range(EXTRA_IDS - 1, -1, -1)]
    tokenizer = T5Tokenizer(vocab=vocab, extra_ids=EXTRA_IDS, model_max_length=512)
    shutil.rmtree(OUT / "t5", ignore_errors=True)
    tokenizer.save_pretrained(OUT / "t5")
    cases = []
    for prompt in [*PROMPTS, "a </s> b <pad> <unk>", "<extra_id_0> and <extra_id_4>", "▁under"]:
        full = tokenizer(prompt).input_ids
        for length in (24, 5):
            encoded = tokenizer(prompt, padding="max_length", max_length=length, truncation=True)
            for folder in ("t5", "t5_spiece"):
                cases.append({"folder": folder, "prompt": prompt, "length": length, "ids": encoded.input_ids,
                              "tokens": sum(encoded.attention_mask), "dropped": max(0, len(full) - length)})
    lines = ",\n".join(json.dumps(case) for case in cases)
    (OUT / "t5.json").write_text(f"[\n{lines}\n]\n")
    print(len(vocab), "pieces,", len(cases), "cases")


NET = {"in_channels": 4, "patch_size": 2, "num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 12, "cross_attention_dim": 24,
       "caption_channels": 16, "norm_type": "ada_norm_single"}
PIPELINES = {
    # 120 tokens, no bins (diffusers has none for such a side), no learned variance
    "pixart_alpha": {"class": PixArtAlphaPipeline, "size": 32, "levels": (8, 16), "steps": 1200,
                     "net": {**NET, "num_layers": 2, "sample_size": 16, "out_channels": 4}, "text": {"feed_forward_proj": "relu"}},
    # 300 tokens, bins of 256 pixels, learned variance
    "pixart_sigma": {"class": PixArtSigmaPipeline, "size": 256, "levels": (4, 4, 8, 8), "steps": 300,
                     "net": {**NET, "sample_size": 32, "out_channels": 8, "use_additional_conditions": False}, "text": {"feed_forward_proj": "gated-gelu"}},
}


def train(name, spec):
    torch.manual_seed(0)
    size, levels = spec["size"], spec["levels"]
    vae = AutoencoderKL(block_out_channels=levels, down_block_types=("DownEncoderBlock2D",) * len(levels), up_block_types=("UpDecoderBlock2D",) * len(levels),
                        latent_channels=4, norm_num_groups=4, sample_size=size, mid_block_add_attention=False)
    count = 16 if size < 64 else 2

    def reconstruction():
        x0, _ = batch(size, count)
        latents = vae.encode(x0).latent_dist
        kl = 0.5 * (latents.mean ** 2 + latents.var - 1 - latents.logvar).mean()
        return F.mse_loss(vae.decode(latents.sample()).sample, x0) + 1e-3 * kl

    minimise(f"{name} vae", vae.parameters(), 600 if size < 64 else 250, reconstruction)
    vae.requires_grad_(False)
    vae.register_to_config(scaling_factor=round(1 / encoded(vae, batch(size, 8)[0]).std().item(), 4))
    pictures, captions = batch(size, 512 if size < 64 else 64)
    latents = torch.cat([encoded(vae, part) for part in pictures.split(8)]) * vae.config.scaling_factor

    tokenizer = T5Tokenizer.from_pretrained(OUT / "t5")
    text = T5EncoderModel(T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=6, d_ff=32, num_layers=2, num_heads=2,
                                   relative_attention_num_buckets=8, relative_attention_max_distance=16, **spec["text"]))
    net = PixArtTransformer2DModel(**spec["net"])
    noiser = DDPMScheduler(**BETAS)
    tokens = tokenizer(captions, padding=True, return_tensors="pt")

    def prediction():
        pick = torch.randint(0, len(latents), (32 if size < 64 else 8,))
        x0, mask = latents[pick], tokens.attention_mask[pick]
        hidden = text(tokens.input_ids[pick], attention_mask=mask)[0]
        noise, t = torch.randn_like(x0), torch.randint(0, 1000, (len(x0),))
        out = net(noiser.add_noise(x0, noise, t), encoder_hidden_states=hidden, encoder_attention_mask=mask, timestep=t,
                  added_cond_kwargs={"resolution": None, "aspect_ratio": None}).sample
        return F.mse_loss(out[:, :4], noise)

    minimise(f"{name} net", [*net.parameters(), *text.parameters()], spec["steps"], prediction)
    return spec["class"](tokenizer=tokenizer, text_encoder=text.eval(), vae=vae.eval(), transformer=net.eval(),
                         scheduler=DPMSolverMultistepScheduler(**BETAS, algorithm_type="dpmsolver++", solver_order=2))


def cases(name, size):
    base = {"sampler": None, "prompt": PROMPT, "negative_prompt": "", "seed": 0, "steps": 6, "guidance_scale": 4.5, "height": size, "width": size}
    guided = {**base, "negative_prompt": NEGATIVE, "seed": 1234567890123}
    if name == "pixart_sigma":
        # The bins are 256x256 and 208x304.
        yield "binned", {**guided, "steps": 3, "height": 48, "width": 48}
        yield "binned-wide-unguided", {**base, "steps": 2, "height": 40, "width": 60, "guidance_scale": 1.0}
        yield "non-ascii", {**base, **NON_ASCII, "steps": 2, "seed": 3, "height": 48, "width": 48, "sampler": "euler"}
        return
    yield "default", base
    yield "default-wide", {**guided, "width": 2 * size}
    for sampler in SAMPLERS:
        yield f"{sampler}-tall", {**guided, "sampler": sampler, "height": 3 * size // 2, "steps": 4}
    yield "non-ascii", {**base, "prompt": "Un CARRÉ rouge naïf ❤️ 红色", "negative_prompt": "жёлтый", "steps": 4}
    yield "too-long", {**base, "prompt": "a green square, " * 60, "guidance_scale": 1.0, "steps": 4}
    yield "empty", {**base, "prompt": "", "steps": 4}


def draw(pipeline, case, dtype, binned):
    arguments = {k: v for k, v in case.items() if k not in ("sampler", "steps", "seed")}
    generator = torch.Generator("cpu").manual_seed(case["seed"])
    height, width = case["height"], case["width"]
    if binned:
        from diffusers.pipelines.pixart_alpha.pipeline_pixart_alpha import ASPECT_RATIO_256_BIN
        height, width = pipeline.image_processor.classify_height_width_bin(height, width, ratios=ASPECT_RATIO_256_BIN)
    factor = pipeline.vae_scale_factor
    # Drawn in f32 for either type: torch's stream differs between them.
    latents = torch.randn((1, 4, height // factor, width // factor), generator=generator).to(dtype)
    picture = pipeline.to(dtype)(**arguments, latents=latents, generator=generator, num_inference_steps=case["steps"], output_type="np",
                                 use_resolution_binning=binned).images[0]
    return (picture * 255).round().astype("uint8"), [float(t) for t in pipeline.scheduler.timesteps]


def main():
    torch.set_num_threads(1)
    names = [a for a in sys.argv[1:] if a != "--pictures"]
    only_pictures = "--pictures" in sys.argv
    if not sys.argv[1:]:
        train_tokenizer()
    for name in names or PIPELINES:
        spec, folder = PIPELINES[name], HERE / "pipelines" / name
        if not only_pictures:
            made = train(name, spec)
            shutil.rmtree(folder, ignore_errors=True)
            for part in (made.text_encoder, made.transformer, made.vae):
                part.half()
            made.save_pretrained(folder)
        pipeline = spec["class"].from_pretrained(folder, torch_dtype=torch.float32)
        pipeline.set_progress_bar_config(disable=True)
        default, listed, out = pipeline.scheduler, [], folder / "pictures"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        with torch.no_grad():
            for case_name, case in cases(name, spec["size"]):
                pipeline.scheduler = default
                if case["sampler"]:
                    pipeline.scheduler = getattr(diffusers, SAMPLERS[case["sampler"]]).from_config(default.config)
                binned = name == "pixart_sigma"
                picture, timesteps = draw(pipeline, case, torch.float32, binned)
                precise, _ = draw(pipeline, case, torch.float64, binned)
                rounding = int(np.abs(picture.astype(int) - precise).max())
                Image.fromarray(picture).save(out / f"{case_name}.png", optimize=True)
                saturated = float(np.isin(picture, [0, 255]).mean())
                print(f"{name:14}{case_name:24}f64 differs by {rounding}, {saturated:4.0%} saturated, spread {picture.std():.0f}")
                assert rounding <= 1, f"{case_name}: f32 and f64 differ by {rounding} of 255"
                listed.append({"file": f"{case_name}.png", **case, "timesteps": timesteps, "f64_difference": rounding})
        (out / "cases.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in listed) + "\n]\n")


if __name__ == "__main__":
    main()
