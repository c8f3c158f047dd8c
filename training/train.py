"""Trains the text-to-image model for a given time, on a CPU or a CUDA GPU.

    python train.py --data DIR --out RUN --minutes 105

Stops and resumes: run the same command again and it goes on from RUN/checkpoint.pt. Only time in which it runs counts.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

# OpenMP's threads wait for each other some thousand times a step. Short spins: sleeping at once costs a third of the speed, and long
# spins nearly all of it where another program uses the same cores.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import numpy as np
import torch
from transformers import CLIPTokenizer

import run
import tokenizer as bpe
from data import RECIPES, Batches, Latents, Mix, encode, read_latents, splits, to_input
from model import SIZE, Denoiser, build_text_encoder, build_transformer, device_and_precision, finer, keep_memory, on_latents, sizes
from muon import Muon
from sample import load

HELD_OUT_SIGMAS = (0.2, 0.5, 1.0, 2.0, 5.0, 20.0)
SCALES = (1, 2, 4, 8, 16)


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    run.arguments(p, minutes=105, warm_up=150, decay=0.25, ema=0.997)
    run.network(p)
    p.add_argument("--init", help="start from the weights and the tokenizer of this exported folder, whose patches may be larger")
    p.add_argument("--latents", help="train on these, of latents.py, not on pixels; with a --patch of 2, which makes as many patches as 8 on pixels")
    p.add_argument("--recipe", choices=RECIPES, default="emoji")
    p.add_argument("--prediction", choices=["sample", "edm"], default="sample")
    p.add_argument("--lr", type=float, default=6e-3, help="Muon's; the rest follows in fixed proportion")
    p.add_argument("--log-sigma", type=float, nargs=2, default=(1.5, 1.3), metavar=("MEAN", "STD"))
    p.add_argument("--held-out", type=int, default=96, help="pictures in the held-out loss")
    return p.parse_args()


def optimizers(model, lr, ns_steps=5):
    """Muon (Jordan et al. 2024) for the matrices inside the two stacks of blocks, AdamW for everything else. A rare word's
    embedding is moved only when the word is drawn, so embeddings take larger steps. Without Newton-Schulz steps, which cost
    as much as ten pictures on a CPU, AdamW moves the matrices too, as far as Muon would."""
    groups = {"muon": [], "words": [], "rest": []}
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        block = "transformer_blocks." in name or ".layers." in name
        if p.ndim == 2 and block and "scale_shift_table" not in name:
            groups["muon"].append(p)
        else:
            groups["words" if "token_embedding" in name else "rest"].append(p)
    adam = [{"params": groups["words"], "lr": 2 * lr}, {"params": groups["rest"], "lr": 0.25 * lr}]
    if ns_steps == 0:
        return [torch.optim.AdamW([*adam, {"params": groups["muon"], "lr": 0.2 * lr}], betas=(0.9, 0.97), weight_decay=0.0, fused=True)]
    return [
        Muon(groups["muon"], lr=lr, weight_decay=0.01, momentum=0.95, ns_steps=ns_steps),
        torch.optim.AdamW(adam, betas=(0.9, 0.97), weight_decay=0.0, fused=True),
    ]


def draw_sigmas(n, log_sigma, generator, device):
    """Log-normal as in Karras et al. 2022 (section 5); a fifth is log-uniform so that both ends are trained too."""
    mean, std = log_sigma
    normal = mean + std * torch.randn(n, generator=generator, device=device)
    uniform = torch.empty(n, device=device).uniform_(-4.6, 5.06, generator=generator)  # the DDPM schedule's range
    return torch.where(torch.rand(n, generator=generator, device=device) < 0.2, uniform, normal).clamp(-4.6, 5.06).exp()


def square_error(difference):
    """Per sample, the mean of d |difference, averaged over d x d pixels|^2 over d in SCALES, down to 4x4, after the multiscale loss of
    Hoogeboom et al. 2023 ("Simple diffusion"). The best prediction is the same as with one scale; but where a patch as a whole
    is too dark or too light, which shows in flat areas, the plain square counts it little among what the patch holds."""
    of = lambda d: d * torch.nn.functional.avg_pool2d(difference, d).square().mean((1, 2, 3))
    scales = [d for d in SCALES if 4 * d <= difference.shape[-1]]
    return sum(of(d) for d in scales) / len(scales)


def visible_error(picture, goal, close=0.0):
    """picture - goal, and nothing where it is whiter than a white goal or blacker than a black one: a picture is clamped to -1..1 before
    it is seen. No prediction gains by leaving that range, unless the goal is surely at its end, and there it may: a background that must be hit
    from both sides is a weave of patches around white, one that may lie above is white. A goal within `close` of an end counts as the end."""
    goal = torch.where(goal >= 1 - close, 1.0, torch.where(goal <= close - 1, -1.0, goal))
    unseen = ((goal == 1) & (picture > 1)) | ((goal == -1) & (picture < -1))
    return torch.where(unseen, 0.0, picture - goal)


class HeldOut:
    """Mean |D(x + sigma n) - x|^2 on drawings that training never sees, with the same noise every time."""

    def __init__(self, pairs, tokenizer, device, count=96):
        pairs = pairs[:: max(1, len(pairs) // count)][:count]
        self.x = to_input(np.stack([x for x, _ in pairs])).to(device)
        self.text = [t.to(device) for t in encode(tokenizer, [text for _, text in pairs], "longest")]
        self.noise = torch.randn(self.x.shape, generator=torch.Generator().manual_seed(1)).to(device)

    @torch.no_grad()
    def loss(self, model, device, bf16):
        out = []
        for s in HELD_OUT_SIGMAS:
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                d = model(self.x + s * self.noise, torch.full((len(self.x),), s, device=self.x.device), *self.text)
            d = d.float() if self.x.shape[1] > 3 else d.float().clamp(-1, 1)
            out.append((d - self.x).square().mean().item())
        return out


def prepare(a):
    """-> (device, whether in bf16)"""
    if a.threads:
        torch.set_num_threads(a.threads)
    torch.set_float32_matmul_precision("high")
    Path(a.out).mkdir(parents=True, exist_ok=True)
    torch.manual_seed(a.seed)
    keep_memory()
    device, bf16 = device_and_precision(a.bf16)
    if device == "cpu" and bf16:
        torch.backends.cuda.enable_flash_sdp(False)  # the CPU's too, whose backward pass in bf16 takes a quarter of a step
    return device, bf16


def get_tokenizer(a, mix, folder=None):
    """The run's own: that of an exported folder, or one with a vocabulary from the captions."""
    path = Path(a.out) / "tokenizer"
    if not path.exists() and folder:
        shutil.copytree(Path(folder) / "tokenizer", path)
    elif not path.exists():
        bpe.save(*bpe.train(bpe.caption_texts((mix or Mix(a.data)).rows), 4096), path)
    return CLIPTokenizer.from_pretrained(path)


