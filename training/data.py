"""Training samples: RGB pictures of 64x64 or 128x128, as large as the drawings are, with captions, from a folder of RGBA atlases and
captions.jsonl.

The drawings have transparency, so size, place, hue, background and number change here, and every such change is named in the
caption.
"""

import json
import re
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from colour_words import colours

SIDE = 32  # drawings along an atlas' side
STYLE = {
    "noto": ["noto emoji style", "emoji style"],
    "noto2018": ["classic emoji style"],
    "blob": ["blob emoji style", "blob style"],
    "twemoji": ["flat twemoji style", "twemoji style"],
    "fluent_3d": ["3d style", "3d render", "3d emoji style"],
    "fluent_flat": ["flat vector style", "flat style"],
    "fluent_mono": ["black and white icon", "black and white line icon"],
    "emojione": ["flat cartoon style"],
    "fxemoji": ["simple flat style"],
    "streamline": ["outlined cartoon style", "cartoon style"],
    "kameleon": ["round badge icon"],
    "kenney": ["cartoon game sprite", "game sprite"],
    "dcss": ["pixel art", "16-bit pixel art"],
    "gameicons": ["silhouette icon", "silhouette"],
}
MUST_STYLE = {"fluent_mono", "dcss", "gameicons", "kameleon"}  # so that a bare prompt means a colour emoji
COLOURABLE = {"Animals and nature", "Food and drink", "Travel and places", "Objects", "Activities and events", "Game"}
RGB = {
    "red": (220, 50, 47), "orange": (245, 140, 30), "yellow": (250, 205, 50), "green": (70, 170, 70), "cyan": (60, 200, 215),
    "blue": (50, 110, 220), "purple": (140, 80, 200), "pink": (240, 120, 180), "brown": (130, 85, 50),
    "gray": (140, 140, 140), "black": (20, 20, 20), "white": (255, 255, 255),
}
CHROMATIC = ["red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink"]
COLOUR_WORD = re.compile(r"\b(" + "|".join([*RGB, "golden", "silver", "bronze", "grey", "beige"]) + r")\b")
# what people ask for first; a short run spends most of its pictures on these
COMMON = """
    airplane apple balloon banana bear butterfly car cat cherries cloud crown dog fish flower fox frog ghost heart house lemon
    moon mushroom panda pear pig pizza rabbit rainbow robot rocket rose skull snowman star strawberry sun sunflower tomato tree
    tulip watermelon whale
""".split()
# the names of those that go by another
NAMED = ["automobile", "full moon", "crescent moon", "deciduous tree", "evergreen tree"]
# a second helping
MORE = """
    automobile bell bicycle bird bus cactus carrot castle cookie doughnut dragon duck elephant evergreen+tree fire grapes guitar
    hamburger ice+cream key light+bulb lion octopus owl peach penguin pineapple red+apple sailboat smiling+face+with+sunglasses
    snowflake soccer+ball turtle umbrella unicorn wrapped+gift
""".replace("+", "_").split()
# a third, for models on latents
STILL_MORE = """
    alarm+clock alien anchor axe bat bed birthday+cake bomb bow+and+arrow bread camera candle chair cheese+wedge chicken cow crab crossed+swords
    dagger delivery+truck dolphin door drum egg envelope glasses hammer helicopter honeybee horse hot+beverage hot+dog jack-o-lantern laptop
    locked locomotive lollipop mantelpiece+clock mobile+phone monkey motorcycle mountain mouse open+book palm+tree pencil running+shoe sandwich
    scissors shark shield ship shortcake snail snake spider t-shirt tangerine teapot telescope tent tiger top+hat trophy trumpet volcano wolf
""".replace("+", "_").split()
COUNT = {2: "two", 3: "three", 4: "four"}


