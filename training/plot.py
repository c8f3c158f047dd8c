"""Loss curves of one or more log.csv files as one PNG, drawn with Pillow alone.

    python plot.py RUN/log.csv ... --out loss.png"""

import argparse
import csv
from pathlib import Path

from PIL import Image, ImageDraw

WIDTH, HEIGHT, MARGIN = 420, 300, 48
COLUMNS = 4
INK = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#7f7f7f"]


def panel(path):
    """Each loss over the number of pictures, on its own scale from 0 to its largest."""
    rows = list(csv.DictReader(open(path)))
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    curves = [k for k in (rows[0] if rows else {}) if "loss" in k or "held_out" in k]
    last = max((float(r["images"]) for r in rows), default=1) or 1
    draw.text((MARGIN, 6), f"{Path(path).parent.name}: {last:,.0f} pictures, {float(rows[-1]['minutes']):.0f} minutes" if rows else "", "black")
    x0, y0, x1, y1 = MARGIN, 24, WIDTH - 10, HEIGHT - 16 - 12 * ((len(curves) + 1) // 2)
    draw.rectangle((x0, y0, x1, y1), outline="#888")
    for n, k in enumerate(curves):
        points = [(float(r["images"]), float(r[k])) for r in rows if r[k]]
        top = max((v for _, v in points), default=1) or 1
        xy = [(x0 + (x1 - x0) * i / last, y1 - (y1 - y0) * v / (1.05 * top)) for i, v in points]
        if len(xy) > 1:
            draw.line(xy, INK[n % len(INK)], 2)
        label = f"{k} {points[0][1]:.4g} > {points[-1][1]:.4g}" if points else k
        draw.text((10 + n % 2 * WIDTH // 2, y1 + 6 + 12 * (n // 2)), label, INK[n % len(INK)])
    return image


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("logs", nargs="+")
    p.add_argument("--out", required=True)
    a = p.parse_args()
    panels = [panel(path) for path in a.logs]
    image = Image.new("RGB", (WIDTH * min(len(panels), COLUMNS), HEIGHT * -(-len(panels) // COLUMNS)), "white")
    for n, one in enumerate(panels):
        image.paste(one, (WIDTH * (n % COLUMNS), HEIGHT * (n // COLUMNS)))
    image.save(a.out)


if __name__ == "__main__":
    main()
