"""Trains a consistency model (Song et al. 2023, "Consistency models"), by distillation or from nothing.

    python consistency.py --teacher ../assets/models/icons-64 --data DIR --out RUN --minutes 40        # distillation (CD)
    python consistency.py --teacher MODEL --latents LATENTS --data DIR --out RUN --minutes 360          # CD of a teacher on latents
    python consistency.py --mode ct --data DIR --out RUN --recipe shapes --width 128 --layers 4        # training (CT)

f(x + sigma n, sigma) is the clean picture at the start of the probability-flow ODE's path through x + sigma n. Both losses pull
f at a noise level towards f at a lower one on the same path, and differ in how they find the point there. Noise levels come
closer together as the run goes on, as in easy consistency tuning (Geng et al. 2024). A stopped run goes on like train.py's.
"""

import argparse
import copy
import functools
import math
import os
import sys
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import numpy as np
import torch

import run
from data import RECIPES, encode
from export import write
from model import (
    CONSISTENCY_BETAS, LATENT_NOISE, Denoiser, boundary, build_text_encoder, build_transformer, consistency_betas, consistency_scheduler, ddpm_sigmas,
    finer, on_pixels, sizes)
from sample import PROMPTS, generate, grid, load, load_autoencoder
from train import batches, get_mix, get_tokenizer, optimizers, prepare, visible_error

SIGMA_MAX = float(ddpm_sigmas(*CONSISTENCY_BETAS)[-1])  # timestep 999, where a picture starts
CLOSE = 4 / 127.5  # a teacher's guess so near to white, four levels of a byte, is meant to be white


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
    stage below sigma 2, which suits CT; a teacher's guess there is still a blur, so CD halves sigma at every step (k = 0).

    Below the lowest level that is trained, the clean picture takes over: a chain that ended at another value of f would be
    anchored to nothing, and f collapses to a constant."""
    r = sigma * (1 - (1 + k * torch.sigmoid(-sigma)) / 2**stage)
    return torch.where(r < lowest, torch.zeros_like(r), r)


def draw_sigmas(n, lowest, generator, device, middle=0.0, unit=1.0, most=SIGMA_MAX):
    """Uniform in log sigma, so that each step of the chain counts alike, and the start of a picture more often than that. A share
    `middle` of the rest lies around sigma 3, where the picture is decided and f is hardest to learn; of latents around 3 `unit`."""
    highest = math.log(most)
    log = torch.empty(n, device=device).uniform_(lowest, highest, generator=generator)
    if middle:
        normal = 1.1 + math.log(unit) + 0.8 * torch.randn(n, generator=generator, device=device)
        log = torch.where(torch.rand(n, generator=generator, device=device) < middle, normal.clamp(lowest, highest), log)
    return torch.where(torch.rand(n, generator=generator, device=device) < 0.15, highest, log).exp()


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


def picture_distance(error):
    """Pseudo-Huber distance of whole pictures with c = 0.00054 sqrt(dimensions) (Song & Dhariwal 2023, section 3.3)."""
    c = 0.00054 * error[0].numel() ** 0.5
    return (error.square().flatten(1).sum(1) + c**2).sqrt() - c


def pixel_distance(error, c=0.03):
    """The same of each value by itself, on the same scale. A whole picture's distance is that of its edges, and a faint pattern in flat
    areas costs next to nothing beside them; here it counts as much. Its minimum is a median, which suits a target that is the same
    each time, such as a teacher's (Song et al. 2023 find L1 better than L2 for CD). Latents have twice the c, as they have twice the spread."""
    return ((error.square() + c**2).sqrt() - c).flatten(1).sum(1) / error[0].numel() ** 0.5


def consistency_loss(f, target, point, denoise, x, noise, sigma, r, error=torch.sub, distance=picture_distance):
    """E d(f(x_t, t), f-(x_r, r)): equations 7 (CD) and 10 (CT) of Song et al. 2023, f- being f without gradient and without
    EMA (Song & Dhariwal 2023, section 3.2), and d the distance of an error."""
    wide = (len(x),) + (1,) * (x.ndim - 1)
    with torch.no_grad():
        x_t, x_r = point(denoise, x, noise, sigma.view(wide), r.view(wide))
        # at r = 0 the point is the clean picture itself: f is the identity there
        goal = torch.where(r.view(wide) > 0, target(x_r, r.clamp(min=0.01)), x_r)
    return distance(error(f(x_t, sigma), goal)).mean()


