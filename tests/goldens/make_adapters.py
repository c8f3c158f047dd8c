"""Adapters of every kind for a few weights, and what becomes of the weights: adapters/*.safetensors and adapters/cases.json.

    python make_adapters.py

The formulas are those of LyCORIS 3 (`functional` and `modules`: `get_diff_weight`, `rebuild_tucker`, `make_kron`, `apply_dora_scale`) and, for
`lora_bias`, `alpha_pattern`, `use_rslora` and `lora_magnitude_vector`, of PEFT. They are stated here in f64.
"""

import json
import zlib
from pathlib import Path

import torch
from safetensors.torch import save_file

OUT = Path(__file__).parent / "adapters"
LINEAR, CONV, POINT, NORM = "mid_block.attentions.0.proj_in", "mid_block.resnets.0.conv1", "mid_block.resnets.0.conv_shortcut", "mid_block.resnets.0.norm1"
QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
BASE = {f"{LINEAR}.weight": (6, 4), f"{LINEAR}.bias": (6,), f"{CONV}.weight": (6, 4, 3, 3), f"{CONV}.bias": (6,), f"{POINT}.weight": (6, 4, 1, 1),
        f"{NORM}.weight": (4,), f"{NORM}.bias": (4,), f"{QUERY}.weight": (6, 6)}


def draw(name, *shape, size=1.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode()))) * size


def kohya(module, ending):
    return f"lora_unet_{module.replace('.', '_')}.{ending}"


def tucker(core, left, right):
    return torch.einsum("i j ..., i p, j r -> p r ...", core, left, right)


def product(t, shape):
    if "lora_mid.weight" in t:
        up, down = (t[f"lora_{way}.weight"].flatten(1) for way in ("up", "down"))
        return tucker(t["lora_mid.weight"], up.T, down)
    return (t["lora_up.weight"].flatten(1) @ t["lora_down.weight"].flatten(1)).reshape(shape)