def get_mix(a):
    if getattr(a, "latents", None):
        return None  # nothing is drawn
    return Mix(a.data, RECIPES[a.recipe], splits(a.fold_in)[0])


def batches(a, mix, tokenizer, first, device, dropout=0.1):
    """Endless (pictures -1..1 or latents, ids, mask) from step `first` on."""
    rest = tokenizer, a.batch, a.seed, first, dropout, 8 if a.compile else 1  # few shapes to compile
    data = Batches(mix, *rest) if mix else Latents(a.latents, *rest)
    for batch in torch.utils.data.DataLoader(data, batch_size=None, num_workers=a.workers, prefetch_factor=8):
        x, ids, mask = (t.to(device, non_blocking=True) for t in batch)
        yield to_input(x), ids, mask


def main():
    a = arguments()
    device, bf16 = prepare(a)
    mix = get_mix(a)
    tokenizer = get_tokenizer(a, mix, a.init)
    channels, size, _ = read_latents(a.latents)[0].shape[1:] if a.latents else (3, SIZE, SIZE)
    if a.init:
        transformer, text_encoder, *_ = load(a.init)
        if not a.latents:
            transformer = finer(transformer, a.patch)
        elif transformer.config.in_channels == 3:
            transformer = on_latents(transformer, a.patch, size, channels)
    else:
        transformer = build_transformer(a.width, a.layers, patch=a.patch, size=size, channels=channels)
        text_encoder = build_text_encoder(len(tokenizer))
    model = Denoiser(transformer, text_encoder, a.prediction)
    model = model.to(device).requires_grad_(True).train()
    vars(a).update(sizes(model.transformer))
    r = run.Run(a, model, optimizers(model, a.lr, a.ns_steps), ["train_loss", "gradient_norm", *(f"held_out_{s}" for s in HELD_OUT_SIGMAS)])
    held_out = HeldOut(list(zip(*read_latents(a.latents, "held_out_")) if a.latents else mix.plain("val_pair")), tokenizer, device, a.held_out)
    error = torch.sub if a.latents else visible_error  # latents have no ends
    net = torch.compile(model, dynamic=False) if a.compile else model
    generator = torch.Generator(device)
    for x, ids, mask in batches(a, mix, tokenizer, r.step, device):
        due, code = r.tick()
        if due:
            r.save(*(round(v, 5) for v in held_out.loss(r.ema, device, bf16)))
        if code is not None:
            sys.exit(code)
        generator.manual_seed(a.seed * 10_000_019 + r.step)  # so a resumed run draws the same noise
        sigma = draw_sigmas(len(x), a.log_sigma, generator, device)
        noise = torch.randn(x.shape, generator=generator, device=device)
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            denoised = net(x + sigma[:, None, None, None] * noise, sigma, ids, mask)
        r.update((model.loss_weight(sigma) * square_error(error(denoised.float(), x))).mean(), len(x))


if __name__ == "__main__":
    main()