def guidance_at(sigma, low, middle, high, unit=1.0, most=SIGMA_MAX):
    """The guidance scale at a noise level: low up to sigma 1, middle at 12 (of latents that many times `unit`), high at the start, linear in log
    sigma between. Guidance is needed where it decides what is drawn; below that it only drives pictures away from real ones, and above it
    makes colours too strong (Kynkaanniemi et al. 2024, "Applying guidance in a limited interval")."""
    knee, highest = math.log(12), math.log(most / unit)
    log = (sigma / unit).log().clamp(0, highest)
    return torch.where(log < knee, low + (middle - low) * log / knee, middle + (high - middle) * (log - knee) / (highest - knee))


def guided(teacher, x_t, sigma, mask, text, empty_mask, empty_text, scales):
    """The teacher's classifier-free guided prediction u + g (c - u), which the student learns as its own."""
    masks, texts = torch.cat([mask, empty_mask]), torch.cat([text, empty_text])
    c, u = teacher(torch.cat([x_t, x_t]), sigma.repeat(2), None, masks, texts).chunk(2)
    return u + guidance_at(sigma, *scales)[:, None, None, None] * (c - u)


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--mode", choices=["cd", "ct"], default="cd")
    p.add_argument("--teacher", help="exported folder; the student starts from it")
    p.add_argument("--before", nargs=2, metavar=("TEACHER", "STUDENT"), help="an earlier pair: the student starts from --teacher plus what told these two apart")
    run.arguments(p, minutes=40, warm_up=50, decay=0.4, ema=0.99)
    run.network(p)
    p.add_argument("--latents", help="learn on these, of latents.py, not on pixels; they belong to the teacher's autoencoder")
    p.add_argument("--recipe", choices=RECIPES, default="everyday")
    p.add_argument("--guidance", type=float, nargs=3, metavar=("LOW", "MIDDLE", "HIGH"), help="at these noise levels, see guidance_at(); default: the teacher's own at all")
    p.add_argument("--train-text", action=argparse.BooleanOptionalAction, help="default: only without a teacher")
    p.add_argument("--k", type=float, help="see lower(); default: 0 for CD, 8 for CT")
    p.add_argument("--lowest", type=float, default=-1.7, help="of log sigma: where the chain ends, at timestep 1 or above, below any level that a step starts from")
    p.add_argument("--middle", type=float, default=0.0, help="share of the noise levels that lies around sigma 3, see draw_sigmas()")
    p.add_argument("--stages", type=int, nargs=2, metavar=("FIRST", "LAST"), help="see lower(); default: 1 1 for CD, which falls apart later, 0 2 for CT")
    p.add_argument("--distance", choices=["picture", "pixel"], help="default: pixel for CD, picture for CT")
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--fit", type=int, default=1000, help="iterations in which the time embedding is fitted to the student's schedule")
    p.add_argument("--export", help="with each checkpoint also write the folder that export.py writes")
    a = p.parse_args()
    if a.mode == "cd" and not a.teacher:
        p.error("--mode cd needs --teacher")
    if a.latents and not a.teacher:
        p.error("--latents needs --teacher, whose network and tokenizer it takes")
    a.k = {"cd": 0.0, "ct": 8.0}[a.mode] if a.k is None else a.k
    a.distance = a.distance or {"cd": "pixel", "ct": "picture"}[a.mode]
    a.stages = a.stages or {"cd": (1, 1), "ct": (0, 2)}[a.mode]
    a.train_text = not a.teacher if a.train_text is None else a.train_text
    return a


def from_folder(folder):
    """-> (the exported folder's Denoiser, in its own schedule; defaults)"""
    transformer, text_encoder, _, scheduler, *_, defaults = load(folder)
    return Denoiser(transformer, text_encoder, betas=(scheduler.config.beta_start, scheduler.config.beta_end)), defaults


def begin(student, teacher, before, iterations=1000):
    """A copy of the teacher learns its own schedule, and, where there is an earlier pair, what distillation did to that teacher, at once:
    the acceleration vector of Luo et al. 2023 (LCM-LoRA)."""
    sigma = student.sigma(torch.arange(0, 999.01, 0.5))
    with torch.no_grad():
        time = teacher.time_embedding(sigma)
        if before:  # embeddings are added as functions of the noise, whatever the timesteps are
            time += before[1].time_embedding(sigma) - before[0].time_embedding(sigma)
            earlier = [m.transformer if not on_pixels(student.transformer) else finer(m.transformer, student.transformer.config.patch_size) for m in before]
            for p, a, b in zip(student.transformer.parameters(), *(net.parameters() for net in earlier), strict=True):
                if p.shape == a.shape:  # what reads and writes latents had nothing to learn on pixels
                    p += b - a
    student.fit_time_embedding(sigma, time, iterations)