@dataclass
class Recipe:
    """What is drawn how often. The chances are per sample."""

    sets: tuple = tuple(STYLE)
    names: str = ""  # a regular expression, if only the things so named are drawn
    groups: tuple = ()  # (group, factor on its drawings' weights)
    shares: tuple = ()  # (set, factor on its drawings' weights)
    named_colour: float = 1.0  # factor on drawings whose name holds a colour word ("purple heart")
    favourites: tuple = ()  # (name, weight) of drawings so named, colour words and " face" apart
    skin_tones: bool = True
    style: float = 0.6
    default_set: str = ""  # the set a bare prompt means; the style of every other is always named
    colour: float = 0.3  # name the colour a drawing has
    recolour: float = 0.2  # turn its hue and name the new one
    background: float = 0.2
    pair: float = 0.07
    copies: float = 0.05
    small: float = 0.03
    mirror: float = 0.5
    jitter: int = 2  # largest shift in pixels of 64; sizes go down to 64 - 4 times as many


RECIPES = {
    "full": Recipe(),
    # For a budget of some hundred thousand pictures: one thing, centred on white, as a flat emoji of
    # one set, and mostly things that people ask for first.
    "emoji": Recipe(
        sets=("twemoji",), named_colour=2.0, skin_tones=False,
        favourites=(*((name, 30.0) for name in COMMON), ("heart", 80.0)),
        groups=(("Flags", 0.0), ("People", 0.1), ("Symbols", 0.2), ("Objects", 0.5), ("Smileys and emotions", 0.6)),
        style=0.1, colour=0.6, recolour=0.1, background=0.0, pair=0.0, copies=0.0, small=0.0, mirror=0.0, jitter=1,
    ),
    # More of the same set, evenly: what a second small budget is for.
    "common": Recipe(
        sets=("twemoji",), named_colour=2.0, skin_tones=False,
        favourites=(*((name, 30.0) for name in (*COMMON, *NAMED)), ("house", 60.0), ("heart", 12.0)),
        groups=(("Flags", 0.0), ("People", 0.02), ("Symbols", 0.05), ("Objects", 0.15), ("Smileys and emotions", 0.3),
                ("Animals and nature", 0.5), ("Food and drink", 0.5), ("Travel and places", 0.3), ("Activities and events", 0.3)),
        style=0.05, colour=0.35, recolour=0.2, background=0.0, pair=0.0, copies=0.0, small=0.0, mirror=0.0, jitter=1,
    ),
    # Three shapes in seven colours, less a blue circle, which is held out: small enough to learn from nothing in minutes.
    "shapes": Recipe(
        sets=("twemoji",), names="(red|orange|yellow|green|blue|purple|brown) (heart|circle|square)", style=0.0, default_set="twemoji",
        colour=0.0, recolour=0.0, background=0.0, pair=0.0, copies=0.0, small=0.0, mirror=0.0, jitter=1,
    ),
}
# The same things in a second style, and more of them in colours they do not have.
RECIPES["styles"] = replace(
    RECIPES["common"], sets=("twemoji", "fluent_3d"), default_set="twemoji", style=0.1, recolour=0.3,
    favourites=(*((name, 30.0) for name in (*COMMON, *NAMED)), ("heart", 12.0)),
)
# The same with half of the pictures, not a sixth, for what is no favourite: a name typed at random is mostly none.
RECIPES["even"] = replace(RECIPES["styles"], favourites=tuple((name, weight / 5) for name, weight in RECIPES["styles"].favourites))
# With the second helping: what the bundled models draw.
RECIPES["everyday"] = replace(
    RECIPES["styles"], favourites=(*((name.replace("_", " "), 30.0) for name in (*COMMON, *NAMED, *MORE)), ("heart", 12.0)),
)
# A third of the pictures for what is no favourite, and a fifth in five more styles: for a budget of a million.
RECIPES["wide"] = replace(
    RECIPES["everyday"], sets=("twemoji", "fluent_3d", "noto", "fluent_flat", "fluent_mono", "dcss", "gameicons"),
    shares=(("noto", 0.15), ("fluent_flat", 0.15), ("fluent_mono", 0.12), ("dcss", 0.2), ("gameicons", 0.12)),
    favourites=(*((name, 9.0) for name, _ in RECIPES["everyday"].favourites if name != "heart"), ("heart", 6.0)),
    groups=(("Flags", 0.0), ("People", 0.02), ("Symbols", 0.05), ("Objects", 0.3), ("Smileys and emotions", 0.3),
            ("Animals and nature", 0.7), ("Food and drink", 0.7), ("Travel and places", 0.5), ("Activities and events", 0.5),
            ("Pixel art", 0.03), ("Silhouette", 0.02)),
)
# The same drawings, and a third of the pictures for the favourites, not two: they are known by now, and the rest is not.
RECIPES["wide_even"] = replace(
    RECIPES["wide"],
    shares=(("noto", 0.15), ("fluent_flat", 0.15), ("fluent_mono", 0.15), ("dcss", 0.4), ("gameicons", 0.4)),
    favourites=(*((name, 2.5) for name, _ in RECIPES["everyday"].favourites if name != "heart"), ("heart", 2.0)),
    groups=(("Flags", 0.0), ("People", 0.02), ("Symbols", 0.05), ("Objects", 0.5), ("Smileys and emotions", 0.4),
            ("Animals and nature", 0.8), ("Food and drink", 0.8), ("Travel and places", 0.6), ("Activities and events", 0.6),
            ("Pixel art", 0.01), ("Silhouette", 0.01)),
)

