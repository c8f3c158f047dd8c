"""The README's picture of edits: before above, after below, each one run of the program with the models that it takes by itself.

    python docs/images/make_edits.py target/release/headwater      # needs Pillow and NumPy; prints the seconds of each run
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CELL, GAP, TEXT = 144, 8, 18


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)

        def run(name, *arguments):
            path = folder / name
            start = time.monotonic()
            subprocess.run([sys.argv[1], *arguments, "--seed", "2", "--quiet", "--output", path], check=True, stdout=subprocess.DEVNULL)
            print(f"{time.monotonic() - start:.2f} s  {' '.join(str(a) for a in arguments[:1])}")
            return Image.open(path).convert("RGB")

        def save(name, image):
            image.save(folder / name)
            return folder / name, image

        drawn = {p: run(f"{i}.png", "generate", p) for i, p in enumerate(["a yellow house", "a blue fish", "a red heart", "a pizza", "a fox"])}
        side, columns = drawn["a pizza"].width, []
        at = lambda *of_64: [x * side // 64 for x in of_64]  # where these lie in a picture of this size

        hole = drawn["a yellow house"].copy()
        ImageDraw.Draw(hole).rectangle(at(30, 22, 55, 52), fill="grey")
        path, _ = save("house.png", drawn["a yellow house"])
        columns.append(("inpaint", hole, run("inpaint.png", "inpaint", path, "a yellow house", "--mask", ",".join(map(str, at(30, 22, 26, 31))))))

        path, grey = save("grey.png", drawn["a blue fish"].convert("L").convert("RGB"))
        columns.append(("colorize", grey, run("colorize.png", "colorize", path, "an orange fish")))

        path, small = save("small.png", drawn["a pizza"].resize((side // 4, side // 4), Image.Resampling.BOX))
        columns.append(("upscale --scale 4", small.resize((side, side), Image.Resampling.NEAREST), run("upscale.png", "upscale", path, "a pizza", "--scale", "4")))

        noise = np.random.default_rng(0).normal(0, 0.4 * 127.5, (side, side, 3))
        noisy = Image.fromarray((np.asarray(drawn["a fox"]) + noise).clip(0, 255).round().astype("uint8"))
        path, noisy = save("noisy.png", noisy)
        columns.append(("restore --sigma 0.4", noisy, run("restore.png", "restore", path, "a fox", "--sigma", "0.4")))

        strokes = Image.new("RGB", (side, side), "white")
        draw = ImageDraw.Draw(strokes)
        draw.polygon(at(10, 30, 32, 8, 54, 30), fill=(150, 60, 40))
        draw.rectangle(at(14, 30, 50, 56), fill=(90, 150, 210))
        draw.rectangle(at(28, 42, 37, 56), fill=(110, 70, 40))
        path, strokes = save("strokes.png", strokes)
        columns.append(("stroke", strokes, run("stroke.png", "stroke", path, "a blue house")))

        half = drawn["a red heart"].crop((0, 0, side // 2, side))
        path, half = save("half.png", half)
        before = Image.new("RGB", (side, side), "grey")
        before.paste(half)
        columns.append((f"outpaint --right {side // 2}", before, run("outpaint.png", "outpaint", path, "a red heart", "--right", str(side // 2))))

        ends = [save(f"end-{i}.png", drawn[p])[0] for i, p in enumerate(["a red heart", "a pizza"])]
        way = folder / "way"
        command = [sys.argv[1], "interpolate", *ends, "an icon", "--frames", str(len(columns)), "--quiet", "--output", way]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        frames = [Image.open(path).convert("RGB") for path in sorted(way.iterdir())]

    step = CELL + GAP
    sheet = Image.new("RGB", (len(columns) * step + GAP, 3 * step + 2 * TEXT + 2 * GAP), "white")
    for i, frame in enumerate(frames):
        sheet.paste(frame.resize((CELL, CELL), Image.Resampling.NEAREST), (GAP + i * step, 2 * step + TEXT + 2 * GAP))
    ImageDraw.Draw(sheet).text((GAP + 4, 3 * step + TEXT + 2 * GAP - 4), "interpolate, from the first picture to the last", fill="black")
    for i, (name, before, after) in enumerate(columns):
        x = GAP + i * step
        for j, picture in enumerate([before, after]):
            sheet.paste(picture.resize((CELL, CELL), Image.Resampling.NEAREST), (x, GAP + j * step))
        ImageDraw.Draw(sheet).text((x + 4, GAP + 2 * step - 2), name, fill="black")
    sheet.save(Path(__file__).with_name("edits.png"), optimize=True)


if __name__ == "__main__":
    main()
