"""Weights and inputs drawn from their names, the same bits as `models::synthetic` in Rust.

1. The seed is the FNV-1a hash (64 bits) of the name in UTF-8.
2. Element i comes from output i of SplitMix64 with that seed: u = (bits >> 40) / 2**23 - 1.
3. Matrices and everything of more axes: u * sqrt(3 / fan_in), fan_in = product of all extents but the first.
   Vectors called "weight": 1 + u / 8; other vectors: u / 8. Each product is taken in f64 and rounded once to f32.
"""

import math

import numpy as np
import torch


def fnv1a(name):
    hash = 0xCBF29CE484222325
    for byte in name.encode():
        hash = (hash ^ byte) * 0x100000001B3 % 2**64
    return hash


def signed(name, count):
    """`count` numbers in -1..1, exact in f32."""
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a(name)) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2**23 - 1.0


def tensor(name, *shape):
    """An input: f32 numbers in -1..1."""
    return torch.from_numpy(signed(name, math.prod(shape)).astype(np.float32).reshape(shape))


def weight(name, shape):
    u = signed(name, math.prod(shape))
    if len(shape) > 1:
        u = u * math.sqrt(3 / math.prod(shape[1:]))
    else:
        u = (1.0 if name.endswith("weight") else 0.0) + u * 0.125
    return torch.from_numpy(u.astype(np.float32).reshape(shape))


def fill(module):
    """Draws every parameter of a module from its name, as a graph has it: without the prefix that transformers gives to a text model."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(weight(name.removeprefix("text_model."), tuple(parameter.shape)))
    return module
