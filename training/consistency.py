"""Trains a consistency model (Song et al. 2023, "Consistency models"), by distillation or from nothing.

    python consistency.py --teacher ../assets/models/icons-64 --data DIR --out RUN --minutes 40        # distillation (CD)
    python consistency.py --mode ct --data DIR --out RUN --recipe badges --width 128 --layers 4        # training (CT)

f(x + sigma n, sigma) is the clean picture at the start of the probability-flow ODE's path through x + sigma n. Both losses pull
f at a noise level towards f at a lower one on the same path, and differ in how they find the point there. Noise levels come
closer together as the run goes on, as in easy consistency tuning (Geng et al. 2024). A stopped run goes on like train.py's.
"""

import argparse
import copy
import csv
import math
import os
import shutil
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from transformers import CLIPTokenizer

import tokenizer as bpe
from data import RECIPES, Batches, Mix, encode
from export import write
from model import Denoiser, boundary, build_text_encoder, build_transformer, consistency_scheduler, device_and_precision
from sample import PROMPTS, generate, grid, load
from train import learning_rate, optimizers, save

LOG_SIGMA_MAX = 5.06  # timestep 999, where a picture starts


class Student(torch.nn.Module):
    """f = c_skip(t) x_t + c_out(t) D(x_t, t), with LCMScheduler's scalings (Song et al. 2023, equation 5). x_t is the
    variance-preserving input, as there."""

    def __init__(self, denoiser):
        super().__init__()
        self.denoiser = denoiser

    def forward(self, noisy, sigma, ids, mask, text=None):
        skip, out = (c[:, None, None, None] for c in boundary(self.denoiser.timestep(sigma)))
        return skip * noisy / (1 + sigma[:, None, None, None] ** 2).sqrt() + out * self.denoiser(noisy, sigma, ids, mask, text)


def lower(sigma, stage, k=8.0, lowest=0.2):
    """The noise level that is compared with sigma: Geng et al. 2024, section 3.3, r = t (1 - n(t) / q^stage) with q = 2 and
    n(t) = 1 + k sigmoid(-t). Stage 0 compares with the clean picture: that is denoising. With their k = 8 so does the first
    stage below sigma 2, which suits CT; a teacher's guess there is still a blur, so CD takes smaller steps (k = 1).

    Below the lowest level that is trained, the clean picture takes over: a chain that ended at another value of f would be
    anchored to nothing, and f collapses to a constant."""
    r = sigma * (1 - (1 + k * torch.sigmoid(-sigma)) / 2**stage)
    return torch.where(r < lowest, torch.zeros_like(r), r)


def draw_sigmas(n, lowest, generator, device):
    """Uniform in log sigma, so that each step of the chain counts alike, and the start of a picture more often than that."""
    log = torch.empty(n, device=device).uniform_(lowest, LOG_SIGMA_MAX, generator=generator)
    return torch.where(torch.rand(n, generator=generator, device=device) < 0.15, LOG_SIGMA_MAX, log).exp()


def distillation_point(denoise, x, noise, sigma, r):
    """CD: one step of an ODE solver with the teacher's score (Song et al. 2023, equation 6; here Euler's, which is DDIM):
    x_r = x_t + (r - t) dx/dt with dx/dt = (x_t - D(x_t, t)) / t."""
    x_t = x + sigma * noise
    d = denoise(x_t)
    return x_t, d + r / sigma * (x_t - d)


def training_point(denoise, x, noise, sigma, r):
    """CT: no teacher. (x_t - x) / t estimates dx/dt without bias (Song et al. 2023, lemma 1), which makes the point at r the
    same picture with the same noise, only less of it (equation 10)."""
    return x + sigma * noise, x + r * noise


def consistency_loss(f, target, point, denoise, x, noise, sigma, r):
    """E d(f(x_t, t), f-(x_r, r)): equations 7 (CD) and 10 (CT) of Song et al. 2023, f- being f without gradient and without
    EMA, and d the pseudo-Huber distance, both after Song & Dhariwal 2023 (sections 3.2 and 3.3; c = 0.00054 sqrt(dimensions))."""
    wide = (len(x),) + (1,) * (x.ndim - 1)
    with torch.no_grad():
        x_t, x_r = point(denoise, x, noise, sigma.view(wide), r.view(wide))
        # at r = 0 the point is the clean picture itself: f is the identity there
        goal = torch.where(r.view(wide) > 0, target(x_r, r.clamp(min=0.01)), x_r)
    c = 0.00054 * x[0].numel() ** 0.5
    square = (f(x_t, sigma) - goal).square().flatten(1).sum(1)
    return ((square + c**2).sqrt() - c).mean()


