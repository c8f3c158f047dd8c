"""Every graph operation in PyTorch, in f64, with the error that PyTorch's f32 has: ops.json.

    pip install -r requirements.txt && python make_ops.py

Shapes are small and odd, so that no tile, vector or warp divides them.
"""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding as diffusers_timestep_embedding

import precise
from synthetic import tensor

CASES = []


def listed(x):
    return {"shape": list(x.shape), "data": x.flatten().tolist()}


def case(op, name, compute, inputs, f32=None, **attributes):
    """Records compute(*inputs) in f64 and the error of the same (or of `f32`) in f32; inputs are exact in both."""
    exact = compute(*[x.double() for x in inputs])
    rounded = (f32 or compute)(*inputs)
    CASES.append({
        "op": op, "name": name, "attributes": attributes, "inputs": [listed(x) for x in inputs],
        "output": listed(exact), "f32_error": precise.f32_error(exact, rounded),
    })


def matmul():
    a, w, bias = tensor("a", 2, 3, 5), tensor("w", 7, 5), tensor("bias", 7)
    case("matmul", "linear", F.linear, [a, w, bias], transpose_b=True, bias=True)
    case("matmul", "linear without bias", F.linear, [a, w], transpose_b=True, bias=False)
    case("matmul", "shared right side", torch.matmul, [a, tensor("b", 5, 3)], transpose_b=False, bias=False)
    case("matmul", "bias on plain product", lambda a, b, c: a @ b + c, [a, tensor("b", 5, 3), tensor("c", 3)], transpose_b=False, bias=True)
    case("matmul", "batched", torch.matmul, [tensor("a4", 2, 3, 4, 5), tensor("b4", 2, 3, 5, 6)], transpose_b=False, bias=False)
    case("matmul", "batched, transposed", lambda a, b: a @ b.mT, [tensor("a4", 3, 4, 5), tensor("b4", 3, 6, 5)], transpose_b=True, bias=False)
    case("matmul", "long sum", F.linear, [tensor("long", 3, 1031), tensor("long w", 5, 1031)], transpose_b=True, bias=False)
    case("matmul", "one row, one column", F.linear, [tensor("row", 1, 3), tensor("column", 1, 3)], transpose_b=True, bias=False)


