"""The README's picture: twelve prompts, each one run of the program with the model and the steps that it takes by itself.

    python docs/images/make_grid.py target/release/headwater      # needs Pillow; prints the seconds of each run
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

PROMPTS = [
    "a red heart", "a strawberry", "a rocket", "a pizza", "a fox", "a butterfly, black and white icon",
    "a lion", "a frog, 3d style", "a blue rose", "a blue fox", "a green rocket", "a purple fox, 3d style",
]
COLUMNS, CELL, GAP = 6, 128, 8


def main():
    with tempfile.TemporaryDirectory() as folder:
        pictures, seconds = [], []
        for prompt in PROMPTS:
            path = Path(folder) / f"{len(pictures)}.png"
            start = time.monotonic()
            subprocess.run([sys.argv[1], "generate", prompt, "--seed", "1", "--quiet", "--output", path], check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.monotonic() - start)
            pictures.append(Image.open(path).convert("RGB"))
    cell = CELL + GAP
    sheet = Image.new("RGB", (COLUMNS * cell + GAP, -(-len(pictures) // COLUMNS) * cell + GAP), "white")
    for i, picture in enumerate(pictures):
        at = GAP + i % COLUMNS * cell, GAP + i // COLUMNS * cell
        sheet.paste(picture.resize((CELL, CELL), Image.Resampling.NEAREST), at)
    sheet.save(Path(__file__).with_name("grid.png"))
    print(*(f"{s:.2f} s  {p}" for s, p in zip(seconds, PROMPTS)), sep="\n")


if __name__ == "__main__":
    main()