def guided(teacher, x_t, sigma, mask, text, empty_mask, empty_text, scale):
    """The teacher's classifier-free guided prediction u + g (c - u) at a fixed scale, which the student learns as its own."""
    masks, texts = torch.cat([mask, empty_mask]), torch.cat([text, empty_text])
    c, u = teacher(torch.cat([x_t, x_t]), sigma.repeat(2), None, masks, texts).chunk(2)
    return u + scale * (c - u)


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--mode", choices=["cd", "ct"], default="cd")
    p.add_argument("--teacher", help="exported folder; the student starts from it")
    p.add_argument("--data", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--recipe", choices=RECIPES, default="everyday")
    p.add_argument("--fold-in", action="store_true", help="train on val_concept too")
    p.add_argument("--guidance", type=float, help="default: the teacher's own")
    p.add_argument("--train-text", action=argparse.BooleanOptionalAction, help="default: only without a teacher")
    p.add_argument("--k", type=float, help="see lower(); default: 1 for CD, 8 for CT")
    p.add_argument("--lowest", type=float, default=-0.7, help="of log sigma: with four steps a picture meets nothing below 0.9")
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--stages", type=int, nargs=2, default=(1, 3), metavar=("FIRST", "LAST"), help="see lower()")
    p.add_argument("--minutes", type=float, default=40)
    p.add_argument("--session", type=float, default=float("inf"), help="stop after this many minutes, exit code 3; the same command goes on")
    p.add_argument("--steps", type=int, default=0)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--width", type=int, default=256, help="of a network without a teacher")
    p.add_argument("--layers", type=int, default=6)
    p.add_argument("--patch", type=int, default=8)
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--warm-up", type=int, default=50)
    p.add_argument("--decay", type=float, default=0.4)
    p.add_argument("--ns-steps", type=int, default=5, help="Muon's; 0: AdamW alone")
    p.add_argument("--ema", type=float, default=0.99)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--workers", type=int, default=1)
    p.add_argument("--save-minutes", type=float, default=5, help="checkpoint and RUN/samples.png (one, two and four steps)")
    p.add_argument("--export", help="with each checkpoint also write the folder that export.py writes")
    p.add_argument("--compile", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    a = p.parse_args()
    if a.mode == "cd" and not a.teacher:
        p.error("--mode cd needs --teacher")
    a.k = {"cd": 1.0, "ct": 8.0}[a.mode] if a.k is None else a.k
    a.train_text = not a.teacher if a.train_text is None else a.train_text
    return a


def networks(a, out, mix):
    """-> (teacher or None, the network to train, tokenizer, guidance scale)"""
    if a.teacher:
        transformer, text_encoder, tokenizer, _, defaults = load(a.teacher)
        if not (out / "tokenizer").exists():
            shutil.copytree(Path(a.teacher) / "tokenizer", out / "tokenizer")
        teacher = Denoiser(transformer, text_encoder).requires_grad_(False).eval()
        config = transformer.config  # the checkpoint says what was trained, whatever the command line said
        a.width, a.layers, a.patch = config.attention_head_dim * config.num_attention_heads, config.num_layers, config.patch_size
        return teacher, copy.deepcopy(teacher).requires_grad_(True), tokenizer, a.guidance or defaults["guidance_scale"]
    if not (out / "tokenizer").exists():
        bpe.save(*bpe.train(bpe.caption_texts(mix.rows), 4096), out / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer")
    return None, Denoiser(build_transformer(a.width, a.layers, patch=a.patch), build_text_encoder(len(tokenizer))), tokenizer, 1.0


def main():
    a = arguments()
    device, bf16 = device_and_precision()
    torch.set_float32_matmul_precision("high")
    if a.threads:
        torch.set_num_threads(a.threads)
    out, path = Path(a.out), Path(a.out) / "checkpoint.pt"
    out.mkdir(parents=True, exist_ok=True)
    mix = Mix(a.data, RECIPES[a.recipe], ("train", "val_concept") if a.fold_in else ("train",))
    torch.manual_seed(a.seed)
    teacher, denoiser, tokenizer, guidance = networks(a, out, mix)
    if a.mode == "ct":
        teacher = None
    model = denoiser.to(device).train()
    model.text_encoder.requires_grad_(a.train_text)
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
    f = Student(model)
    net, guide = (torch.compile(m) if a.compile and m else m for m in (f, teacher and teacher.to(device)))
    padding = "max_length" if a.compile else "longest"
    batches = Batches(mix, tokenizer, a.batch, a.seed, first=step, dropout=0.0, padding=padding)
    loader = iter(torch.utils.data.DataLoader(batches, batch_size=None, num_workers=a.workers, prefetch_factor=8))
    point = {"cd": distillation_point, "ct": training_point}[a.mode]
    generator, params = torch.Generator(device), [p for p in model.parameters() if p.requires_grad]
    averaged = [e for e, p in zip(ema.parameters(), model.parameters()) if p.requires_grad]
    nothing = [t.to(device) for t in encode(tokenizer, [""])]
    log = csv.writer(open(out / "log.csv", "a", newline="", buffering=1))
    if step == 0:
        log.writerow(["step", "minutes", "images", "stage", "loss", "gradient_norm"])

    begun = last = time.monotonic()
    saved, losses, norms = elapsed, [], []
    while True:
        now = time.monotonic()
        elapsed, last = elapsed + min(now - last, 60), now  # a step of more than a minute was stopped from outside
        progress = min(1, elapsed / (60 * a.minutes))
        complete = progress >= 1 or (a.steps and step >= a.steps)
        done = complete or now - begun >= 60 * a.session
        stage = min(int(a.stages[0] + progress * (a.stages[1] - a.stages[0] + 1)), a.stages[1])  # each for an equal time
        if done or elapsed - saved >= 60 * a.save_minutes:
            saved = elapsed
            row = [step, round(elapsed / 60, 2), images, stage]
            row += [round(torch.stack(v).mean().item(), 4) if v else "" for v in (losses, norms)]
            log.writerow(row)
            print(*row, flush=True)
            save(path, step=step, images=images, elapsed=elapsed, model=model.state_dict(), ema=ema.state_dict(),
                 optimizers=[o.state_dict() for o in opts], arguments=vars(a) | dict(prediction="sample"))
            losses, norms = [], []
            parts = ema.transformer, ema.text_encoder, tokenizer, consistency_scheduler()
            rows = [generate(*parts, PROMPTS, n, 1.0) for n in (1, 2, 4)] if device == "cpu" else []
            if rows:
                grid(np.concatenate(rows), len(PROMPTS)).save(out / "samples.png")
            if a.export:
                write(ema, out / "tokenizer", a.data, a.export, 1.0, 1, consistency=True)
        if done:
            sys.exit(0 if complete else 3)
        rgb, ids, mask = (t.to(device, non_blocking=True) for t in next(loader))
        x = rgb.permute(0, 3, 1, 2).float() / 127.5 - 1
        generator.manual_seed(a.seed * 10_000_019 + step)
        sigma = draw_sigmas(len(x), a.lowest, generator, device)
        noise = torch.randn(x.shape, generator=generator, device=device)
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            text, denoise = model.encode(ids, mask), None
            if teacher:
                with torch.no_grad():
                    told = teacher.encode(ids, mask)
                    untold_mask = nothing[1][:, : ids.shape[1]].expand(len(x), -1)
                    untold = teacher.encode(*(t[:, : ids.shape[1]] for t in nothing)).expand(len(x), -1, -1)
                denoise = lambda x_t: guided(guide, x_t, sigma, mask, told, untold_mask, untold, guidance)
            call = lambda x_t, s: net(x_t, s, None, mask, text)
            loss = consistency_loss(call, call, point, denoise, x, noise, sigma, lower(sigma, stage, a.k, math.exp(a.lowest)))
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(params, 1.0))
        factor = learning_rate(step, progress, a.warm_up, a.decay)
        for o, rates in zip(opts, base):
            for group, rate in zip(o.param_groups, rates):
                group["lr"] = rate * factor
            o.step()
            o.zero_grad(set_to_none=True)
        step += 1
        images += len(x)
        torch._foreach_lerp_(averaged, params, 1 - min(a.ema, (1 + step) / (10 + step)))
        losses.append(loss.detach())


if __name__ == "__main__":
    main()
