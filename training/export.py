"""Writes a checkpoint's EMA weights as a diffusers folder in f16, and checks that it loads and draws the same.

    python export.py RUN/checkpoint.pt --tokenizer RUN/tokenizer --data DIR --out ../assets/models/icons-64
    python export.py RUN/checkpoint.pt --consistency --tokenizer ... (as above)
    python export.py RUN/checkpoint.pt --autoencoder --data DIR --out FOLDER
"""

import argparse
import copy
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from autoencoder import build_autoencoder, held_out, measure, psnr, reconstruct, standardise, without_unused
from data import RECIPES, Mix
from model import SIZE, Denoiser, build_text_encoder, build_transformer, consistency_scheduler, scheduler
from sample import PROMPTS, generate, load, load_autoencoder
from vocabulary import write_vocabulary


def restore(checkpoint):
    """-> (Denoiser with the EMA weights, the checkpoint)"""
    c = torch.load(checkpoint, map_location="cpu", weights_only=True)
    a = c["arguments"]
    vocab = c["ema"]["text_encoder.embeddings.token_embedding.weight"].shape[0]
    of_pixels = dict(patch=8, size=SIZE, channels=3)  # which earlier checkpoints do not tell
    transformer = build_transformer(**{name: a.get(name, of_pixels.get(name)) for name in ("width", "layers", *of_pixels)})
    model = Denoiser(transformer, build_text_encoder(vocab), a["prediction"])
    model.load_state_dict(c["ema"])
    return model.eval(), c


def write(model, tokenizer, data, out, guidance=3.0, steps=20, consistency=False, autoencoder=None):
    """The folder: weights in f16, tokenizer, scheduler, model_index.json, NOTICE.md; of a model on latents also the autoencoder, vae/ of
    another folder."""
    out, side = Path(out), model.transformer.config.sample_size
    if autoencoder:
        shutil.copytree(Path(autoencoder) / "vae", out / "vae", dirs_exist_ok=True)
        config = json.loads((out / "vae/config.json").read_text())
        side *= 2 ** (len(config["block_out_channels"]) - 1)
    sched = consistency_scheduler(model.transformer) if consistency else scheduler(model.transformer, model.prediction)
    for part, name in ((model.transformer, "transformer"), (model.text_encoder, "text_encoder")):
        copy.deepcopy(part).half().save_pretrained(out / name)
    config = json.loads((out / "transformer/config.json").read_text())
    config.pop("_name_or_path", None)  # of the folder it was loaded from, on this machine
    (out / "transformer/config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    sched.save_pretrained(out / "scheduler")
    shutil.copytree(tokenizer, out / "tokenizer", dirs_exist_ok=True)
    shutil.copyfile(Path(data) / "NOTICE.md", out / "NOTICE.md")
    index = {
        "_class_name": "PixArtAlphaPipeline",
        "scheduler": ["diffusers", type(sched).__name__],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "transformer": ["diffusers", "PixArtTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"] if autoencoder else [None, None],  # else the transformer works on pixels in -1..1
        "headwater": {
            "guidance_scale": guidance, "num_inference_steps": steps, "height": side, "width": side, "negative_prompt": "",
            # how latents are edited best (docs/benchmarks, "Zero-shot edits")
            **({"inpaint_method": "replace", "restore_noise": 0.15} if autoencoder else {}),
        },
    }
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    return sched


def write_autoencoder(checkpoint, data, out, pictures=2000):
    """The folder vae/, with latents standardised on so many pictures and without those that nothing is drawn from (but where only its decoder was trained),
    and NOTICE.md; and what the loaded autoencoder makes of drawings it never saw, at most as many."""
    c = torch.load(checkpoint, map_location="cpu", weights_only=True)
    a = c["arguments"]
    autoencoder = build_autoencoder(a["channels"], a["latent_channels"]).eval()
    part = "autoencoder."
    autoencoder.load_state_dict({name.removeprefix(part): p for name, p in c["ema"].items() if name.startswith(part)})
    mix = Mix(data, RECIPES[a["recipe"]])
    *sets, smooth = held_out(mix, pictures)
    before = reconstruct(autoencoder, sets[1][:48])
    if not a.get("decoder_of"):
        standardise(autoencoder, np.stack([mix.sample()[0] for _ in range(pictures)]))
        autoencoder = without_unused(autoencoder)
    copy.deepcopy(autoencoder).half().save_pretrained(out / "vae")
    shutil.copyfile(Path(data) / "NOTICE.md", out / "NOTICE.md")
    loaded = AutoencoderKL.from_pretrained(out, subfolder="vae", torch_dtype=torch.float32).eval()
    drawn, (white, coloured, noisy, seams) = measure(loaded, *sets, smooth=smooth)
    print(f"step {c['step']}, {c['elapsed'] / 60:.1f} minutes; {len(sets[0])} drawings: PSNR {white:.2f} dB on white, {coloured:.2f} on colours, "
          f"{noisy:.2f} with a tenth of noise in the latents; seams {seams:.3f}; {autoencoder.config.latent_channels} latent channels; f16 and standardised {psnr(drawn[1][:48], before):.1f} dB from before")


def write_hashes(models):
    """SHA256SUMS of a folder of models, as sha256sum writes it; all but the model cards, which are written by hand."""
    folders = [index.parent for index in models.glob("*/model_index.json")]
    files = sorted(f for folder in folders for f in folder.rglob("*") if f.is_file() and f.name != "README.md")
    lines = [f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(models).as_posix()}\n" for f in files]
    (models / "SHA256SUMS").write_text("".join(lines))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("checkpoint")
    p.add_argument("--tokenizer", help="of the run; an autoencoder has none")
    p.add_argument("--data", required=True, help="for its NOTICE.md, which must go wherever the weights go")
    p.add_argument("--out", required=True)
    p.add_argument("--consistency", action="store_true", help="a checkpoint of consistency.py")
    p.add_argument("--autoencoder", action="store_true", help="a checkpoint of autoencoder.py")
    p.add_argument("--pictures", type=int, default=2000, help="on which its latents are standardised")
    p.add_argument("--guidance", type=float, default=3.0)
    p.add_argument("--steps", type=int, default=20)
    a = p.parse_args()
    if a.autoencoder:
        return write_autoencoder(a.checkpoint, a.data, Path(a.out), a.pictures)
    if a.consistency:
        a.guidance, a.steps = 1.0, 1  # guidance is part of what it learnt
    out = Path(a.out)
    model, c = restore(a.checkpoint)
    sched = write(model, a.tokenizer, a.data, out, a.guidance, a.steps, a.consistency, c["arguments"].get("latents"))
    write_vocabulary(c["arguments"]["recipe"], out)
    write_hashes(out.resolve().parent)
    tokenizer = CLIPTokenizer.from_pretrained(a.tokenizer)
    before = generate(model.transformer, model.text_encoder, tokenizer, sched, load_autoencoder(out), PROMPTS, a.steps, a.guidance)
    *parts, _ = load(out)
    after = generate(*parts, PROMPTS, a.steps, a.guidance)
    size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    worst = np.abs(after.astype(int) - before).max()
    print(f"step {c['step']}, {c['elapsed'] / 60:.1f} minutes; {size / 2**20:.1f} MiB; largest change from f16 weights {worst} of 255")


if __name__ == "__main__":
    main()
