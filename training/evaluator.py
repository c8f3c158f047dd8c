"""Trains the network that judges pictures: which caption is this, and how far is one set of pictures from another?

    python evaluator.py --data DIR --out evaluator.pt   # the same command resumes a stopped run

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
from data import RECIPES, RGB, STYLE, Mix, to_input
from model import keep_memory

BUCKETS, WORDS = 8192, 16  # hashed words (Weinberger et al. 2009), so that there is no vocabulary to keep
COLOURS, SETS = ["", *RGB], [*STYLE]


def bag(text):
    words = [1 + zlib.crc32(w.encode()) % (BUCKETS - 1) for w in re.findall(r"[a-z0-9']+", text.lower()) if w not in ("a", "an")]
    return (words + [0] * WORDS)[:WORDS]


class Evaluator(nn.Module):
    """pictures: (n, 3, size, size) in -1..1, of 64 or 128. What is twice as large is halved once more at first, by a layer of its own: the rest
    sees as much of a picture, and costs the same."""

    def __init__(self, concepts, size=64, dim=64):
        super().__init__()
        self.size = size
        conv = lambda i, o, s: nn.Sequential(nn.Conv2d(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(True))
        first = [conv(3, 16, 2), conv(16, 24, 2)] if size == 128 else [conv(3, 24, 2)]
        self.cnn = nn.Sequential(
            *first, conv(24, 64, 2), conv(64, 64, 1), conv(64, 128, 2), conv(128, 128, 1), conv(128, 256, 2),
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
    def __init__(self, mix, concepts, batch, seed, first):
        self.mix, self.concepts, self.batch, self.seed, self.first = mix, concepts, batch, seed, first

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        worker, step = (info.id, info.num_workers) if info else (0, 1)
        number = self.first + worker
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


def everything(data, recipe):
    """Samples of all splits and colours, the rare things more often than a generator's recipe has them."""
    r = RECIPES[recipe]
    r = dataclasses.replace(r, favourites=tuple((name, 6.0) for name, _ in r.favourites), groups=(("Flags", 0.2), ("People", 0.3)),
                            colour=0.5, recolour=0.35)
    return Mix(data, r, ("train", "val_pair", "val_concept"), hold_out=False)


def load(path):
    c = torch.load(path, map_location="cpu", weights_only=True)
    model = Evaluator(c["concepts"], c.get("size", 64))
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
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    keep_memory()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mix = everything(a.data, a.recipe)
    concepts = {c: i for i, c in enumerate(sorted({r["concept"] for r in mix.rows}))}
    torch.manual_seed(a.seed)
    model = Evaluator(len(concepts), mix.size).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=a.lr, weight_decay=0.02)
    steps = a.pictures // a.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, a.lr, total_steps=steps, pct_start=0.1)
    done, earlier, parts = 0, 0.0, dict(model=model, optimizer=optimizer, schedule=schedule)
    if os.path.exists(a.out):
        c = torch.load(a.out, map_location=device, weights_only=True)
        done, earlier = c["step"], c["minutes"]
        for name, part in parts.items():
            part.load_state_dict(c[name])
    loader = iter(torch.utils.data.DataLoader(Samples(mix, concepts, a.batch, a.seed, done), batch_size=None, num_workers=a.workers))
    log = csv.writer(open(f"{a.out}.csv", "a", newline="", buffering=1))
    if not done:
        log.writerow(["step", "minutes", "loss", "match_in_batch"])
    start, recent = time.monotonic(), []
    for step in range(done + 1, steps + 1):
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
            row = step, round(earlier + (time.monotonic() - start) / 60, 2), round(float(np.mean(recent)), 4), round(hit, 3)
            log.writerow(row), print(*row, flush=True)
            state = {name: part.state_dict() for name, part in parts.items()}
            torch.save(dict(**state, concepts=len(concepts), size=mix.size, step=step, minutes=row[1]), f"{a.out}.part")
            os.replace(f"{a.out}.part", a.out)
            recent = []


if __name__ == "__main__":
    main()
