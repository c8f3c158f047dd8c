"""Trains the text-to-image model for a given time, on a CPU or a CUDA GPU.

    python train.py --data DIR --out RUN --minutes 105

Stops and resumes: run the same command again and it goes on from RUN/checkpoint.pt. Only time in which it runs counts.
"""

import argparse
import copy
import csv
import os
import shutil
import sys
import time
from pathlib import Path

# Threads that spin at OpenMP's barriers lose most of their time where other programs use the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from transformers import CLIPTokenizer

import tokenizer as bpe
from data import RECIPES, Batches, Mix, encode
from model import Denoiser, build_text_encoder, build_transformer, device_and_precision
from muon import Muon
from sample import load

HELD_OUT_SIGMAS = (0.2, 0.5, 1.0, 2.0, 5.0, 20.0)


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True, help="folder of atlas_*.webp and captions.jsonl")
    p.add_argument("--out", required=True, help="folder for checkpoint.pt, log.csv and tokenizer/")
    p.add_argument("--init", help="start from the weights and the tokenizer of this exported folder")
    p.add_argument("--recipe", choices=RECIPES, default="emoji")
    p.add_argument("--fold-in", action="store_true", help="train on val_concept too (not for a model that is to be measured)")
    p.add_argument("--prediction", choices=["sample", "edm"], default="sample")
    p.add_argument("--minutes", type=float, default=105, help="length of the whole run, resumed parts together")
    p.add_argument("--session", type=float, default=float("inf"), help="stop after this many minutes, exit code 3; the same command goes on")
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--width", type=int, default=256)
    p.add_argument("--layers", type=int, default=6)
    p.add_argument("--patch", type=int, default=8, help="pixels; half of it draws finer and takes four times as long")
    p.add_argument("--lr", type=float, default=6e-3, help="Muon's; the rest follows in fixed proportion")
    p.add_argument("--log-sigma", type=float, nargs=2, default=(1.5, 1.3), metavar=("MEAN", "STD"))
    p.add_argument("--warm-up", type=int, default=150, help="steps")
    p.add_argument("--decay", type=float, default=0.25, help="last part of the time, in which the learning rate goes to zero")
    p.add_argument("--ns-steps", type=int, default=5, help="Muon's Newton-Schulz steps; 3 are enough where they cost much")
    p.add_argument("--ema", type=float, default=0.997)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--workers", type=int, default=1)
    p.add_argument("--threads", type=int, default=0, help="CPU threads (default: PyTorch's choice)")
    p.add_argument("--save-minutes", type=float, default=5)
    p.add_argument("--held-out", type=int, default=96, help="pictures in the held-out loss")
    p.add_argument("--steps", type=int, default=0, help="stop after this many steps, whatever the time (for comparisons)")
    p.add_argument("--compile", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
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


def learning_rate(step, progress, warm_up=150, decay=0.25):
    """Linear warm-up, constant, then linear to zero over the last part of the time."""
    return min(1, (step + 1) / warm_up) * min(1, (1 - progress) / decay)


class HeldOut:
    """Mean |D(x + sigma n) - x|^2 on drawings that training never sees, with the same noise every time."""

    def __init__(self, mix, tokenizer, device, count=96):
        pairs = list(mix.plain("val_pair"))
        pairs = pairs[:: max(1, len(pairs) // count)][:count]
        self.x = torch.stack([torch.from_numpy(rgb) for rgb, _ in pairs]).to(device).permute(0, 3, 1, 2) / 127.5 - 1
        self.text = [t.to(device) for t in encode(tokenizer, [text for _, text in pairs], "longest")]
        self.noise = torch.randn(self.x.shape, generator=torch.Generator().manual_seed(1)).to(device)

    @torch.no_grad()
    def loss(self, model, device, bf16):
        out = []
        for s in HELD_OUT_SIGMAS:
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                d = model(self.x + s * self.noise, torch.full((len(self.x),), s, device=self.x.device), *self.text)
            out.append((d.float() - self.x).square().mean().item())
        return out


def save(path, **state):
    """Atomically: a run that is killed while it writes keeps its last checkpoint."""
    torch.save(state, f"{path}.part")
    os.replace(f"{path}.part", path)


def main():
    a = arguments()
    device, bf16 = device_and_precision()
    if a.threads:
        torch.set_num_threads(a.threads)
    torch.set_float32_matmul_precision("high")
    out, path = Path(a.out), Path(a.out) / "checkpoint.pt"
    mix = Mix(a.data, RECIPES[a.recipe], ("train", "val_concept") if a.fold_in else ("train",))
    if a.init and not (out / "tokenizer").exists():
        shutil.copytree(Path(a.init) / "tokenizer", out / "tokenizer")
    elif not (out / "tokenizer").exists():
        bpe.save(*bpe.train(bpe.caption_texts(mix.rows), 4096), out / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer")

    torch.manual_seed(a.seed)
    model = Denoiser(build_transformer(a.width, a.layers, patch=a.patch), build_text_encoder(len(tokenizer)), a.prediction).to(device)
    if a.init:
        transformer, text_encoder, *_ = load(a.init)
        model.transformer.load_state_dict(transformer.state_dict())
        model.text_encoder.load_state_dict(text_encoder.state_dict())
    ema = copy.deepcopy(model).requires_grad_(False).eval()
    opts = optimizers(model, a.lr, a.ns_steps)
    base = [[group["lr"] for group in o.param_groups] for o in opts]
    step, images, elapsed = 0, 0, 0.0
    if path.exists():
        c = torch.load(path, map_location=device, weights_only=True)
        step, images, elapsed = c["step"], c["images"], c["elapsed"]
        model.load_state_dict(c["model"])
        ema.load_state_dict(c["ema"])
        for o, s in zip(opts, c["optimizers"]):
            o.load_state_dict(s)
    held_out = HeldOut(mix, tokenizer, device, a.held_out)
    net = torch.compile(model) if a.compile else model
    # fixed text length where shapes are compiled
    batches = Batches(mix, tokenizer, a.batch, a.seed, first=step, padding="max_length" if a.compile else "longest")
    loader = iter(torch.utils.data.DataLoader(batches, batch_size=None, num_workers=a.workers, prefetch_factor=8))
    generator = torch.Generator(device)
    params = list(model.parameters())
    log = csv.writer(open(out / "log.csv", "a", newline="", buffering=1))  # a line at a time
    if step == 0:
        log.writerow(["step", "minutes", "images", "train_loss", "gradient_norm", *(f"held_out_{s}" for s in HELD_OUT_SIGMAS)])

    begun = last = time.monotonic()
    saved, loss_sum, norm_sum, count = elapsed, torch.zeros((), device=device), torch.zeros((), device=device), 0
    while True:
        now = time.monotonic()
        elapsed, last = elapsed + min(now - last, 60), now  # a step of more than a minute was stopped from outside
        progress = min(1, elapsed / (60 * a.minutes))
        complete = progress >= 1 or (a.steps and step >= a.steps)
        done = complete or now - begun >= 60 * a.session
        if done or elapsed - saved >= 60 * a.save_minutes:
            saved = elapsed
            row = [step, round(elapsed / 60, 2), images, round((loss_sum / max(1, count)).item(), 5), round((norm_sum / max(1, count)).item(), 4)]
            row += [round(v, 5) for v in held_out.loss(ema, device, bf16)]
            log.writerow(row)
            print(*row, flush=True)
            save(path, step=step, images=images, elapsed=elapsed, model=model.state_dict(), ema=ema.state_dict(),
                 optimizers=[o.state_dict() for o in opts], arguments=vars(a))
            loss_sum.zero_(), norm_sum.zero_()
            count = 0
        if done:
            sys.exit(0 if complete else 3)
        rgb, ids, mask = (t.to(device, non_blocking=True) for t in next(loader))
        x = rgb.permute(0, 3, 1, 2).float() / 127.5 - 1
        generator.manual_seed(a.seed * 10_000_019 + step)  # so a resumed run draws the same noise
        sigma = draw_sigmas(len(x), a.log_sigma, generator, device)
        noise = torch.randn(x.shape, generator=generator, device=device)
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            denoised = net(x + sigma[:, None, None, None] * noise, sigma, ids, mask)
        loss = (model.loss_weight(sigma) * (denoised.float() - x).square().mean((1, 2, 3))).mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(params, 1.0)
        factor = learning_rate(step, progress, a.warm_up, a.decay)
        for o, rates in zip(opts, base):
            for group, rate in zip(o.param_groups, rates):
                group["lr"] = rate * factor
            o.step()
            o.zero_grad(set_to_none=True)
        step += 1
        images += len(x)
        decay = min(a.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(ema.parameters()), params, 1 - decay)
        loss_sum += loss.detach()
        norm_sum += norm.detach()
        count += 1


if __name__ == "__main__":
    main()
