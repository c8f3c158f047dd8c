"""Measures models with the judge of evaluator.py.

    python quality.py --data DIR --evaluator evaluator.pt --teacher FOLDER --student FOLDER --count 200 --out quality.json

For captions as in training, captions whose colour the thing never had in training, and the held-out drawings' captions:
- distance: Frechet distance (Heusel et al. 2017) between features of generated pictures and of real ones with such captions
- precision, recall: Kynkaanniemi et al. 2019, three neighbours
- retrieval: how often the picture fits its own caption best, among it and 99 others; favourites, others, style: the same for what is
  one of the recipe's favourites, for what is none, and for each set of drawings
- memorised: how often the nearest training drawing is nearer than it is to half of the held-out real drawings
- seams: how much the patches show (seams.py), of what is no pixel art
The first row, real pictures, is the ceiling. Pictures are as large as the drawings in DIR, for which the judge was trained; those of a model
that draws smaller ones are enlarged."""

import argparse
import itertools
import json
import os
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import numpy as np
import torch

import evaluator
from colour_words import colours
from data import CHROMATIC, COLOURABLE, RECIPES, STYLE, Mix, article, held_out, over, rotate_hue, splits, to_input
from model import keep_memory
from sample import enlarge, generate, grid, load
from seams import seams


def frechet(a, b):
    """|mu_a - mu_b|^2 + tr(A + B - 2 (A B)^(1/2)); the trace of the root is the sum of the roots of A B's eigenvalues."""
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.sqrt(np.clip(np.linalg.eigvals(ca @ cb).real, 0, None)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca) + np.trace(cb) - 2 * root)


def precision_recall(real, fake, k=3):
    """Share of fake pictures inside the real ones' k-neighbour balls, and the other way round."""
    def inside(points, x):
        d = np.linalg.norm(points[:, None] - points[None], axis=2)
        radius = np.sort(d, 1)[:, k]
        return float((np.linalg.norm(x[:, None] - points[None], axis=2) <= radius).any(1).mean())
    return inside(real, fake), inside(fake, real)


class Task:
    """Captions and the real pictures that go with them; others to confuse them with. A key says which captions mean the same."""

    def __init__(self, name, items, others=()):
        self.name = name
        self.pictures, self.captions, self.keys = (list(v) for v in zip(*items))
        self.others = [(key, caption) for _, caption, key in itertools.chain(items, others)]

    def distractors(self, i, rng, n=99):
        others = {k: c for k, c in self.others if k != self.keys[i]}
        keys = list(others)
        return [others[keys[j]] for j in rng.permutation(len(keys))[:n]]


def training_captions(mix, count, seed):
    mix.seed(seed)
    items = []
    for _ in range(count):
        rgb, text = mix.sample()
        drawn = np.concatenate([rgb, 255 * (rgb.min(2, keepdims=True) < 245).astype(np.uint8)], 2)
        items.append((rgb, text, (mix.drawn["concept"], mix.drawn["set"], colours(drawn)[1])))
    return items


def said_of_another(mix, r, colour):
    """Whether training may say the same of another drawing: "star" is also what a glowing star is called."""
    for o in (mix.rows[i] for i in mix.idx):
        if o["set"] == r["set"] and o["concept"] != r["concept"] and r["name"] in (o["name"], *o["aliases"]):
            turned = o["group"] in COLOURABLE and o["main_colour"] in CHROMATIC and not held_out(o, colour)
            if turned or o["main_colour"] == colour:
                return True
    return False


def turned(rgba, degrees):
    return np.concatenate([rotate_hue(rgba[..., :3].astype(np.float32), degrees).astype(np.uint8), rgba[..., 3:]], 2)