def conv2d():
    def conv(stride, padding, upsample):
        top, bottom, left, right = padding

        def compute(x, w, b=None):  # NHWC image, [out, rows, columns, in] weight
            x, w = x.permute(0, 3, 1, 2), w.permute(0, 3, 1, 2)
            if upsample == 2:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            return F.conv2d(F.pad(x, (left, right, top, bottom)), w, b, stride=stride).permute(0, 2, 3, 1)
        return compute

    def one(name, channels, out, rows, columns, kernel, stride=1, padding=None, upsample=1, bias=True):
        padding = padding or [kernel // 2] * 4
        inputs = [tensor("x", 2, rows, columns, channels), tensor("w", out, kernel, kernel, channels)] + [tensor("b", out)] * bias
        case("conv2d", name, conv(stride, padding, upsample), inputs, stride=stride, padding=padding, upsample=upsample, bias=bias)

    one("3x3", 5, 7, 4, 6, 3)
    one("without bias", 4, 3, 5, 3, 3, bias=False)
    one("one pixel", 3, 4, 1, 1, 3)
    one("5x5 without padding", 2, 3, 6, 5, 5, padding=[0, 0, 0, 0])
    one("downsampling", 4, 5, 7, 6, 3, stride=2)
    one("downsampling, padded behind", 4, 5, 6, 8, 3, stride=2, padding=[0, 1, 0, 1])  # AutoencoderKL's
    one("upsampling", 3, 4, 3, 5, 3, upsample=2)
    one("1x1, upsampling", 3, 4, 2, 3, 1, upsample=2)


def group_norm():
    def norm(groups, eps):
        return lambda x, w, b: F.group_norm(x.movedim(-1, 1), groups, w, b, eps).movedim(1, -1)

    x, w, b = tensor("x", 2, 3, 5, 12), tensor("w", 12), tensor("b", 12)
    case("group_norm", "four groups", norm(4, 1e-5), [x, w, b], groups=4, eps=1e-5)
    case("group_norm", "one group", norm(1, 1e-6), [x, w, b], groups=1, eps=1e-6)
    case("group_norm", "every channel its own", norm(12, 1e-5), [x, w, b], groups=12, eps=1e-5)
    case("group_norm", "tokens", norm(3, 1e-6), [tensor("t", 2, 7, 12), w, b], groups=3, eps=1e-6)
    case("group_norm", "far from zero", norm(4, 1e-5), [x + 8, w, b], groups=4, eps=1e-5)


def layer_norm():
    x, w, b = tensor("x", 2, 3, 7), tensor("w", 7), tensor("b", 7)
    case("layer_norm", "affine", lambda x, w, b: F.layer_norm(x, (7,), w, b, 1e-5), [x, w, b], eps=1e-5, affine=True)
    case("layer_norm", "plain", lambda x: F.layer_norm(x, (7,), eps=1e-6), [x], eps=1e-6, affine=False)
    case("layer_norm", "far from zero", lambda x: F.layer_norm(x, (33,), eps=1e-6), [tensor("x", 3, 33) + 100], eps=1e-6, affine=False)
    case("layer_norm", "large eps, small numbers", lambda x: F.layer_norm(x, (5,), eps=0.1), [tensor("x", 4, 5) / 64], eps=0.1, affine=False)


def rms_norm():
    x = tensor("x", 2, 3, 7)
    case("rms_norm", "plain", lambda x: F.rms_norm(x, (7,), eps=1e-6), [x], eps=1e-6)
    case("rms_norm", "far from zero", lambda x: F.rms_norm(x, (33,), eps=1e-6), [tensor("x", 3, 33) + 100], eps=1e-6)
    case("rms_norm", "large eps, small numbers", lambda x: F.rms_norm(x, (5,), eps=0.1), [tensor("x", 4, 5) / 64], eps=0.1)
    case("rms_norm", "one channel", lambda x: F.rms_norm(x, (1,), eps=1e-6), [tensor("x", 4, 1)], eps=1e-6)


def attention():
    def sdpa(heads, causal, scale=None):
        def compute(q, k, v, *biases):
            split = lambda x: x.unflatten(-1, (heads, -1)).transpose(1, 2)
            mask = None
            for bias in biases:  # of keys [B, Sk], of scores [H, Sq, Sk]
                bias = bias[:, None, None, :] if bias.dim() == 2 else bias[None]
                mask = bias if mask is None else mask + bias
            if causal:
                hidden = torch.full((q.shape[1], k.shape[1]), -math.inf, dtype=q.dtype).triu(1)
                mask = hidden if mask is None else mask + hidden
            out = F.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask=mask, scale=scale)
            return out.transpose(1, 2).flatten(2)
        return compute

    q, k, v = tensor("q", 2, 5, 12) * 3, tensor("k", 2, 5, 12) * 3, tensor("v", 2, 5, 12)
    other_k, other_v = tensor("other k", 2, 7, 12) * 3, tensor("other v", 2, 7, 12)
    padding = torch.tensor([[0.0, 0, 0, -1e4, -1e4, -1e4, -1e4], [-1e4] * 7])  # the second row hides every key
    square = torch.tensor([[0.0, 0, 0, -1e9, -1e9], [0, 0, 0, 0, 0]])
    scale = 1 / math.sqrt(4)
    plain = {"heads": 3, "scale": scale, "causal": False, "key_bias": False}
    case("attention", "self", sdpa(3, False), [q, k, v], **plain)
    case("attention", "cross", sdpa(3, False), [q, other_k, other_v], **plain)
    case("attention", "key bias", sdpa(3, False), [q, other_k, other_v, padding], **{**plain, "key_bias": True})
    case("attention", "causal", sdpa(3, True), [q, k, v], **{**plain, "causal": True})
    case("attention", "causal with key bias", sdpa(3, True), [q, k, v, square], **{**plain, "causal": True, "key_bias": True})
    case("attention", "one head, own scale", sdpa(1, False, 0.7), [q, k, v], **{**plain, "heads": 1, "scale": 0.7})
    case("attention", "one key", sdpa(3, False), [q, k[:, :1], v[:, :1]], **plain)
    scores, other_scores = tensor("scores", 3, 5, 5) * 2, tensor("other scores", 3, 5, 7) * 2
    case("attention", "score bias", sdpa(3, False), [q, k, v, scores], **plain, score_bias=True)
    case("attention", "cross with both biases", sdpa(3, False), [q, other_k, other_v, padding, other_scores],
         **{**plain, "key_bias": True}, score_bias=True)
    case("attention", "causal with both biases", sdpa(3, True), [q, k, v, square, scores],
         **{**plain, "causal": True, "key_bias": True}, score_bias=True)
    case("attention", "score bias without scale", sdpa(3, False, 1.0), [q, k, v, scores], **{**plain, "scale": 1.0}, score_bias=True)