# The same, and twice or three times as many in the five rarer styles, of which pixel art, silhouettes and line icons were not yet drawn well.
RECIPES["wide_styles"] = replace(
    RECIPES["wide_even"],
    shares=(("noto", 0.25), ("fluent_flat", 0.25), ("fluent_mono", 0.4), ("dcss", 1.2), ("gameicons", 0.8)),
)
# With the third helping.
RECIPES["wide_things"] = replace(
    RECIPES["wide_styles"], favourites=(*RECIPES["wide_styles"].favourites, *((name.replace("_", " "), 2.5) for name in STILL_MORE)),
)


def held_out(row, colour):
    """One (thing, colour it does not have) in eight is never drawn, so that new combinations can be measured; nor is a purple fox."""
    return (row["concept"], colour) == ("fox", "purple") or zlib.crc32(f"{row['concept']}/{colour}".encode()) % 8 == 0


def splits(fold_in=False):
    """-> (names of the splits that are learnt from, of those that are held out). Things of val_concept are on no other drawing, so a model that is
    told to draw them has to learn from it."""
    return (("train", "val_concept"), ("val_pair",)) if fold_in else (("train",), ("val_pair", "val_concept"))


def article(x):
    head = re.split(r" (?:with|of|in|on|and) |, ", x)[0]
    if re.search(r"[^su]s$|\b(hair|water|money|bread|rice|food|milk|meat|snow|fog|corn|cheese|sushi|chocolate|ice|curling)$", head):
        return x
    return ("an " if x[0] in "aeiou" else "a ") + x


def plural(x):
    if re.search(r"s$|,| (with|of|in|on|and) ", x):
        return None
    if re.search(r"(ch|sh|x)$", x):
        return x + "es"
    return re.sub(r"(?<![aeiou])y$", "ie", x) + "s"


def rotate_hue(rgb, degrees):
    """Rotation about the grey axis in YIQ, on a float (..., 3) array in 0..255."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    m = np.array([[.299 + .701 * c + .168 * s, .587 - .587 * c + .330 * s, .114 - .114 * c - .497 * s],
                  [.299 - .299 * c - .328 * s, .587 + .413 * c + .035 * s, .114 - .114 * c + .292 * s],
                  [.299 - .300 * c + 1.25 * s, .587 - .588 * c - 1.05 * s, .114 + .886 * c - .203 * s]])
    return np.clip(rgb @ m.T, 0, 255)


def over(rgba, background):
    """RGBA uint8 on a colour (0..255) -> RGB uint8."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return (rgba[..., :3] * alpha + background * (1 - alpha) + 0.5).astype(np.uint8)


