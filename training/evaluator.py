"""Trains the network that judges pictures: which caption is this, and how far is one set of pictures from another?

    python evaluator.py --data DIR --out evaluator.pt

A small convolutional network and a bag of words, trained by matching pictures to captions (Radford et al. 2021) and by naming
concept, style and colour. No generator ever sees it. It is trained on every drawing, also those that are held out of the
generators: a judge must know what it is asked about. Its own score on real pictures is the ceiling of a generator's."""

import argparse
import csv
import dataclasses
import os
import re
import time
import zlib

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from colour_words import colours
from data import RECIPES, RGB, STYLE, Mix

BUCKETS, WORDS = 8192, 16  # hashed words (Weinberger et al. 2009), so that there is no vocabulary to keep
COLOURS, SETS = ["", *RGB], [*STYLE]


def bag(text):
    words = [1 + zlib.crc32(w.encode()) % (BUCKETS - 1) for w in re.findall(r"[a-z0-9']+", text.lower()) if w not in ("a", "an")]
    return (words + [0] * WORDS)[:WORDS]


class Evaluator(nn.Module):
    """pictures: (n, 3, 64, 64) in -1..1"""

    def __init__(self, concepts, dim=64):
        super().__init__()
        conv = lambda i, o, s: nn.Sequential(nn.Conv2d(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(True))
        self.cnn = nn.Sequential(
            conv(3, 24, 2), conv(24, 64, 2), conv(64, 64, 1), conv(64, 128, 2), conv(128, 128, 1), conv(128, 256, 2),
            conv(256, 256, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(1024, dim),
        )
        self.words = nn.EmbeddingBag(BUCKETS, 2 * dim, padding_idx=0, mode="sum")
        self.text = nn.Sequential(nn.ReLU(), nn.Linear(2 * dim, dim))
        self.heads = nn.ModuleList(nn.Linear(dim, n) for n in (concepts, len(SETS), len(COLOURS)))
        self.scale = nn.Parameter(torch.tensor(2.5))

    def match(self, features, bags):
        """Cosine similarity of each picture to each caption."""
        return F.normalize(features, dim=1) @ F.normalize(self.text(self.words(bags)), dim=1).T

    def loss(self, x, bags, labels):
        features = self.cnn(x)
        logits = self.match(features, bags) * self.scale.exp()
        same = (bags[:, None] == bags[None]).all(2)  # equal captions in a batch are all right
        target = same / same.sum(1, keepdim=True)
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return contrast + 0.5 * sum(F.cross_entropy(h(features), y) for h, y in zip(self.heads, labels.T))


class Samples(torch.utils.data.IterableDataset):
    def __init__(self, mix, concepts, batch, seed):
        self.mix, self.concepts, self.batch, self.seed = mix, concepts, batch, seed

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        number, step = (info.id, info.num_workers) if info else (0, 1)
        while True:
            self.mix.seed(self.seed, number)
            rgbs, bags, labels = [], [], []
            for _ in range(self.batch):
                rgb, text = self.mix.sample()
                r, drawn = self.mix.drawn, 255 * (rgb.min(2, keepdims=True) < 245).astype(np.uint8)
                colour = colours(np.concatenate([rgb, drawn], 2))[1] or ""
                rgbs.append(rgb), bags.append(bag(text))
                labels.append((self.concepts[r["concept"]], SETS.index(r["set"]), COLOURS.index(colour)))
            yield tuple(torch.from_numpy(np.array(a)) for a in (rgbs, bags, labels))
            number += step


def to_input(rgb):
    return torch.as_tensor(rgb).permute(0, 3, 1, 2).float() / 127.5 - 1


def everything(data, recipe):
    """Samples of all splits and colours, the rare things more often than a generator's recipe has them."""
    r = RECIPES[recipe]
    r = dataclasses.replace(r, favourites=tuple((name, 6.0) for name, _ in r.favourites), groups=(("Flags", 0.2), ("People", 0.3)),
                            colour=0.5, recolour=0.35)
    return Mix(data, r, ("train", "val_pair", "val_concept"), hold_out=False)


def load(path):
    c = torch.load(path, map_location="cpu", weights_only=True)
    model = Evaluator(c["concepts"])
    model.load_state_dict(c["model"])
    return model.eval()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--recipe", choices=RECIPES, default="everyday")
    p.add_argument("--pictures", type=int, default=40_000)
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--lr", type=float, default=3e-3)
    p.add_argument("--workers", type=int, default=1)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mix = everything(a.data, a.recipe)
    concepts = {c: i for i, c in enumerate(sorted({r["concept"] for r in mix.rows}))}
    torch.manual_seed(a.seed)
    model = Evaluator(len(concepts)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=a.lr, weight_decay=0.02)
    steps = a.pictures // a.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, a.lr, total_steps=steps, pct_start=0.1)
    loader = iter(torch.utils.data.DataLoader(Samples(mix, concepts, a.batch, a.seed), batch_size=None, num_workers=a.workers))
    log = csv.writer(open(f"{a.out}.csv", "w", newline="", buffering=1))
    log.writerow(["step", "minutes", "loss", "match_in_batch"])
    start, recent = time.monotonic(), []
    for step in range(1, steps + 1):
        rgb, bags, labels = (t.to(device) for t in next(loader))
        loss = model.loss(to_input(rgb), bags, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        recent.append(loss.item())
        if step % 25 == 0 or step == steps:
            model.eval()
            with torch.no_grad():
                best = model.match(model.cnn(to_input(rgb)), bags).argmax(1)
            model.train()
            hit = (bags[best] == bags).all(1).float().mean().item()
            row = step, round((time.monotonic() - start) / 60, 2), round(float(np.mean(recent)), 4), round(hit, 3)
            log.writerow(row), print(*row, flush=True)
            torch.save(dict(model=model.state_dict(), concepts=len(concepts), step=step), a.out)
            recent = []


if __name__ == "__main__":
    main()
