"""Outputs of small networks that see no text, in f64, with the error that PyTorch's f32 has: models/unet_2d.json and
models/dit.json.

    pip install -r requirements.txt && python make_unconditional.py

The same form as models.json (make_models.py).
"""

import copy
import json
from pathlib import Path

import torch
from diffusers import DiTTransformer2DModel, UNet2DModel

from precise import exact, f32_error
from synthetic import fill, tensor

DOWN, ATTN_DOWN, UP, ATTN_UP = "DownBlock2D", "AttnDownBlock2D", "UpBlock2D", "AttnUpBlock2D"
RESNET_DOWN, RESNET_UP = "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"
SKIP_DOWN, ATTN_SKIP_DOWN, SKIP_UP, ATTN_SKIP_UP = "SkipDownBlock2D", "AttnSkipDownBlock2D", "SkipUpBlock2D", "AttnSkipUpBlock2D"
UNETS = [
    {"name": "ddpm: one head, other paddings, attention in the second level", "height": 8, "width": 4,
     "config": {"block_out_channels": [8, 12], "down_block_types": [DOWN, ATTN_DOWN], "up_block_types": [ATTN_UP, UP], "layers_per_block": 1,
                "attention_head_dim": None, "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6, "norm_num_groups": 4}},
    {"name": "attention everywhere, centred input, scaled middle, convolutions", "height": 4, "width": 8,
     "config": {"block_out_channels": [8, 16], "down_block_types": [ATTN_DOWN, ATTN_DOWN], "up_block_types": [ATTN_UP, ATTN_UP], "layers_per_block": 2,
                "attention_head_dim": 4, "center_input_sample": True, "mid_block_scale_factor": 1.5, "norm_num_groups": 4, "in_channels": 2,
                "out_channels": 5, "time_embedding_dim": 20}},
    {"name": "consistency: resnets between levels, scale and shift, classes", "height": 8, "width": 8, "labels": [3, 6],
     "config": {"block_out_channels": [8, 8, 16], "down_block_types": [RESNET_DOWN, ATTN_DOWN, ATTN_DOWN], "up_block_types": [ATTN_UP, ATTN_UP, RESNET_UP],
                "layers_per_block": 1, "attention_head_dim": 8, "attn_norm_num_groups": 2, "norm_num_groups": 4, "downsample_type": "resnet",
                "upsample_type": "resnet", "resnet_time_scale_shift": "scale_shift", "num_class_embeds": 7}},
    {"name": "a class as a timestep, no norm in the middle's attention", "height": 4, "width": 4, "labels": [1, 500],
     "config": {"block_out_channels": [8, 8], "down_block_types": [RESNET_DOWN, ATTN_DOWN], "up_block_types": [UP, RESNET_UP], "layers_per_block": 1,
                "attention_head_dim": 4, "norm_num_groups": 4, "resnet_time_scale_shift": "scale_shift", "class_embed_type": "timestep"}},
    {"name": "no attention in the middle, one level", "height": 3, "width": 5,
     "config": {"block_out_channels": [8], "down_block_types": [DOWN], "up_block_types": [UP], "layers_per_block": 1, "norm_num_groups": 2,
                "add_attention": False}},
    {"name": "no middle", "height": 4, "width": 2,
     "config": {"block_out_channels": [8, 8], "down_block_types": [DOWN, DOWN], "up_block_types": [UP, UP], "layers_per_block": 1, "norm_num_groups": 2,
                "mid_block_type": None}},
    {"name": "ncsn++: filters, a picture beside the image, Fourier features", "height": 8, "width": 8, "timestep": [0.01, 37.5],
     "config": {"block_out_channels": [32, 32, 32], "down_block_types": [SKIP_DOWN, ATTN_SKIP_DOWN, SKIP_DOWN],
                "up_block_types": [SKIP_UP, ATTN_SKIP_UP, SKIP_UP], "layers_per_block": 1, "attention_head_dim": None, "norm_num_groups": None,
                "norm_eps": 1e-6, "time_embedding_type": "fourier", "mid_block_scale_factor": 1.41421356237}},
]
DITS = [
    {"name": "dit: a learned sigma", "side": 8, "labels": [4, 10],
     "config": {"num_attention_heads": 2, "attention_head_dim": 8, "out_channels": 8, "num_layers": 2, "sample_size": 8, "num_embeds_ada_norm": 10}},
    {"name": "dit: another size than the training's, other patches, no attention bias, affine norms, gelu", "side": 9, "labels": [0, 3],
     "config": {"num_attention_heads": 1, "attention_head_dim": 12, "in_channels": 3, "num_layers": 1, "sample_size": 6, "patch_size": 3,
                "num_embeds_ada_norm": 3, "attention_bias": False, "norm_elementwise_affine": True, "norm_eps": 1e-4, "activation_fn": "gelu"}},
    {"name": "dit: a large grid of an older class", "side": 4, "labels": [1, 2], "class": "Transformer2DModel",
     "config": {"num_attention_heads": 2, "attention_head_dim": 4, "num_layers": 1, "sample_size": 128, "num_embeds_ada_norm": 5,
                "norm_type": "ada_norm_zero"}},
]


def unet_case(spec):
    config, name = spec["config"], spec["name"]
    model = fill(UNet2DModel(**config)).eval()
    sample = tensor(f"{name}:sample", 2, spec["height"], spec["width"], config.get("in_channels", 3))
    timestep = torch.tensor(spec.get("timestep", [3.0, 902.25]))

    def run(model, dtype):
        labels = None
        if "labels" in spec:
            labels = torch.tensor(spec["labels"])
        return model(sample.to(dtype).permute(0, 3, 1, 2), timestep.to(dtype), class_labels=labels).sample.permute(0, 2, 3, 1)

    rounded = run(model, torch.float32)
    with exact():
        precise = run(copy.deepcopy(model).double(), torch.float64)
    case = {"name": name, "model": "UNet2DModel", "config": {"_class_name": "UNet2DModel", **config}, "sample": list(sample.shape),
            "timestep": timestep.double().tolist(), "outputs": {"sample": output(precise, rounded)}}
    if "labels" in spec:
        case["class_labels"] = spec["labels"]
    return case


def dit_case(spec):
    config, name = spec["config"], spec["name"]
    model = fill(DiTTransformer2DModel(**config)).eval()
    sample = tensor(f"{name}:sample", 2, spec["side"], spec["side"], config.get("in_channels", 4))
    timestep, labels = torch.tensor([3.0, 902.25]), torch.tensor(spec["labels"])

    def run(model, dtype):
        return model(sample.to(dtype).permute(0, 3, 1, 2), timestep.to(dtype), labels).sample.permute(0, 2, 3, 1)

    rounded = run(model, torch.float32)
    with exact():
        precise = run(copy.deepcopy(model).double(), torch.float64)
    return {"name": name, "model": "DiTTransformer2DModel", "config": {"_class_name": spec.get("class", "DiTTransformer2DModel"), **config},
            "sample": list(sample.shape), "timestep": timestep.tolist(), "class_labels": spec["labels"],
            "outputs": {"sample": output(precise, rounded)}}


def output(precise, rounded):
    return {"shape": list(precise.shape), "f32_error": f32_error(precise, rounded), "data": precise.flatten().tolist()}


def write(file, cases):
    lines = ",\n".join(json.dumps(case) for case in cases)
    Path(__file__).parent.joinpath("models", file).write_text(f"[\n{lines}\n]\n")
    for case in cases:
        print(case["model"], case["name"], {k: (v["shape"], f"{v['f32_error']:.1e}") for k, v in case["outputs"].items()})


def main():
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    Path(__file__).parent.joinpath("models").mkdir(exist_ok=True)
    write("unet_2d.json", [unet_case(spec) for spec in UNETS])
    write("dit.json", [dit_case(spec) for spec in DITS])


if __name__ == "__main__":
    main()
