"""Outputs of small models of every architecture, in f64, with the error that PyTorch's f32 has: models.json.

    pip install -r requirements.txt && python make_models.py

Weights and inputs are drawn from their names (synthetic.py), so none are stored.
"""

import copy
import json
from pathlib import Path

import torch
from diffusers import PixArtTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel

from precise import exact, f32_error
from synthetic import fill, signed, tensor

CLIP = {
    "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 3,
    "max_position_embeddings": 9, "projection_dim": 24, "bos_token_id": 48, "eos_token_id": 49, "pad_token_id": 49,
}
CLIPS = [
    {"name": "quick_gelu", "config": {"hidden_act": "quick_gelu"}, "tokens": 9, "lengths": [5, 9]},
    {"name": "gelu", "config": {"hidden_act": "gelu", "layer_norm_eps": 1e-3}, "tokens": 7, "lengths": [7, 2]},
    {"name": "gelu_pytorch_tanh", "config": {"hidden_act": "gelu_pytorch_tanh", "num_attention_heads": 1}, "tokens": 4, "lengths": [4]},
]
PIXART = {"num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2, "cross_attention_dim": 24, "norm_type": "ada_norm_single"}
PIXARTS = [
    {"name": "latents with learned sigma", "height": 6, "width": 10,
     "config": {"sample_size": 8, "patch_size": 2, "in_channels": 4, "out_channels": 8, "caption_channels": 10}},
    {"name": "pixels, patch 8", "height": 16, "width": 24,
     "config": {"sample_size": 16, "patch_size": 8, "in_channels": 3, "out_channels": 3, "caption_channels": 10}},
    {"name": "resolution and aspect ratio", "height": 8, "width": 4,
     "config": {"sample_size": 128, "patch_size": 2, "in_channels": 4, "out_channels": 8, "caption_channels": 10, "num_layers": 1}},
    {"name": "no caption projection, no attention bias, affine norms, gelu", "height": 6, "width": 6,
     "config": {"sample_size": 6, "patch_size": 3, "in_channels": 5, "out_channels": None, "cross_attention_dim": 14,
                "attention_bias": False, "norm_elementwise_affine": True, "norm_eps": 1e-4, "activation_fn": "gelu",
                "interpolation_scale": 2}},
]


def clip_case(spec):
    config = {**CLIP, **spec["config"]}
    model = fill(CLIPTextModel(CLIPTextConfig(**config, attn_implementation="sdpa"))).eval()
    batch, tokens = len(spec["lengths"]), spec["tokens"]
    ids = ((signed(f"{spec['name']}:input_ids", batch * tokens) + 1) / 2 * config["vocab_size"]).astype(int).reshape(batch, tokens)
    ids = torch.from_numpy(ids)
    mask = (torch.arange(tokens)[None] < torch.tensor(spec["lengths"])[:, None]).long()

    def run(model):
        out = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        skip = out.hidden_states[-2]
        return {"last": out.last_hidden_state, "skip1": model.final_layer_norm(skip), "raw1": skip}

    precise, rounded = run(copy.deepcopy(model).double()), run(model)
    config_json = {**json.loads(model.config.to_json_string()), **spec["config"]}
    return {
        "name": spec["name"], "model": "CLIPTextModel", "config": config_json, "input_ids": ids.tolist(), "attention_mask": mask.tolist(),
        "outputs": {k: {"shape": list(v.shape), "f32_error": f32_error(v, rounded[k]), "data": v.flatten().tolist()} for k, v in precise.items()},
    }


def pixart_case(spec):
    config = {**PIXART, **spec["config"]}
    model = fill(PixArtTransformer2DModel(**config)).eval()
    name, batch, tokens, channels = spec["name"], 2, 5, config.get("caption_channels") or config["cross_attention_dim"]
    height, width = spec["height"], spec["width"]
    inputs = {
        "sample": tensor(f"{name}:sample", batch, height, width, config["in_channels"]),  # NHWC, as our graphs take it
        "encoder_hidden_states": tensor(f"{name}:encoder_hidden_states", batch, tokens, channels),
        "timestep": torch.tensor([3.0, 902.25]),
        "encoder_attention_mask": torch.tensor([[1.0, 1, 1, 1, 1], [1, 1, 0, 0, 0]]),
    }
    size = {"resolution": torch.tensor([[512.0, 256.0], [1024.0, 768.0]]), "aspect_ratio": torch.tensor([[2.0], [1.25]])}

    def run(model, dtype):
        cond = {k: v.to(dtype) for k, v in size.items()} if model.use_additional_conditions else {"resolution": None, "aspect_ratio": None}
        out = model(
            inputs["sample"].permute(0, 3, 1, 2).to(dtype), encoder_hidden_states=inputs["encoder_hidden_states"].to(dtype),
            timestep=inputs["timestep"].to(dtype), encoder_attention_mask=inputs["encoder_attention_mask"].to(dtype),
            added_cond_kwargs=cond).sample
        return out.permute(0, 2, 3, 1)

    rounded = run(model, torch.float32)
    with exact():
        precise = run(copy.deepcopy(model).double(), torch.float64)
    case = {
        "name": name, "model": "PixArtTransformer2DModel", "config": {"_class_name": "PixArtTransformer2DModel", **config},
        "sample": [batch, height, width, config["in_channels"]], "encoder_hidden_states": [batch, tokens, channels],
        "timestep": inputs["timestep"].tolist(), "encoder_attention_mask": inputs["encoder_attention_mask"].tolist(),
        "outputs": {"sample": {"shape": list(precise.shape), "f32_error": f32_error(precise, rounded), "data": precise.flatten().tolist()}},
    }
    if model.use_additional_conditions:
        case.update({k: v.tolist() for k, v in size.items()})
    return case


def main():
    torch.set_grad_enabled(False)
    cases = [clip_case(spec) for spec in CLIPS] + [pixart_case(spec) for spec in PIXARTS]
    lines = ",\n".join(json.dumps(case) for case in cases)
    Path(__file__).with_name("models.json").write_text(f"[\n{lines}\n]\n")
    for case in cases:
        print(case["model"], case["name"], {k: (v["shape"], f"{v['f32_error']:.1e}") for k, v in case["outputs"].items()})


if __name__ == "__main__":
    main()