def hadamard(t, shape):
    if "hada_t1" in t:
        return tucker(t["hada_t1"], t["hada_w1_a"], t["hada_w1_b"]) * tucker(t["hada_t2"], t["hada_w2_a"], t["hada_w2_b"])
    return ((t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"])).reshape(shape)


def kronecker(t, shape):
    first = t["lokr_w1"] if "lokr_w1" in t else t["lokr_w1_a"] @ t["lokr_w1_b"]
    if "lokr_w2" in t:
        second = t["lokr_w2"]
    elif "lokr_t2" in t:
        second = tucker(t["lokr_t2"], t["lokr_w2_a"], t["lokr_w2_b"])
    else:
        second = t["lokr_w2_a"] @ t["lokr_w2_b"]
    first = first.reshape(*first.shape, *[1] * (second.dim() - 2))
    return torch.kron(first, second.contiguous()).reshape(shape)


def difference(t, shape):
    return t["diff"].reshape(shape)


def decomposed(weight, delta, lengths, strength, rows):
    merged = weight + delta
    axes = [axis for axis in range(weight.dim()) if axis != (0 if rows else 1)]
    norm = torch.linalg.vector_norm(merged, dim=axes, keepdim=True)
    return weight + strength * (merged / norm * lengths.reshape(norm.shape) - weight)


# name: module, the layer's tensors (ending: shape), formula, rank, what alpha is
KINDS = {
    "lora-linear": (LINEAR, {"lora_up.weight": (6, 2), "lora_down.weight": (2, 4)}, product, 2, 1.5),
    "lora-no-alpha": (LINEAR, {"lora_up.weight": (6, 2), "lora_down.weight": (2, 4)}, product, 2, None),
    "lora-alpha-zero": (LINEAR, {"lora_up.weight": (6, 2), "lora_down.weight": (2, 4)}, product, 2, 0.0),
    "lora-alpha-whole": (LINEAR, {"lora_up.weight": (6, 2), "lora_down.weight": (2, 4)}, product, 2, 4),
    "lora-conv": (CONV, {"lora_up.weight": (6, 2, 1, 1), "lora_down.weight": (2, 4, 3, 3)}, product, 2, 1.0),
    "lora-point-as-linear": (POINT, {"lora_up.weight": (6, 2), "lora_down.weight": (2, 4)}, product, 2, 1.0),
    "locon-mid": (CONV, {"lora_up.weight": (6, 3, 1, 1), "lora_down.weight": (3, 4, 1, 1), "lora_mid.weight": (3, 3, 3, 3)}, product, 3, 2.0),
    "loha-linear": (LINEAR, {"hada_w1_a": (6, 2), "hada_w1_b": (2, 4), "hada_w2_a": (6, 2), "hada_w2_b": (2, 4)}, hadamard, 2, 1.0),
    "loha-conv": (CONV, {"hada_w1_a": (6, 2), "hada_w1_b": (2, 36), "hada_w2_a": (6, 2), "hada_w2_b": (2, 36)}, hadamard, 2, 3.0),
    "loha-core": (CONV, {"hada_w1_a": (3, 6), "hada_w1_b": (3, 4), "hada_t1": (3, 3, 3, 3), "hada_w2_a": (3, 6), "hada_w2_b": (3, 4),
                         "hada_t2": (3, 3, 3, 3)}, hadamard, 3, 1.0),
    # Two whole factors: LyCORIS gives alpha no meaning.
    "lokr-whole": (LINEAR, {"lokr_w1": (2, 2), "lokr_w2": (3, 2)}, kronecker, None, 8.0),
    "lokr-second": (LINEAR, {"lokr_w1": (2, 2), "lokr_w2_a": (3, 1), "lokr_w2_b": (1, 2)}, kronecker, 1, 0.5),
    "lokr-both": (LINEAR, {"lokr_w1_a": (2, 3), "lokr_w1_b": (3, 2), "lokr_w2_a": (3, 3), "lokr_w2_b": (3, 2)}, kronecker, 3, 1.0),
    "lokr-first": (LINEAR, {"lokr_w1_a": (2, 3), "lokr_w1_b": (3, 2), "lokr_w2": (3, 2)}, kronecker, 3, 1.0),
    "lokr-conv": (CONV, {"lokr_w1": (2, 2), "lokr_w2": (3, 2, 3, 3)}, kronecker, None, 1.0),
    "lokr-conv-product": (CONV, {"lokr_w1": (3, 2), "lokr_w2_a": (2, 2), "lokr_w2_b": (2, 18)}, kronecker, 2, 1.0),
    "lokr-core": (CONV, {"lokr_w1": (2, 2), "lokr_t2": (2, 2, 3, 3), "lokr_w2_a": (2, 3), "lokr_w2_b": (2, 2)}, kronecker, 2, 1.5),
    "full-linear": (LINEAR, {"diff": (6, 4), "diff_b": (6,)}, difference, None, None),
    "full-conv": (CONV, {"diff": (6, 4, 3, 3), "diff_b": (6,)}, difference, None, None),
    "full-norm": (NORM, {"w_norm": (4,), "b_norm": (4,)}, lambda t, shape: t["w_norm"], None, None),
    "bias-alone": (CONV, {"diff_b": (6,)}, None, None, None),
    "dora-linear": (LINEAR, {"lora_up.weight": (6, 2), "lora_down.weight": (2, 4), "dora_scale": (1, 4)}, product, 2, 1.0),
    "dora-square": (QUERY, {"lora_up.weight": (6, 2), "lora_down.weight": (2, 6), "dora_scale": (1, 6)}, product, 2, 1.0),
    "dora-square-rows": (QUERY, {"lora_up.weight": (6, 2), "lora_down.weight": (2, 6), "dora_scale": (6, 1)}, product, 2, 1.0),
    "dora-conv": (CONV, {"lora_up.weight": (6, 2, 1, 1), "lora_down.weight": (2, 4, 3, 3), "dora_scale": (1, 4, 1, 1)}, product, 2, 1.0),
    "dora-conv-rows": (CONV, {"lora_up.weight": (6, 2, 1, 1), "lora_down.weight": (2, 4, 3, 3), "dora_scale": (6, 1, 1, 1)}, product, 2, 1.0),
    "dora-loha": (LINEAR, {"hada_w1_a": (6, 2), "hada_w1_b": (2, 4), "hada_w2_a": (6, 2), "hada_w2_b": (2, 4), "dora_scale": (1, 4)}, hadamard, 2, 1.0),
    "dora-lokr": (CONV, {"lokr_w1": (2, 2), "lokr_w2": (3, 2, 3, 3), "dora_scale": (1, 4, 1, 1)}, kronecker, None, 1.0),
}
PEFT = {"lora_up.weight": "lora_B.weight", "lora_down.weight": "lora_A.weight", "bias": "lora_B.bias", "dora_scale": "lora_magnitude_vector"}
# name: module, tensors, prefix, metadata, alpha / rank
PEFT_KINDS = {
    "peft-pattern": (LINEAR, {"lora_up.weight": (6, 2), "lora_down.weight": (2, 4)}, "unet.",
                     {"unet.r": 4, "unet.lora_alpha": 8, "unet.rank_pattern": {LINEAR: 2}, "unet.alpha_pattern": {"proj_in": 3}}, 1.5),
    "peft-rslora": (LINEAR, {"lora_up.weight": (6, 2), "lora_down.weight": (2, 4)}, "base_model.model.unet.",
                    {"unet.r": 2, "unet.lora_alpha": 1, "unet.use_rslora": True, "unet.alpha_pattern": {}}, 2**-0.5),
    "peft-bias": (LINEAR, {"lora_up.weight": (6, 2), "lora_down.weight": (2, 4), "bias": (6,)}, "base_model.model.",
                  {"lora_alpha": 3, "lora_bias": True}, 1.5),
    # Of rows, and square, so that nothing else tells.
    "peft-dora": (QUERY, {"lora_up.weight": (6, 2), "lora_down.weight": (2, 6), "dora_scale": (6,)}, "unet.", {"unet.lora_alpha": 2, "unet.use_dora": True}, 1.0),
    "peft-dora-conv": (CONV, {"lora_up.weight": (6, 2, 1, 1), "lora_down.weight": (2, 4, 3, 3), "dora_scale": (1, 6, 1, 1)}, "unet.",
                       {"unet.lora_alpha": 2, "unet.use_dora": True}, 1.0),
}
WEIGHTS = [1.0, -0.6]


def merged(base, module, tensors, formula, scale, strength, rows):
    """The module's weight and bias with the layer added, in the type of its arguments."""
    weight, out = base[f"{module}.weight"], {}
    if formula:
        delta = formula(tensors, weight.shape) * scale
        if "dora_scale" in tensors:
            out["weight"] = decomposed(weight, delta, tensors["dora_scale"], strength, rows)
        else:
            out["weight"] = weight + strength * delta
    for name, factor in ("diff_b", 1.0), ("b_norm", 1.0), ("bias", scale):
        if name in tensors:
            out["bias"] = base[f"{module}.bias"] + strength * factor * tensors[name]
    return out


def case(name, base, module, shapes, formula, scale, rows, file, metadata=None):
    tensors = {ending: draw(f"{name} {ending}", *shape, size=0.5) for ending, shape in shapes.items()}
    if "dora_scale" in tensors:
        tensors["dora_scale"] = tensors["dora_scale"].abs() + 0.5
    if name.endswith("conv"):
        tensors = {ending: tensor.half().float() for ending, tensor in tensors.items()}
    save_file({n: tensors[e].half() if name.endswith("conv") else tensors[e] for e, n in file.items() if e in tensors}
              | {n: e for n, e in file.items() if isinstance(e, torch.Tensor)}, OUT / f"{name}.safetensors", metadata)
    wide = lambda all: {key: tensor.double() for key, tensor in all.items()}
    for strength in WEIGHTS:
        precise = merged(wide(base), module, wide(tensors), formula, scale, strength, rows)
        single = merged(base, module, tensors, formula, scale, strength, rows)
        result = {}
        for key, value in precise.items():
            error = float((single[key].double() - value).abs().max() / value.abs().max())
            result[f"{module}.{key}"] = {"f32_error": error, "data": [round(v, 12) for v in value.flatten().tolist()]}
        yield {"file": f"{name}.safetensors", "weight": strength, "result": result}


def main():
    OUT.mkdir(exist_ok=True)
    base = {name: draw(name, *shape) for name, shape in BASE.items()}
    save_file(base, OUT / "base.safetensors")
    cases = []
    for name, (module, shapes, formula, rank, alpha) in KINDS.items():
        file = {ending: kohya(module, ending) for ending in shapes}
        if alpha is not None:
            file[kohya(module, "alpha")] = torch.tensor(alpha)
        scale = 1.0 if rank is None or not alpha else alpha / rank
        rows = "dora_scale" in shapes and shapes["dora_scale"][0] != 1
        cases += case(name, base, module, shapes, formula, scale, rows, file)
    for name, (module, shapes, prefix, fields, scale) in PEFT_KINDS.items():
        file = {ending: f"{prefix}{module}.{PEFT[ending]}" for ending in shapes}
        cases += case(name, base, module, shapes, product, scale, True, file, {"lora_adapter_metadata": json.dumps(fields)})
    (OUT / "cases.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    print(f"{len(cases)} cases, largest error of f32 {max(r['f32_error'] for c in cases for r in c['result'].values()):.1e}")


if __name__ == "__main__":
    main()
