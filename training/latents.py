"""Latents of drawings with their captions, made once: what a latent diffusion model learns from.

    python latents.py --autoencoder FOLDER --data DIR --recipe wide_styles --count 200000 --out LATENTS
    python train.py --latents LATENTS --init ../assets/models/icons-64 --patch 2 --data DIR --out RUN

The encoder takes as long for a picture as training does, and drawing it a good part of that; so each is done once, and the run sees the same
samples again and again, with other noise. LATENTS holds the autoencoder (vae/), latents.npy, captions.jsonl and the same of held-out
drawings. A run that was stopped goes on with the same command.
"""

import argparse
import json
import os
import shutil
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import numpy as np
import torch

from data import RECIPES, Mix, splits, to_input
from model import device_and_precision, keep_memory
from sample import load_autoencoder

PART = 500  # samples that are drawn and written at a time


@torch.no_grad()
def latents_of(autoencoder, pictures, device="cpu", bf16=False):
    """uint8 pictures -> float16, as the diffusion model has them"""
    with torch.autocast(device, torch.bfloat16, enabled=bf16):
        z = [autoencoder.encode(to_input(part, device)).latent_dist.mean for part in np.array_split(pictures, -(-len(pictures) // 32))]
    return (torch.cat(z).float() * autoencoder.config.scaling_factor).half().cpu().numpy()


class Parts(torch.utils.data.IterableDataset):
    """Parts of PART samples from the `first` on, each a list of (picture, caption) determined by (seed, its number) alone."""

    def __init__(self, mix, seed, first, count):
        self.mix, self.seed, self.numbers = mix, seed, range(first, count)

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        for n in self.numbers[info.id :: info.num_workers] if info else self.numbers:
            self.mix.seed(self.seed, n)
            yield [self.mix.sample() for _ in range(PART)]


def write(folder, name, parts, count, make):
    """`parts(first)` gives lists of (picture, caption), PART in each but the last, from that part on. Captions follow their
    latents, so what has a caption is done."""
    path, latents = Path(folder) / f"{name}captions.jsonl", None
    done = len(path.read_text().splitlines()) // PART * PART if path.exists() else 0
    if done:
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:done]))
        latents = np.load(Path(folder) / f"{name}latents.npy", mmap_mode="r+")
    for first, part in zip(range(done, count, PART), parts(done // PART)):
        z = make(np.stack([rgb for rgb, _ in part]))
        if latents is None:
            latents = np.lib.format.open_memmap(Path(folder) / f"{name}latents.npy", "w+", np.float16, (count, *z.shape[1:]))
        latents[first : first + len(z)] = z
        latents.flush()
        with open(path, "a") as f:
            f.writelines(json.dumps(text) + "\n" for _, text in part)
        print(name, first + len(part), "of", count, flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--autoencoder", required=True, help="exported folder with vae/")
    p.add_argument("--data", required=True)
    p.add_argument("--recipe", choices=RECIPES, default="wide_styles")
    p.add_argument("--fold-in", action="store_true", help="val_concept too")
    p.add_argument("--count", type=int, default=200_000)
    p.add_argument("--out", required=True)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--workers", type=int, default=0, help="processes that draw; as fast as one encodes is enough")
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--bf16", action=argparse.BooleanOptionalAction, help="default: where the processor has units for it")
    a = p.parse_args()
    if a.count % PART:
        p.error(f"--count is no multiple of {PART}")
    if a.threads:
        torch.set_num_threads(a.threads)
    keep_memory()
    device, bf16 = device_and_precision(a.bf16)
    autoencoder = load_autoencoder(a.autoencoder).to(device)
    make = lambda pictures: latents_of(autoencoder, pictures, device, bf16)
    shutil.copytree(Path(a.autoencoder) / "vae", Path(a.out) / "vae", dirs_exist_ok=True)
    mix = Mix(a.data, RECIPES[a.recipe], splits(a.fold_in)[0])
    held_out = list(mix.plain("val_pair"))
    write(a.out, "held_out_", lambda first: (held_out[i : i + PART] for i in range(first * PART, len(held_out), PART)), len(held_out), make)
    drawn = lambda first: torch.utils.data.DataLoader(Parts(mix, a.seed, first, a.count // PART), batch_size=None, num_workers=a.workers, collate_fn=list)
    write(a.out, "", drawn, a.count, make)


if __name__ == "__main__":
    main()
