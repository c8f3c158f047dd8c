"""One sheet of 48 everyday prompts, an old pair of models beside a new one.

    python sheet.py --old TEACHER STUDENT --new TEACHER STUDENT --out sheet.png

Of each prompt four pictures from the same seed: the old pair's on the left, the new pair's on the right; teachers above, students in one
step below.
"""

import argparse

import numpy as np
from PIL import Image, ImageDraw

from data import article
from sample import enlarge, generate, load

# the first ten came out as blots, or as other things, when models drew 64x64
PROMPTS = """elephant, key, unicorn, teapot, chair, sword, clock, coffee cup, airplane, castle,
cat, dog, lion, rabbit, horse, fish, owl, butterfly, bee, snake, penguin, dragon,
apple, banana, strawberry, pizza, hamburger, ice cream, cake, bread,
umbrella, guitar, light bulb, camera, hammer, candle, scissors, book,
car, bicycle, train, rocket, sailboat, house, tree, rose, red heart, robot""".replace(",\n", ", ").split(", ")
COLUMNS, LINE = 8, 14


def draw(folder, prompts, steps, size, seed):
    *parts, defaults = load(folder)
    pictures = []
    for i in range(0, len(prompts), 12):
        pictures.extend(generate(*parts, prompts[i : i + 12], steps or defaults["num_inference_steps"], defaults["guidance_scale"], seed=seed + i))
    return enlarge(pictures, size)


def sheet(rows, prompts):
    """rows: of teachers and of students, (old, new), each a picture of each prompt"""
    size, columns = len(rows[0][0][0]), min(COLUMNS, len(prompts))
    width, height = 2 * size + 4, 2 * size + LINE + 4
    image = Image.new("RGB", (columns * width, -(-len(prompts) // columns) * height), "gray")
    for i, prompt in enumerate(prompts):
        cell = np.concatenate([np.concatenate([old[i], new[i]], 1) for old, new in rows])
        x, y = i % columns * width, i // columns * height
        image.paste(Image.fromarray(cell), (x, y + LINE))
        ImageDraw.Draw(image).text((x + 4, y + 1), prompt)
    return image


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--old", nargs=2, metavar=("TEACHER", "STUDENT"), required=True)
    p.add_argument("--new", nargs=2, metavar=("TEACHER", "STUDENT"), required=True)
    p.add_argument("--steps", type=int, nargs=2, default=(20, 1), help="the teachers' and the students'")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--count", type=int, default=len(PROMPTS), help="only so many of the prompts")
    p.add_argument("--size", type=int, default=128)
    p.add_argument("--out", default="sheet.png")
    a = p.parse_args()
    prompts = [article(name) for name in PROMPTS[: a.count]]
    sheet([[draw(folder, prompts, steps, a.size, a.seed) for folder in pair] for pair, steps in zip(zip(a.old, a.new), a.steps)], prompts).save(a.out)


if __name__ == "__main__":
    main()
