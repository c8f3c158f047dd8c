"""What every byte stands for in PyTorch's number types of eight bits: eight_bits.json.

    pip install -r requirements.txt && python make_eight_bits.py

Null is NaN.
"""

import json
import math
from pathlib import Path

import torch

TYPES = ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"]


def plain(value):
    return None if math.isnan(value) else str(value) if math.isinf(value) else value


def main():
    every = torch.arange(256, dtype=torch.uint8)
    table = {name: [plain(v) for v in every.view(getattr(torch, name)).float().tolist()] for name in TYPES}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(values)}" for name, values in table.items())
    Path(__file__).with_name("eight_bits.json").write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()