def place(items, n, pixel=False):
    """items: (rgba, size, centre x, centre y), drawn on one transparent canvas of n x n."""
    canvas = Image.new("RGBA", (n, n))
    for rgba, size, cx, cy in items:
        image = Image.fromarray(np.ascontiguousarray(rgba))
        if size != n:
            image = image.resize((size, size), Image.NEAREST if pixel else Image.HAMMING)
        canvas.alpha_composite(image, (max(0, min(n - size, cx - size // 2)), max(0, min(n - size, cy - size // 2))))
    return np.array(canvas)


class Mix:
    """Draws (picture, caption) samples by weight; the same seed gives the same samples."""

    def __init__(self, root, recipe=RECIPES["full"], splits=("train",), seed=0, hold_out=True):
        self.recipe, self.hold_out = recipe, hold_out
        self.rows = [json.loads(line) for line in open(Path(root) / "captions.jsonl")]
        atlases = sorted(Path(root).glob("atlas_*.webp"))
        self.size = n = Image.open(atlases[0]).width // SIDE
        self.px = np.zeros((len(self.rows), n, n, 4), np.uint8)
        used, first = [self.wanted(r) for r in self.rows], 0
        for f in atlases:
            last = min(len(self.rows), first + SIDE**2)
            if any(used[first:last]):  # decoding is most of the start
                atlas = np.array(Image.open(f).convert("RGBA")).reshape(SIDE, n, SIDE, n, 4)
                self.px[first:last] = atlas.swapaxes(1, 2).reshape(-1, n, n, 4)[: last - first]
            first = last
        weight = {r["index"]: self.weight(r) for r in self.rows if r["split"] in splits and self.wanted(r)}
        self.idx = np.array([i for i, w in weight.items() if w > 0])
        w = np.cumsum([weight[i] for i in self.idx])
        self.cum = w / w[-1]
        self.by_set = {}
        for i in self.idx:
            if self.rows[i]["group"] in COLOURABLE | {"Smileys and emotions"}:
                self.by_set.setdefault(self.rows[i]["set"], []).append(int(i))
        self.pairable = {i for v in self.by_set.values() for i in v}
        self.seed(seed)

    def seed(self, *seed):
        self.rng = np.random.default_rng(seed)

    def wanted(self, r):
        named = not self.recipe.names or re.fullmatch(self.recipe.names, r["name"])
        return r["set"] in self.recipe.sets and named and (self.recipe.skin_tones or "skin tone" not in r["name"])

    def is_favourite(self, r):
        return COLOUR_WORD.sub("", r["name"]).strip().removesuffix(" face") in dict(self.recipe.favourites)

    def weight(self, r):
        c = self.recipe
        share = dict(c.shares).get(r["set"], 1.0)
        if self.is_favourite(r):
            return share * dict(c.favourites)[COLOUR_WORD.sub("", r["name"]).strip().removesuffix(" face")]
        named = c.named_colour if COLOUR_WORD.search(r["name"]) else 1.0
        return share * r["weight"] * dict(c.groups).get(r["group"], 1.0) * named

    def pick(self, seq):
        return seq[int(self.rng.integers(len(seq)))]

    def name(self, r):
        return self.pick(r["aliases"]) if r["aliases"] and self.rng.random() < 0.4 else r["name"]

    def caption(self, r, x, art=True, extra=""):
        g = self.rng
        if art and g.random() < 0.55:
            x = article(x)
        if r["keywords"] and not extra and g.random() < 0.1:
            x += ", " + ", ".join(g.permutation(r["keywords"])[: g.integers(1, 4)])
        x += extra
        default = self.recipe.default_set
        named = r["set"] != default if default else r["set"] in MUST_STYLE
        if g.random() >= ((1.0 if default else 0.95) if named else self.recipe.style):
            return x
        s = self.pick(STYLE[r["set"]])
        return self.pick([f"{x}, {s}", f"{x}, {s}", f"{x} in {s}" if s.endswith("style") else f"{s} of {x}"])

    def background(self, avoid):
        g = self.rng
        if g.random() >= self.recipe.background:
            return np.float32(255), " on a white background" if g.random() < self.recipe.background / 4 else "", "white"
        k = self.pick([k for k in [*CHROMATIC, "black", "gray", "brown"] if k not in avoid])
        return np.clip(np.array(RGB[k], np.float32) + g.normal(0, 8, 3), 0, 255), f" on {article(k)} background", k

    def recolour(self, r, a, x, background):
        """Maybe another hue, or the hue it has, named in the caption -> (rgba, caption)."""
        g, old = self.rng, COLOUR_WORD.search(x)
        if r["set"] == "gameicons" and (g.random() < 0.5 or background == "black"):
            k = self.pick([k for k in [*CHROMATIC, "white", "black"] if k != background and not (self.hold_out and held_out(r, k))])
            a = a.copy()
            a[..., :3] = RGB[k]
            return a, f"{k} {x}"
        # a badge's hue is not the thing's
        if r["group"] not in COLOURABLE or r["set"] == "kameleon" or r["main_colour"] not in CHROMATIC:
            return a, x
        if g.random() < self.recipe.recolour:
            b = a.copy()
            b[..., :3] = rotate_hue(a[..., :3].astype(np.float32), g.uniform(40, 320))
            new = colours(b)[1]
            if new in CHROMATIC and new != r["main_colour"] and (not old or old.group() == r["main_colour"]) and not (self.hold_out and held_out(r, new)):
                return b, f"{new} {COLOUR_WORD.sub('', x).strip() if old else x}"
        elif g.random() < self.recipe.colour and not old:
            return a, f"{r['main_colour']} {x}"
        return a, x

    def sample(self):
        """-> (size x size x 3 uint8, caption)"""
        g, c, n = self.rng, self.recipe, self.size
        k = n // 64  # places are those of 64x64, times this
        i = int(self.idx[np.searchsorted(self.cum, g.random())])
        self.drawn = r = self.rows[i]
        a, pixel = self.px[i], r["set"] == "dcss"
        if r["flip"] and g.random() < c.mirror:
            a = a[:, ::-1]
        bg, bgtext, bgname = self.background(r["colours"])
        a, x = self.recolour(r, a, self.name(r), bgname)
        bare, u = dict(r, keywords=[]), g.random()
        if u < c.pair and i in self.pairable and not bgtext:
            j = int(self.pick(self.by_set[r["set"]]))
            y = self.name(self.rows[j])
            if j != i and len(x) + len(y) < 60:
                p, q = article(x), article(y)
                text = self.pick([f"{p} and {q}", f"{p} next to {q}", f"{p} on the left and {q} on the right"])
                return over(place([(a, 32 * k, 17 * k, 32 * k), (self.px[j], 32 * k, 47 * k, 32 * k)], n, pixel), bg), self.caption(bare, text, art=False)
        elif u < c.pair + c.copies and r["group"] in COLOURABLE and plural(x):
            count = int(g.integers(2, 5))
            at = {2: [(17, 32), (47, 32)], 3: [(17, 18), (47, 18), (32, 46)], 4: [(17, 17), (47, 17), (17, 47), (47, 47)]}[count]
            canvas = place([(a, (32 if pixel else 30) * k, cx * k, cy * k) for cx, cy in at], n, pixel)
            return over(canvas, bg), self.caption(bare, f"{COUNT[count]} {plural(x)}", art=False, extra=bgtext)
        elif u < c.pair + c.copies + c.small and r["group"] in COLOURABLE and not pixel:
            canvas = place([(a, 30 * k, *(int(v) for v in g.integers(26 * k, 38 * k + 1, 2)))], n)
            return over(canvas, bg), self.caption(bare, f"small {x}", extra=bgtext)
        if pixel:  # only whole art pixels, and only where nothing would wrap around
            e = 2 * k
            dy, dx = (e * int(v) for v in g.integers(-1, 2, 2))
            edge = any(side[..., 3].any() for side in (a[:e], a[-e:], a[:, :e], a[:, -e:]))
            canvas = a if edge else np.roll(a, (dy, dx), (0, 1))
        else:
            dx, dy = (int(v) for v in g.integers(-c.jitter * k, c.jitter * k + 1, 2))
            canvas = place([(a, int(g.integers(n - 4 * c.jitter * k, n + 1)), n // 2 + dx, n // 2 + dy)], n)
        return over(canvas, bg), self.caption(r, x, extra=bgtext)

    def plain(self, split):
        """The unaugmented pictures of a split that the recipe wants."""
        for r in self.rows:
            if r["split"] == split and self.wanted(r) and self.weight(r) > 0:
                yield over(self.px[r["index"]], np.float32(255)), f"{article(r['name'])}, {STYLE[r['set']][0]}"


class Batches(torch.utils.data.IterableDataset):
    """Endless batches (pictures as uint8, ids, mask), each determined by (seed, batch number) alone, so that a resumed
    run sees what an uninterrupted one would have seen. Captions are padded only to the longest of the batch, or to a `multiple` of so many
    tokens: padding is masked everywhere, so the result is the same, and text costs a third."""

    def __init__(self, mix, tokenizer, batch, seed, first=0, dropout=0.1, multiple=1):
        self.mix, self.tokenizer, self.batch, self.seed, self.first = mix, tokenizer, batch, seed, first
        self.dropout, self.multiple = dropout, multiple

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        number = self.first + worker
        while True:
            self.mix.seed(self.seed, number)
            samples = [self.mix.sample() for _ in range(self.batch)]
            texts = ["" if self.mix.rng.random() < self.dropout else text for _, text in samples]
            yield torch.from_numpy(np.stack([rgb for rgb, _ in samples])), *encode(self.tokenizer, texts, "longest", self.multiple)
            number += workers


def encode(tokenizer, texts, padding="max_length", multiple=None):
    out = tokenizer(texts, padding=padding, pad_to_multiple_of=multiple, max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt")
    return out.input_ids, out.attention_mask


def read_latents(folder, name=""):
    """A folder of latents.py -> (latents as float16, captions)"""
    captions = [json.loads(line) for line in open(Path(folder) / f"{name}captions.jsonl")]
    return np.load(Path(folder) / f"{name}latents.npy", mmap_mode="r")[: len(captions)], captions


class Latents(torch.utils.data.IterableDataset):
    """Endless batches (latents, ids, mask) from a folder of latents.py, each determined by (seed, batch number) alone."""

    def __init__(self, folder, tokenizer, batch, seed, first=0, dropout=0.1, multiple=1):
        self.latents, self.captions = read_latents(folder)
        self.tokenizer, self.batch, self.seed, self.first = tokenizer, batch, seed, first
        self.dropout, self.multiple = dropout, multiple

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        number = self.first + worker
        while True:
            rng = np.random.default_rng((self.seed, number))
            drawn = rng.integers(len(self.captions), size=self.batch)
            texts = ["" if rng.random() < self.dropout else self.captions[i] for i in drawn]
            yield torch.from_numpy(self.latents[drawn]), *encode(self.tokenizer, texts, "longest", self.multiple)
            number += workers


def to_input(x, device="cpu"):
    """What a network takes: uint8 pictures (n, height, width, 3) as (n, 3, height, width) in -1..1, latents as they are."""
    x = torch.as_tensor(x).to(device, non_blocking=True)
    return x.permute(0, 3, 1, 2).float() / 127.5 - 1 if x.dtype == torch.uint8 else x.float()
