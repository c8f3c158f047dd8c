#!/usr/bin/env python3
"""Measures zero-shot editing by the bundled models beside classical ways, on drawings that the models never saw.

    python docs/benchmarks/zero_shot.py --data DIR --evaluator judge.pt [--count 200] [--steps 1 2 4 8] [--out docs/benchmarks/zero-shot.json]

Needs training/requirements.txt, opencv-python-headless and scikit-image. DIR and judge.pt are those of training/README.md.
Every task spoils a drawing in a way that is known, and gives what is left to `headwater` with the drawing's caption:
- inpaint box, inpaint half: the middle, half as high and wide as the drawing; half of the pixels, drawn by lot
- colorize: the brightness alone
- upscale 2, upscale 4: the means of 2x2 and 4x4 pixels
- restore 0.1, 0.25, 0.5: noise of this standard deviation (black is -1 and white 1), cut off at black and white as a file of bytes has to
A row is one way to do a task:
- psnr, ssim: beside the true drawing, means over the pictures; an error of less than a level of 255 counts as one, since a picture may come out exact
- distance: Frechet distance between the judge's features of the edits and of the true drawings
- error: mean squared distance between the judge's features of an edit and of its own true drawing
Strengths of the classical ways that have one are chosen on held-out drawings that are not measured, once by PSNR and once by distance.
"""

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "training"))

import cv2
import numpy as np
import torch
from PIL import Image
from skimage.metrics import structural_similarity

import evaluator
from data import RECIPES, Mix, splits
from quality import features, frechet, grid, split_captions

TASKS = ["inpaint box", "inpaint half", "colorize", "upscale 2", "upscale 4", "restore 0.1", "restore 0.25", "restore 0.5"]


def drawings(data, recipe, count, fold_in=False):
    """-> (measured, others): (picture, caption) of the held-out drawings, of both kinds in turn with their shares."""
    mix = Mix(data, RECIPES[recipe])
    every = [(rgb, caption) for split in splits(fold_in)[1] for rgb, caption, _ in split_captions(mix, split)]
    chosen = {int(i) for i in np.linspace(0, len(every) - 1, min(count, len(every))).round()}
    return [every[i] for i in sorted(chosen)], [pair for i, pair in enumerate(every) if i not in chosen]


