"""Trains the autoencoder of the latent diffusion models: 128x128 pictures to 16x16 latents and back.

    python autoencoder.py --data DIR --out RUN --pictures 160000   # the same command resumes a stopped run
    python export.py RUN/checkpoint.pt --autoencoder --data DIR --out FOLDER
    python autoencoder.py --decoder-of FOLDER --data DIR --out MORE --pictures 30000 --adversary-from 0.2   # latents stay what they are

diffusers' AutoencoderKL (Rombach et al. 2022, "High-resolution image synthesis with latent diffusion models"), small enough that two
CPU cores draw a picture of its latents in some hundredths of a second. It learns drawings on white and on coloured backgrounds;
a patch discriminator joins for the last part of the run.
"""

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.nn import functional as F

import run
from data import RECIPES, RGB, over, to_input
from muon import Muon
from sample import grid, load_autoencoder
from seams import seams
from train import get_mix, prepare, visible_error

SCALES = (1, 2, 4, 8)
RECIPES["drawings"] = replace(RECIPES["full"], background=0.4)


def build_autoencoder(channels=(16, 32, 64, 96), latent_channels=8):
    """AutoencoderKL with eightfold reduction. Most of the decoder's work is at 128x128 and 64x64, so few channels there. No attention:
    what is at one place says nothing about another that the convolutions, 60 pixels wide, do not see."""
    net = AutoencoderKL(
        in_channels=3, out_channels=3, down_block_types=["DownEncoderBlock2D"] * len(channels), up_block_types=["UpDecoderBlock2D"] * len(channels),
        block_out_channels=channels, layers_per_block=1, latent_channels=latent_channels, norm_num_groups=8, mid_block_add_attention=False,
        sample_size=128, scaling_factor=1.0,
    )
    # latents begin with little noise, or the first thing learnt is to do without them
    nn.init.zeros_(net.quant_conv.weight.data[latent_channels:])
    nn.init.constant_(net.quant_conv.bias.data[latent_channels:], -5.0)
    return net


class Discriminator(nn.Sequential):
    """Is each place of a picture real? (Isola et al. 2017, "Image-to-image translation with conditional adversarial networks"). Group
    norm, so that it judges a picture by itself."""

    def __init__(self, width=32):
        conv = lambda i, o, stride: nn.Conv2d(i, o, 4, stride, 1)
        block = lambda i, o, stride: (conv(i, o, stride), nn.GroupNorm(8, o), nn.LeakyReLU(0.2))
        super().__init__(
            conv(3, width, 2), nn.LeakyReLU(0.2), *block(width, 2 * width, 2), *block(2 * width, 4 * width, 2), conv(4 * width, 1, 1))


class Both(nn.Module):
    def __init__(self, autoencoder, decoder_alone=False):
        super().__init__()
        self.autoencoder, self.discriminator = autoencoder, Discriminator()
        if decoder_alone:
            for part in (autoencoder.encoder, autoencoder.quant_conv):
                part.requires_grad_(False)

    def encode(self, x):
        """-> mean and logarithm of the variance of the latents"""
        d = self.autoencoder.encode(x).latent_dist
        return d.mean, d.logvar

    def decode(self, z):
        return self.autoencoder.decode(z).sample


def trained(net):
    return [p for p in net.parameters() if p.requires_grad]


def difference_loss(picture, goal):
    """What can be seen of |picture - goal|: averaged over squares of several sizes, and of its slopes, so that edges stay sharp
    and flat areas flat."""
    d = visible_error(picture, goal)
    levels = sum(F.avg_pool2d(d, s).abs().mean() for s in SCALES) / len(SCALES)
    return levels + (d.diff(dim=2).abs().mean() + d.diff(dim=3).abs().mean()) / 2