def colour_combinations(mix, only, unseen=True):
    """Each favourite in each colour that held_out() kept from training (or did not), its hue turned until the word fits."""
    for r in mix.rows:
        if r["split"] != "train" or not mix.wanted(r) or r["group"] not in COLOURABLE or r["main_colour"] not in CHROMATIC or not only(r):
            continue
        for colour in CHROMATIC:
            if colour == r["main_colour"] or held_out(r, colour) != unseen or any(c in r["name"].split() for c in CHROMATIC):
                continue
            if unseen and said_of_another(mix, r, colour):
                continue
            whole, k = mix.px[r["index"]], mix.size // 64
            for degrees in range(40, 321, 10):
                if colours(turned(whole[::k, ::k], degrees))[1] == colour:
                    style = "" if r["set"] == mix.recipe.default_set or len(mix.recipe.sets) == 1 else f", {STYLE[r['set']][0]}"
                    yield over(turned(whole, degrees), np.float32(255)), f"{article(colour)} {r['name']}{style}", (r["concept"], r["set"], colour)
                    break


def split_captions(mix, split):
    bare = len(mix.recipe.sets) == 1
    for r in mix.rows:
        if r["split"] == split and mix.wanted(r) and mix.weight(r) > 0:
            style = "" if bare or r["set"] == mix.recipe.default_set else f", {STYLE[r['set']][0]}"
            yield over(mix.px[r["index"]], np.float32(255)), article(r["name"]) + style, (r["concept"], r["set"], None)


