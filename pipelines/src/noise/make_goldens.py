"""Writes goldens.json: values of torch.randn on PyTorch's CPU generator. Needs torch.

    python make_goldens.py
"""

import json
import pathlib

import torch

SIZES = [5, 16, 17, 100, 12288]
SEEDS = [0, 42, 1234567890123, 2**32 + 1]
# Small and large draws in a row: the generator keeps half a pair between small ones.
SEQUENCES = [[n] for n in SIZES] + [[5, 5, 16, 1, 17, 100, 3, 3], [12288, 12288]]


def draw(generator, n):
    values = torch.randn(n, generator=generator).double().tolist()
    return {"n": n, "first": values[:20], "last": values[20:][-20:]}


cases = []
for seed in SEEDS:
    for sequence in SEQUENCES:
        generator = torch.Generator().manual_seed(seed)
        cases.append({"seed": seed, "draws": [draw(generator, n) for n in sequence]})
text = ",\n".join(json.dumps(case) for case in cases)
pathlib.Path(__file__).with_name("goldens.json").write_text("[\n" + text + "\n]\n")
