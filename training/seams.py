"""Do pictures show the patches they were drawn in?

    python seams.py DRAWINGS grid.png --data DIR
    python seams.py samples.png --scale 2          # a grid of sample.py, each pixel twice as wide

Prints, for each picture or folder of PNG files, the mean absolute difference between pixels on the two sides of a patch's edge, divided
by that between all other neighbours. Drawings know nothing of patches: near 1, a little less where they lie centred and have few edges near
the middle. Where patches show, it is more. The last line is of real drawings, if their folder is given, without pixel art, whose edges all lie at
multiples of 2 or 4.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image


def seams(pictures, period=8):
    """pictures: uint8 arrays (height, width, 3) of any sizes, sides multiples of the period -> at the edges / elsewhere"""
    at, elsewhere = [0.0, 0], [0.0, 0]  # sums and counts
    for picture in pictures:
        for axis in (0, 1):
            d = np.abs(np.diff(picture.astype(np.int16), axis=axis)).mean(2)
            d = d.mean(1 - axis)
            edge = np.arange(1, len(d) + 1) % period == 0
            for total, part in ((at, d[edge]), (elsewhere, d[~edge])):
                total[0] += part.sum()
                total[1] += len(part)
    return at[0] / at[1] / (elsewhere[0] / elsewhere[1])


def read(path, scale=1):
    path = Path(path)
    for f in sorted(path.glob("**/*.png")) if path.is_dir() else [path]:
        image = Image.open(f).convert("RGBA")
        yield np.array(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))[::scale, ::scale]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pictures", nargs="+", help="PNG files and folders of them")
    p.add_argument("--period", type=int, default=8, help="side of a patch, in pixels")
    p.add_argument("--scale", type=int, default=1, help="how wide each pixel is drawn")
    p.add_argument("--data", help="folder of real drawings, for comparison")
    a = p.parse_args()
    for path in a.pictures:
        print(f"{seams(read(path, a.scale), a.period):.3f}  {path}")
    if a.data:
        from data import RECIPES, STYLE, Mix  # only here: the rest needs no PyTorch

        recipe = replace(RECIPES["full"], sets=tuple(name for name in STYLE if name != "dcss"))
        print(f"{seams((rgb for rgb, _ in Mix(a.data, recipe).plain('val_pair')), a.period):.3f}  real drawings")


if __name__ == "__main__":
    main()