def thin(items, count):
    items = list(items)
    return items[:: max(1, len(items) // count)][:count] if len(items) > count else items


@torch.no_grad()
def features(judge, pictures):
    return torch.cat([judge.cnn(to_input(np.stack(pictures[i : i + 100]))) for i in range(0, len(pictures), 100)])


@torch.no_grad()
def retrieval(judge, task, feats, seed=0):
    """-> for each caption, whether it was found"""
    rng, hits = np.random.default_rng(seed), []
    for i, caption in enumerate(task.captions):
        bags = torch.tensor([evaluator.bag(c) for c in [caption, *task.distractors(i, rng)]])
        hits.append(int(judge.match(feats[i : i + 1], bags).argmax()) == 0)
    return np.array(hits)


def small(pictures):
    """At 32x32, so that a shift of one pixel of 64 counts little."""
    k = len(pictures[0]) // 32
    return np.stack([p.reshape(32, k, 32, k, 3).mean((1, 3), dtype=np.float32).ravel() / 255 for p in pictures])


def nearest(pictures, b):
    """Root mean square difference (0..1) to the nearest of small drawings."""
    a = small(pictures)
    d = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.sqrt(np.clip(d.min(1), 0, None) / a.shape[1])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True)
    p.add_argument("--evaluator", required=True)
    p.add_argument("--recipe", choices=RECIPES, default="everyday", help="the recipe that the models were trained with")
    p.add_argument("--fold-in", action="store_true", help="the models have learnt from val_concept, so it is not held out")
    p.add_argument("--teacher")
    p.add_argument("--student")
    p.add_argument("--teacher-steps", type=int, nargs="*", default=[5, 10, 20], help="guided: two evaluations each")
    p.add_argument("--student-steps", type=int, nargs="*", default=[1, 2, 4])
    p.add_argument("--guidance", type=float, help="default: the model's own")
    p.add_argument("--count", type=int, default=200, help="generated pictures per row, fewer where there are fewer captions")
    p.add_argument("--draws", type=int, default=8, help="of so many captions as in training, and of noise; a row is their mean, since one may be easy")
    p.add_argument("--reference", type=int, default=2000, help="real pictures the training captions' rows are compared with")
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--out", help="a JSON file; a table goes to standard output; grids go next to it")
    a = p.parse_args()
    keep_memory()
    if a.threads:
        torch.set_num_threads(a.threads)
    judge = evaluator.load(a.evaluator)
    learnt, unseen_splits = splits(a.fold_in)
    mix = Mix(a.data, RECIPES[a.recipe], learnt)
    if judge.size != mix.size:
        p.error(f"the judge is of pictures of {judge.size}, the drawings are of {mix.size}")
    wanted = mix.is_favourite if mix.recipe.favourites else lambda r: True
    favourites = {r["concept"] for r in mix.rows if mix.is_favourite(r)}
    others = training_captions(mix, 1000, 404)
    as_trained = lambda seed: [Task("training captions", training_captions(mix, a.count, seed + n), others) for n in range(a.draws)]
    # 101 to 104 are draws by which earlier models were chosen
    groups = [as_trained(111), [Task("held-out colours", thin(colour_combinations(mix, wanted), a.count), colour_combinations(mix, wanted, False))]]
    groups += [[Task(f"held-out drawings ({s})", v, others)] for s in unseen_splits if (v := thin(split_captions(mix, s), a.count))]
    reference = {"training captions": features(judge, [r for r, *_ in training_captions(mix, a.reference, 202)]).numpy()}
    train = small([over(mix.px[i], np.float32(255)) for i in mix.idx])
    unseen = [rgb for s in unseen_splits for rgb, *_ in split_captions(mix, s)]
    near = float(np.median(nearest(unseen, train)))
    rows = []

    def numbers(task, pictures, patch):
        feats, real = features(judge, pictures), features(judge, task.pictures)
        precision, recall = precision_recall(real.numpy(), feats.numpy())
        found, favourite = retrieval(judge, task, feats), np.array([concept in favourites for concept, *_ in task.keys])
        style = np.array([drawn for _, drawn, _ in task.keys])
        share = lambda which: float(found[which].mean()) if which.any() else None
        away = nearest(pictures, train)
        return dict(
            distance=frechet(reference.get(task.name, real.numpy()), feats.numpy()) if len(pictures) > 100 else None, precision=precision, recall=recall,
            seams=seams([p for p, drawn in zip(pictures, style) if drawn != "dcss"], patch),
            retrieval=float(found.mean()), favourites=share(favourite), others=share(~favourite),
            **{f"style {name}": share(style == name) for name in mix.recipe.sets}, nearest=float(np.median(away)), memorised=float((away < near).mean()))

    def measure(model, steps, evaluations, group, pictures, patch=mix.size // 8):
        each = [numbers(*pair, patch) for pair in zip(group, pictures)]
        mean = {k: None if any(n[k] is None for n in each) else round(sum(n[k] for n in each) / len(each), 4) for k in each[0]}
        spread = [round(n["retrieval"], 3) for n in each]
        among = 1 + len(group[0].distractors(0, np.random.default_rng(0)))
        rows.append(dict(model=model, steps=steps, evaluations=evaluations, captions=group[0].name, pictures=sum(map(len, pictures)), **mean, among=among,
                         **(dict(retrieval_of_draws=spread) if len(spread) > 1 else {})))
        print("| " + " | ".join(str(v) for k, v in rows[-1].items() if not k.startswith("style ")) + " |", flush=True)
        if a.out:
            Path(a.out).write_text(json.dumps(dict(nearest_of_unseen_drawings=round(near, 4), rows=rows), indent=1) + "\n")

    print(f"held-out real drawings to the nearest training drawing: {near:.4f} (median of {len(unseen)})")
    for group in [as_trained(303), *groups[1:]]:
        measure("real pictures", "", "", group, [task.pictures for task in group])
    for model, folder, all_steps in (("teacher", a.teacher, a.teacher_steps), ("student", a.student, a.student_steps)):
        if not folder:
            continue
        *parts, defaults = load(folder)
        c = parts[0].config
        patch = mix.size * c.patch_size // c.sample_size
        guidance = a.guidance or defaults["guidance_scale"] if model == "teacher" else defaults["guidance_scale"]
        for steps in all_steps:
            for group in groups:
                pictures = [[p for i in range(0, len(task.captions), 20)
                             for p in enlarge(generate(*parts, task.captions[i : i + 20], steps, guidance, seed=1000 * (1 + draw) + i), mix.size)]
                            for draw, task in enumerate(group)]
                measure(model, steps, steps * (2 if guidance != 1 else 1), group, pictures, patch)
                if a.out:
                    shown = pictures[0][:48]
                    grid(np.stack([*shown, *[np.full_like(shown[0], 255)] * (-len(shown) % 12)]), 12, 1).save(
                        Path(a.out).with_name(f"{model}-{steps}-{group[0].name.split(' (')[-1].strip(')').replace(' ', '-')}.png"))


if __name__ == "__main__":
    main()