def spoil(task, rgb, number):
    """-> (what is left of the drawing, the mask or None). The same drawing is always spoilt alike."""
    rng = np.random.default_rng([number, zlib.crc32(task.encode())])
    kind, _, how = task.partition(" ")
    side = len(rgb)
    if kind == "inpaint":
        mask = np.zeros((side, side), bool)
        if how == "box":
            mask[side // 4 : -side // 4, side // 4 : -side // 4] = True
        else:
            mask.flat[rng.permutation(side * side)[: side * side // 2]] = True
        # Grey, so that nothing of what was there can be looked at.
        return np.where(mask[..., None], 128, rgb).astype(np.uint8), mask
    if kind == "colorize":
        return np.array(Image.fromarray(rgb).convert("L").convert("RGB")), None
    if kind == "upscale":
        n = int(how)
        means = rgb.reshape(side // n, n, side // n, n, 3).mean((1, 3), dtype=np.float64)
        return means.round().astype(np.uint8), None
    noise = rng.standard_normal(rgb.shape) * float(how) * 127.5
    return (rgb + noise).round().clip(0, 255).astype(np.uint8), None


def flags_of(task, flags):
    """The command, and what it has to know, unless further flags tell it otherwise."""
    kind, _, how = task.partition(" ")
    own = {"upscale": ["--scale", how], "restore": ["--sigma", how]}.get(kind, [])
    return [kind, *([] if own and own[0] in flags else own)]


def non_local_means(picture, strength):
    return cv2.fastNlMeansDenoisingColored(np.ascontiguousarray(picture), None, strength, strength, 7, 21)


def gaussian(picture, strength):
    return cv2.GaussianBlur(picture, (0, 0), strength)


def enlarged(picture, times, how):
    return np.array(Image.fromarray(picture).resize((len(picture) * times, len(picture) * times), how))


def classical(task):
    """-> [(name, way(spoilt, mask, strength), strengths to choose from)]"""
    kind, _, how = task.partition(" ")
    if kind == "inpaint":
        return [("Telea", lambda p, mask, _: cv2.inpaint(np.ascontiguousarray(p), mask.astype(np.uint8), 3, cv2.INPAINT_TELEA), [None])]
    if kind == "colorize":
        return [("grey", lambda p, *_: p, [None])]
    if kind == "upscale":
        ways = [("bicubic", Image.BICUBIC), ("Lanczos", Image.LANCZOS)]
        return [(name, lambda p, mask, _, way=way: enlarged(p, int(how), way), [None]) for name, way in ways]
    levels = float(how) * 127.5
    return [
        ("noisy", lambda p, *_: p, [None]),
        ("Gaussian filter", lambda p, mask, s: gaussian(p, s), [0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0]),
        ("non-local means", lambda p, mask, s: non_local_means(p, s), [levels * s for s in (0.3, 0.45, 0.6, 0.75, 0.9, 1.1, 1.3, 1.6, 2.0, 2.5)]),
    ]


class Measure:
    def __init__(self, judge, truths):
        self.judge, self.truths = judge, truths
        self.real = features(judge, truths).numpy()

    def psnr(self, pictures):
        square = [((p.astype(float) - t) ** 2).mean() for p, t in zip(pictures, self.truths)]
        return float(np.mean([10 * np.log10(255**2 / max(s, 1.0)) for s in square]))

    def __call__(self, pictures):
        made = features(self.judge, pictures).numpy()
        alike = [structural_similarity(p, t, channel_axis=2, data_range=255) for p, t in zip(pictures, self.truths)]
        return dict(psnr=round(self.psnr(pictures), 2), ssim=round(float(np.mean(alike)), 4), distance=round(frechet(self.real, made), 2),
                    error=round(float(((made - self.real) ** 2).sum(1).mean()), 2))


class Headwater:
    """Runs the program once a picture. Pictures that are in the folder already are not made again."""

    def __init__(self, program, processes, folder):
        self.program, self.processes, self.folder = program, processes, Path(folder)

    def edit(self, task, model, flags, prompted, spoilt, captions):
        """-> (the edits, how often the network ran for each)"""
        name = f"{task} {model} {' '.join(flags)}{'' if prompted else ' without prompt'}"
        folder = self.folder / f"{name.replace(' ', '_').replace('/', '_')[:150]}-{zlib.crc32(name.encode()):08x}"
        folder.mkdir(parents=True, exist_ok=True)

        def run(i, *more):
            picture, mask = spoilt[i]
            given = folder / f"{i}-given.png"
            Image.fromarray(picture).save(given)
            masked = []
            if mask is not None:
                masked = ["--mask", str(folder / f"{i}-mask.png")]
                Image.fromarray(mask.astype(np.uint8) * 255).save(masked[1])
            command = [self.program, *flags_of(task, flags), str(given), captions[i] if prompted else "", *masked, "--model", model, "--seed", str(i),
                       "--device", "cpu", "--threads", "1", "--output", str(folder / f"{i}-part.png"), "--force", *flags, *more]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)}: {done.stderr}")
            return done.stdout

        def one(i):
            made = folder / f"{i}.png"
            if not made.exists():
                run(i, "--quiet")
                os.replace(folder / f"{i}-part.png", made)
            return np.array(Image.open(made).convert("RGB"))

        plan = dict(line.split(None, 1) for line in run(0, "--dry-run").splitlines() if " " in line.strip())
        twice = 2 if float(plan.get("guidance", 1)) > 1 else 1
        with concurrent.futures.ThreadPoolExecutor(self.processes) as pool:
            return list(pool.map(one, range(len(spoilt)))), int(plan["evaluations"].split()[0]) * twice


def tuned(way, strengths, task, others, judge):
    """-> {strength: what it is the best for}, on other drawings."""
    if len(strengths) == 1:
        return {strengths[0]: ""}
    measure = Measure(judge, [rgb for rgb, _ in others])
    spoilt = [spoil(task, rgb, 10_000 + i) for i, (rgb, _) in enumerate(others)]
    rows = {s: measure([way(p, mask, s) for p, mask in spoilt]) for s in strengths}
    best = max(rows, key=lambda s: rows[s]["psnr"]), min(rows, key=lambda s: rows[s]["distance"])
    return {best[0]: "best"} if best[0] == best[1] else {best[0]: "best PSNR", best[1]: "best distance"}


def table(rows):
    lines = ["| task | by | steps | evaluations | PSNR | SSIM | distance | error |", "|---|---|---:|---:|---:|---:|---:|---:|"]
    for r in rows:
        by, steps = r["by"], r["steps"] or ("default" if r["evaluations"] else "")
        lines.append(f"| {r['task']} | {by} | {steps} | {r['evaluations'] or ''} | {r['psnr']:.2f} | {r['ssim']:.3f} | {r['distance']:.1f} | {r['error']:.1f} |")
    return "\n".join(lines)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True)
    p.add_argument("--evaluator", required=True)
    p.add_argument("--recipe", choices=RECIPES, default="wide", help="the recipe that the models were trained with")
    p.add_argument("--fold-in", action="store_true", help="the models have learnt from val_concept, so it is not held out")
    p.add_argument("--student", default="icons-64-consistency", help="a model's name or folder")
    p.add_argument("--teacher", default="icons-64")
    p.add_argument("--program", default=str(ROOT / "target/release/headwater"))
    p.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    p.add_argument("--count", type=int, default=200, help="drawings")
    p.add_argument("--others", action="store_true", help="take them from the drawings that are not measured otherwise: for choosing settings")
    p.add_argument("--steps", type=int, nargs="*", default=[1, 2, 3, 4, 5, 6, 7, 8], help="of the student")
    p.add_argument("--teacher-steps", type=int, nargs="*", default=[0, 20], help="of the teacher; 0: as many as it takes by default")
    p.add_argument("--flags", nargs=3, action="append", default=[], metavar=("BY", "TASK", "FLAGS"),
                   help="further flags: BY is student, teacher, or either with its steps ('student 4', 'teacher default'), TASK a task or its first word; 'no-prompt' leaves the caption out")
    p.add_argument("--no-classical", action="store_true")
    p.add_argument("--processes", type=int, default=os.cpu_count(), help="programs at a time, of one thread each")
    p.add_argument("--work", help="folder to keep the pictures in; a run that was stopped goes on with them")
    p.add_argument("--sheets", help="folder for sheets of pictures: the spoilt, the true one, and every row's")
    p.add_argument("--out", help="a JSON file; a table goes to standard output")
    a = p.parse_args()
    torch.set_num_threads(1)
    judge = evaluator.load(a.evaluator)
    measured, others = drawings(a.data, a.recipe, 200 if a.others else a.count, a.fold_in)
    if a.others:
        measured, others = [others[int(i)] for i in np.linspace(0, len(others) - 1, min(a.count, len(others))).round()], others
    truths, captions = [rgb for rgb, _ in measured], [caption for _, caption in measured]
    measure, rows = Measure(judge, truths), []
    models = {"student": a.student, "teacher": a.teacher}
    scratch = tempfile.TemporaryDirectory()
    headwater = Headwater(a.program, a.processes, a.work or scratch.name)

    def further(by, task):
        words = [w for name, which, flags in a.flags if name in (by, by.split()[0]) and which in (task, task.split()[0]) for w in flags.split()]
        return [w for w in words if w != "no-prompt"], "no-prompt" not in words

    for task in a.tasks:
        spoilt = [spoil(task, rgb, i) for i, rgb in enumerate(truths)]
        sheet = [truths, [enlarged(picture, len(truth) // len(picture), Image.NEAREST) for (picture, _), truth in zip(spoilt, truths)]]

        def row(by, steps, evaluations, pictures, **more):
            rows.append(dict(task=task, by=by, steps=steps, evaluations=evaluations, pictures=len(pictures), **measure(pictures), **more))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
            sheet.append(pictures)
            if a.out:
                Path(a.out).write_text(json.dumps(dict(rows=rows), indent=1) + "\n")
            if a.sheets:
                shown = range(0, len(truths), max(1, len(truths) // 12))
                Path(a.sheets).mkdir(parents=True, exist_ok=True)
                grid(np.stack([pictures[i] for pictures in sheet for i in shown]), len(shown), 1).save(Path(a.sheets) / f"{task.replace(' ', '-')}.png")

        for name, way, strengths in [] if a.no_classical else classical(task):
            for strength, best in tuned(way, strengths, task, others, judge).items():
                label = f"{name}, {best}" if best.startswith("best ") else name
                row(label, None, None, [way(picture, mask, strength) for picture, mask in spoilt], **({"strength": round(strength, 2)} if strength else {}))
        for by, steps in [("student", n) for n in a.steps] + [("teacher", n) for n in a.teacher_steps]:
            flags, prompted = further(f"{by} {steps}" if steps else f"{by} default", task)
            own = ["--steps", str(steps)] if steps and "--sigmas" not in flags else []
            pictures, evaluations = headwater.edit(task, models[by], [*own, *flags], prompted, spoilt, captions)
            row(by, steps or None, evaluations, pictures, flags=" ".join(flags), prompt=prompted)
    print(table(rows))


if __name__ == "__main__":
    main()
