"""What Pillow makes of a small picture at other sizes: pipelines/tests/resized.json.

    pip install -r requirements.txt && python make_resized.py
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

FILTERS = {"lanczos": Image.Resampling.LANCZOS, "bicubic": Image.Resampling.BICUBIC}


def main():
    # Stripes of full contrast beside noise, for what overshoots.
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (13, 17, 3), dtype=np.uint8)
    pixels[:, 5:9] = np.where(np.arange(13)[:, None, None] % 2 == 0, 255, 0)
    image = Image.fromarray(pixels)
    cases = [{"filter": name, "width": width, "height": height,
              "pixels": np.asarray(image.resize((width, height), filter)).flatten().tolist()}
             for name, filter in FILTERS.items() for width, height in ((17, 13), (8, 8), (16, 13), (17, 5), (40, 31), (3, 29), (1, 1))]
    golden = {"width": 17, "height": 13, "pixels": pixels.flatten().tolist(), "luma": np.asarray(image.convert("L")).flatten().tolist(),
              "cases": cases}
    path = Path(__file__).parents[2] / "pipelines/tests/resized.json"
    path.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    print(path.name, len(cases), "cases")


if __name__ == "__main__":
    main()