def elementwise():
    x = torch.cat([tensor("x", 29) * 5, torch.tensor([0.0, -0.0, 1.0, -1.0, 12.5, -12.5, 30.0, -30.0])])
    positive = x.abs() + 2**-10
    unary = {
        "neg": torch.neg, "abs": torch.abs, "exp": torch.exp, "ln": torch.log, "sqrt": torch.sqrt, "sin": torch.sin, "cos": torch.cos,
        "tanh": torch.tanh, "sigmoid": torch.sigmoid, "silu": F.silu, "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x), "relu": F.relu,
    }
    for name, function in unary.items():
        wide = positive if name in ("ln", "sqrt") else x
        case("unary", name, function, [wide])  # far out, where formulas overflow
        case("unary", name, function, [wide / 32])  # near zero, where they cancel; errors are relative to the largest result
    a, b = tensor("a", 3, 5), tensor("b", 3, 5) + 2
    binary = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "min": torch.minimum, "max": torch.maximum}
    for name, function in binary.items():
        case("binary", name, function, [a, b - 2 if name in ("min", "max") else b])
        case("binary", name, function, [tensor("a3", 2, 1, 5), tensor("b2", 3, 1) + 2])
    case("modulate", "broadcast over tokens", lambda x, shift, scale: x * (1 + scale) + shift,
         [tensor("x", 2, 3, 5), tensor("shift", 2, 1, 5), tensor("scale", 2, 1, 5)])


def layout():
    table, ids = tensor("table", 11, 3), torch.tensor([[0.0, 10, 3, 3], [7, 1, 0, 9]])
    case("gather", "embedding", lambda t, i: F.embedding(i.long(), t), [table, ids])
    a, b, c = tensor("a", 2, 3, 5), tensor("b", 2, 1, 5), tensor("c", 2, 4, 5)
    case("concat", "middle axis", lambda *x: torch.cat(x, 1), [a, b, c], axis=1)
    case("concat", "last axis", lambda *x: torch.cat(x, 2), [a, tensor("d", 2, 3, 2)], axis=2)
    case("concat", "first axis", lambda *x: torch.cat(x, 0), [a, tensor("e", 1, 3, 5)], axis=0)
    case("slice", "middle axis", lambda x: x[:, 1:3], [a], axis=1, start=1, len=2)
    case("slice", "last axis", lambda x: x[..., 4:], [a], axis=2, start=4, len=1)
    case("reshape", "merge axes", lambda x: x.reshape(6, 5), [a], shape=[6, 5])
    case("reshape", "split axes", lambda x: x.reshape(5, 2, 3), [a], shape=[5, 2, 3])
    for axes in ([2, 0, 1], [0, 2, 1], [1, 0, 2]):
        case("transpose", str(axes), lambda x: x.permute(axes), [a], axes=axes)
    case("transpose", "five axes", lambda x: x.permute(0, 2, 4, 1, 3), [tensor("x", 2, 3, 2, 5, 1)], axes=[0, 2, 4, 1, 3])


def timesteps():
    t = torch.tensor([0.0, 1, 17.5, 500, 999])
    for dim, flip, shift in ((16, True, 0), (16, False, 1), (6, False, 0), (256, True, 0)):
        case("timestep_embedding", f"{dim} channels, flip {flip}, shift {shift}",
             lambda t: precise.get_timestep_embedding(t, dim, flip, shift), [t],
             f32=lambda t: diffusers_timestep_embedding(t, dim, flip, shift), dim=dim, flip_sin_to_cos=flip, downscale_freq_shift=shift)
        assert CASES[-1]["f32_error"] < 1e-3, "our f64 formula is not diffusers'"


def patches():
    def conv(x, w, b):  # NHWC image -> tokens
        return F.conv2d(x.permute(0, 3, 1, 2), w, b, stride=w.shape[-1]).flatten(2).transpose(1, 2)

    case("patchify", "patch 2", conv, [tensor("x", 2, 4, 6, 3), tensor("w", 5, 3, 2, 2), tensor("b", 5)], patch=2)
    case("patchify", "patch 3", conv, [tensor("x", 1, 9, 3, 4), tensor("w", 2, 4, 3, 3), tensor("b", 2)], patch=3)

    def einsum(rows, columns, p, channels):  # PixArt's unpatchify, back to NHWC
        def compute(x):
            x = torch.einsum("nhwpqc->nchpwq", x.reshape(-1, rows, columns, p, p, channels))
            return x.reshape(-1, channels, rows * p, columns * p).permute(0, 2, 3, 1)
        return compute

    case("unpatchify", "patch 2", einsum(2, 3, 2, 5), [tensor("x", 2, 6, 20)], patch=2, rows=2, columns=3)
    case("unpatchify", "patch 3", einsum(3, 1, 3, 2), [tensor("x", 1, 3, 18)], patch=3, rows=3, columns=1)


def main():
    for part in (matmul, conv2d, group_norm, layer_norm, rms_norm, attention, elementwise, layout, timesteps, patches):
        part()
    lines = ",\n".join(json.dumps(case) for case in CASES)
    Path(__file__).with_name("ops.json").write_text(f"[\n{lines}\n]\n")
    for c in CASES:
        print(f"{c['op']:20}{c['name']:40}{c['output']['shape']!s:20}{c['f32_error']:.1e}")


if __name__ == "__main__":
    main()