def divergence(mean, logvar):
    """From the normal distribution, per latent."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def adversarial_loss(both, picture, x, by_difference, last):
    """The generator's and the discriminator's hinge losses (Lim & Ye 2017). The former is made as steep at the last layer as the other loss, as in
    Esser et al. 2021, "Taming transformers", section 3.1."""
    d, seen = both.discriminator, picture.clamp(-1, 1)
    fool = -d(seen).mean()
    slope = lambda loss: torch.autograd.grad(loss, last, retain_graph=True)[0].norm()
    weight = (slope(by_difference) / (slope(fool) + 1e-4)).clamp(max=1e4).detach()
    tell = F.relu(1 - d(x)).mean() + F.relu(1 + d(seen.detach())).mean()
    return weight * fool, tell


class Pictures(torch.utils.data.IterableDataset):
    """Endless batches, each determined by (seed, batch number) alone."""

    def __init__(self, mix, batch, seed, first=0):
        self.mix, self.batch, self.seed, self.first = mix, batch, seed, first

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        number = self.first + worker
        while True:
            self.mix.seed(self.seed, number)
            yield torch.from_numpy(np.stack([self.mix.sample()[0] for _ in range(self.batch)]))
            number += workers


def held_out(mix, count=None):
    """-> two arrays of the same drawings, which training never sees: on white, and on a colour each; and which of them are no pixel art"""
    rows = [r for r in mix.rows if r["split"] in ("val_pair", "val_concept")]
    rows = rows[:: max(1, len(rows) // count)][:count] if count else rows
    colours = np.array([c for name, c in RGB.items() if name != "white"], np.float32)
    on = lambda background: np.stack([over(mix.px[r["index"]], background(i)) for i, r in enumerate(rows)])
    return on(lambda i: np.float32(255)), on(lambda i: colours[i % len(colours)]), np.array([r["set"] != "dcss" for r in rows])


@torch.no_grad()
def reconstruct(autoencoder, pictures, noise=0.0, batch=32):
    """uint8 -> uint8, through the means of the latents and as much noise as a share of a latent's spread."""
    device = next(autoencoder.parameters()).device
    generator, out = torch.Generator(device).manual_seed(1), []
    for part in np.array_split(pictures, -(-len(pictures) // batch)):
        z = autoencoder.encode(to_input(part, device)).latent_dist.mean
        z = z + noise * z.std() * torch.randn(z.shape, generator=generator, device=device)
        y = autoencoder.decode(z).sample
        out.append(((y.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(out)


@torch.no_grad()
def standardise(autoencoder, pictures):
    """Gives the latents mean 0 and variance 1 in each channel over these pictures: what that takes goes into the 1x1 convolutions at their
    two sides, so that scaling_factor is 1 and nothing is to be shifted, for which most pipelines have no place."""
    device = next(autoencoder.parameters()).device
    z = torch.cat([autoencoder.encode(to_input(part, device)).latent_dist.mean for part in np.array_split(pictures, -(-len(pictures) // 32))])
    mean, std = z.mean((0, 2, 3)), z.std((0, 2, 3))
    before, after, c = autoencoder.quant_conv, autoencoder.post_quant_conv, len(mean)
    before.weight[:c] /= std[:, None, None, None]
    before.bias[:c] = (before.bias[:c] - mean) / std
    before.bias[c:] -= 2 * std.log()
    after.bias += after.weight[..., 0, 0] @ mean
    after.weight *= std[:, None, None]


@torch.no_grad()
def without_unused(autoencoder, share=0.01):
    """The same autoencoder without latents that it does not draw from: what a standardised one adds is less than `share` of what the most important
    one does. The divergence lets training give such channels up (the mean says next to nothing, and the spread is that of the normal distribution); a
    diffusion model would have to learn them all the same, and one sample of their distribution would be far from its mean.

    What is left of the 1x1 convolutions becomes part of the convolutions beside them. They pad with zeros, of which a bias is no part: what of it
    is no constant in the new latents is missed at the outermost pixels of the latents."""
    n, config = autoencoder.config.latent_channels, {k: v for k, v in autoencoder.config.items() if not k.startswith("_")}
    weights = dict(autoencoder.state_dict())
    drawn = weights["post_quant_conv.weight"][..., 0, 0]
    keep = (drawn.norm(dim=0) >= share * drawn.norm(dim=0).max()).nonzero().flatten()
    if len(keep) == n:
        return autoencoder
    rows = torch.cat([keep, keep + n])
    q, drawn, bias = weights["quant_conv.weight"][rows, :, 0, 0], drawn[:, keep], weights["post_quant_conv.bias"]
    last, first = weights["encoder.conv_out.weight"], weights["decoder.conv_in.weight"]
    constant = torch.linalg.lstsq(drawn, bias[:, None]).solution[:, 0]
    weights |= {
        "encoder.conv_out.weight": torch.einsum("oi,ijhw->ojhw", q, last),
        "encoder.conv_out.bias": q @ weights["encoder.conv_out.bias"] + weights["quant_conv.bias"][rows],
        "quant_conv.weight": torch.eye(len(rows))[..., None, None], "quant_conv.bias": torch.zeros(len(rows)),
        "post_quant_conv.weight": torch.eye(len(keep))[..., None, None], "post_quant_conv.bias": constant,
        "decoder.conv_in.weight": torch.einsum("oihw,ij->ojhw", first, drawn),
        "decoder.conv_in.bias": weights["decoder.conv_in.bias"] + first.sum((2, 3)) @ (bias - drawn @ constant),
    }
    fewer = AutoencoderKL(**config | {"latent_channels": len(keep)})
    fewer.load_state_dict(weights)
    return fewer.eval()


def psnr(pictures, others):
    """Peak signal-to-noise ratio in dB, the mean over pictures."""
    error = np.square(pictures.astype(np.float32) - others).mean((1, 2, 3))
    return float((10 * np.log10(255**2 / np.maximum(error, 1e-2))).mean())


def measure(autoencoder, *sets, smooth):
    """-> what it makes of each set; PSNR on each, PSNR on the first with a tenth of noise in the latents, and how much the patches show, of what is no
    pixel art, all of whose edges lie at multiples of 4."""
    drawn = [reconstruct(autoencoder, pictures) for pictures in sets]
    noisy = psnr(reconstruct(autoencoder, sets[0], 0.1), sets[0])
    return drawn, [*(psnr(d, pictures) for d, pictures in zip(drawn, sets)), noisy, seams(np.concatenate([d[smooth] for d in drawn]))]


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    run.arguments(p, minutes=300, warm_up=100, decay=0.4, ema=0.998)
    p.add_argument("--recipe", choices=RECIPES, default="drawings")
    p.add_argument("--channels", type=int, nargs="+", default=(16, 32, 64, 96), help="at 128x128, 64x64, 32x32 and 16x16")
    p.add_argument("--latent-channels", type=int, default=8)
    p.add_argument("--decoder-of", metavar="FOLDER", help="train only the decoder of this exported autoencoder, so that its latents, and models on them, "
                   "stay what they are")
    p.add_argument("--lr", type=float, default=6e-3, help="Muon's; the rest follows in fixed proportion")
    p.add_argument("--divergence", type=float, default=5e-4, help="weight of the latents' divergence from the normal distribution")
    p.add_argument("--noise", type=float, default=0.15, help="most noise in the latents that are drawn, which a diffusion model makes not exactly; of their spread")
    p.add_argument("--half", type=float, default=0.1, help="weight of the loss of half as large pictures of half as large latents")
    p.add_argument("--adversary", type=float, default=0.1, help="weight of the discriminator")
    p.add_argument("--adversary-from", type=float, default=0.7, help="part of the time after which it joins")
    p.add_argument("--parts", type=int, default=1, help="of a batch, each computed by a thread of its own: with --threads 1, where other programs use "
                   "the same cores and threads that share each operation would wait for each other thousands of times a step")
    p.add_argument("--held-out", type=int, default=48, help="drawings that are measured on the way")
    p.set_defaults(batch=8)
    return p.parse_args()


def optimizers(both, lr, ns_steps):
    """Muon for the autoencoder's convolutions, AdamW for what else it has and for the discriminator."""
    groups = {"muon": [], "rest": [], "discriminator": list(both.discriminator.parameters())}
    for p in trained(both.autoencoder):
        groups["muon" if p.ndim == 4 and ns_steps else "rest"].append(p)
    adam = [{"params": groups["rest"], "lr": 0.2 * lr}, {"params": groups["discriminator"], "lr": 5e-4}]
    return [
        *([Muon(groups["muon"], lr=lr, weight_decay=0.01, momentum=0.95, ns_steps=ns_steps)] if ns_steps else []),
        torch.optim.AdamW(adam, betas=(0.9, 0.97), weight_decay=0.0, fused=True),
    ]


def losses(a, both, x, generator, adversary):
    """-> the autoencoder's losses, to be added up, and the discriminator's last"""
    mean, logvar = both.encode(x)
    draw = lambda: torch.randn(mean.shape, generator=generator, device=x.device)
    level = a.noise * mean.detach().std() * torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device)
    z = mean + (0.5 * logvar).exp() * draw() + level * draw()
    # what is done to latents is done to the picture: mirrored, and half as large (Kouzelis et al. 2025, "EQ-VAE"; a quarter of the pictures)
    if torch.rand((), generator=generator, device=x.device) < 0.5:
        z, x = z.flip(3), x.flip(3)
    small = slice(max(1, len(x) // 4))
    picture, half = both.decode(z).float(), both.decode(F.avg_pool2d(z[small], 2)).float()
    by_difference = difference_loss(picture, x)
    out = [by_difference, a.half * difference_loss(half, F.avg_pool2d(x[small], 2)), a.divergence * divergence(mean, logvar)]
    if not adversary:
        return [*out, x.new_zeros(()), None]
    fool, tell = adversarial_loss(both, picture, x, by_difference, both.autoencoder.decoder.conv_out.weight)
    return [*out, a.adversary * fool, tell]


def gradients(a, both, x, seed, bf16, adversary):
    """-> the losses as numbers, and the gradient of each parameter that is trained by that of its network"""
    generator = torch.Generator(x.device).manual_seed(seed)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
        *parts, tell = losses(a, both, x, generator, adversary)
    of = lambda loss, net: torch.autograd.grad(loss, trained(net), retain_graph=adversary)
    slopes = [*of(sum(parts), both.autoencoder), *(of(tell, both.discriminator) if adversary else [None] * len(trained(both.discriminator)))]
    return [float(v) for v in torch.stack([*parts, tell if adversary else x.new_zeros(())]).detach()], slopes


def main():
    a = arguments()
    device, bf16 = prepare(a)
    mix = get_mix(a)
    if a.decoder_of:
        autoencoder = load_autoencoder(a.decoder_of).train().requires_grad_(True)
        vars(a).update(channels=autoencoder.config.block_out_channels, latent_channels=autoencoder.config.latent_channels)
    else:
        autoencoder = build_autoencoder(a.channels, a.latent_channels)
    both = Both(autoencoder, a.decoder_of is not None).to(device)
    columns = ["difference", "half", "divergence", "fool", "tell", "psnr_white", "psnr_coloured", "psnr_noisy", "seams", "latent_std", "noise_std"]
    r = run.Run(a, both, optimizers(both, a.lr, a.ns_steps), columns)
    (*sets, smooth), recent = held_out(mix, a.held_out), []
    # One part stays on this thread: another would have a team of OpenMP threads of its own, and two teams on the same cores wait for each other.
    each = ThreadPoolExecutor(a.parts).map if a.parts > 1 else map
    data = torch.utils.data.DataLoader(Pictures(mix, a.batch, a.seed, r.step), batch_size=None, num_workers=a.workers, prefetch_factor=8)
    for rgb in data:
        due, code = r.tick()
        if due:
            drawn, figures = measure(r.ema.autoencoder, *sets, smooth=smooth)
            with torch.no_grad():
                mean, logvar = r.ema.encode(to_input(np.concatenate(sets), device))
            means = np.mean(recent or [[0.0] * 5], 0)
            r.save(*(round(float(v), 5) for v in (*means, *figures, mean.std(), (0.5 * logvar).exp().mean())))
            shown = [v[: 4 * 12 : 4] for pair in zip(sets, drawn) for v in pair]
            grid(np.concatenate(shown), len(shown[0]), 1).save(Path(a.out) / "reconstructions.png")
            recent = []
        if code is not None:
            sys.exit(code)
        adversary = r.progress() >= a.adversary_from
        first = (a.seed * 10_000_019 + r.step) * a.parts  # so a resumed run draws the same noise
        work = lambda i: gradients(a, both, to_input(rgb[i :: a.parts], device), first + i, bf16, adversary)
        values, slopes = zip(*each(work, range(a.parts)))
        for p, *g in zip(trained(both), *slopes):
            p.grad = None if g[0] is None else sum(g) / a.parts
        recent.append(np.mean(values, 0))
        r.update(torch.tensor(recent[-1].sum()), len(rgb))


if __name__ == "__main__":
    main()