def networks(a, mix):
    """-> (teacher or None, the network to train, tokenizer, guidance scales)"""
    tokenizer = get_tokenizer(a, mix, a.teacher)
    if not a.teacher:
        new = build_transformer(a.width, a.layers, patch=a.patch), build_text_encoder(len(tokenizer))
        return None, Denoiser(*new, betas=CONSISTENCY_BETAS), tokenizer, None
    teacher, defaults = from_folder(a.teacher)
    teacher.requires_grad_(False).eval()
    vars(a).update(sizes(teacher.transformer))  # the checkpoint says what was trained, whatever the command line said
    if on_pixels(teacher.transformer) == bool(a.latents):
        sys.exit("a teacher on latents takes --latents, one on pixels none")
    betas = consistency_betas(teacher.transformer)
    student = Denoiser(copy.deepcopy(teacher.transformer), copy.deepcopy(teacher.text_encoder), betas=betas).requires_grad_(True)
    if not (Path(a.out) / "checkpoint.pt").exists():  # which has what it began with, and more
        begin(student, teacher, [from_folder(folder)[0] for folder in a.before or []], a.fit)
    return teacher, student, tokenizer, a.guidance or [defaults["guidance_scale"]] * 3


def show(a, ema, tokenizer, device):
    """RUN/samples.png (one, two and four steps) and the exported folder."""
    if device == "cpu":
        parts = ema.transformer, ema.text_encoder, tokenizer, consistency_scheduler(ema.transformer), a.latents and load_autoencoder(a.latents)
        rows = [generate(*parts, PROMPTS, n, 1.0) for n in (1, 2, 4)]
        grid(np.concatenate(rows), len(PROMPTS)).save(Path(a.out) / "samples.png")
    if a.export:
        write(ema, Path(a.out) / "tokenizer", a.data, a.export, 1.0, 1, consistency=True, autoencoder=a.latents)


def main():
    a = arguments()
    device, bf16 = prepare(a)
    mix = get_mix(a)
    teacher, denoiser, tokenizer, guidance = networks(a, mix)
    if a.mode == "ct":
        teacher = None
    model = denoiser.to(device).train()
    model.text_encoder.requires_grad_(a.train_text)
    r = run.Run(a, model, optimizers(model, a.lr, a.ns_steps), ["loss", "gradient_norm", "stage"])
    f = Student(model)
    net, guide = (torch.compile(m, dynamic=False) if a.compile and m else m for m in (f, teacher and teacher.to(device)))
    point = {"cd": distillation_point, "ct": training_point}[a.mode]
    generator = torch.Generator(device)
    error = functools.partial(visible_error, close=CLOSE) if teacher and not a.latents else torch.sub  # latents have no ends
    distance = {"picture": picture_distance, "pixel": functools.partial(pixel_distance, c=0.06 if a.latents else 0.03)}[a.distance]
    unit, most = LATENT_NOISE if a.latents else 1.0, model.log_sigmas[-1].exp().item()
    nothing = [t.to(device) for t in encode(tokenizer, [""])]
    for x, ids, mask in batches(a, mix, tokenizer, r.step, device, dropout=0.0):
        due, code = r.tick()
        stage = min(int(a.stages[0] + r.progress() * (a.stages[1] - a.stages[0] + 1)), a.stages[1])  # each for an equal time
        if due:
            r.save(stage, prediction="sample")
            show(a, r.ema, tokenizer, device)
        if code is not None:
            sys.exit(code)
        generator.manual_seed(a.seed * 10_000_019 + r.step)
        sigma = draw_sigmas(len(x), a.lowest, generator, device, a.middle, unit, most)
        noise = torch.randn(x.shape, generator=generator, device=device)
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            text, denoise = model.encode(ids, mask), None
            if teacher:
                with torch.no_grad():
                    told = teacher.encode(ids, mask)
                    untold_mask = nothing[1][:, : ids.shape[1]].expand(len(x), -1)
                    untold = teacher.encode(*(t[:, : ids.shape[1]] for t in nothing)).expand(len(x), -1, -1)
                denoise = lambda x_t: guided(guide, x_t, sigma, mask, told, untold_mask, untold, (*guidance, unit, most))
            call = lambda x_t, s: net(x_t, s, None, mask, text)
            loss = consistency_loss(call, call, point, denoise, x, noise, sigma, lower(sigma, stage, a.k, math.exp(a.lowest)), error, distance)
        r.update(loss, len(x))


if __name__ == "__main__":
    main()
