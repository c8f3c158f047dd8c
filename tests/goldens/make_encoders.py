"""What the encoders of small autoencoders make of pictures, in f64, with the error that PyTorch's f32 has: models/autoencoders.json.

    pip install -r requirements.txt && python make_encoders.py

Weights and pictures are drawn from their names (synthetic.py), so none are stored.
"""

import copy
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from precise import f32_error
from synthetic import fill, tensor

# Sides are not multiples of the factor's square, so that padding behind the picture only is seen on every level.
KLS = [
    {"name": "encoder, three levels", "height": 12, "width": 20,
     "config": {"block_out_channels": [4, 8, 8], "layers_per_block": 1, "norm_num_groups": 4, "latent_channels": 4}},
    {"name": "encoder, no attention, no one-pixel convolution, other channels", "height": 4, "width": 6,
     "config": {"block_out_channels": [8, 12], "layers_per_block": 2, "norm_num_groups": 4, "mid_block_add_attention": False,
                "use_quant_conv": False, "latent_channels": 6, "in_channels": 5}},
    {"name": "encoder, one level", "height": 3, "width": 2,
     "config": {"block_out_channels": [12], "layers_per_block": 1, "norm_num_groups": 3, "latent_channels": 2}},
]
TINIES = [
    {"name": "tiny encoder, three levels", "height": 12, "width": 20,
     "config": {"encoder_block_out_channels": [8] * 3, "num_encoder_blocks": [1, 2, 0]}},
    {"name": "tiny encoder, a scale, other channels", "height": 4, "width": 6,
     "config": {"encoder_block_out_channels": [6] * 2, "num_encoder_blocks": [0, 3], "latent_channels": 7, "scaling_factor": 0.25, "in_channels": 5}},
    {"name": "tiny encoder, one level", "height": 3, "width": 2, "config": {"encoder_block_out_channels": [12], "num_encoder_blocks": [2]}},
]


def golden(precise, rounded):
    precise, rounded = (v.permute(0, 2, 3, 1).contiguous() for v in (precise, rounded))
    return {"shape": list(precise.shape), "f32_error": f32_error(precise, rounded), "data": precise.flatten().tolist()}


def kl_case(spec):
    levels = len(spec["config"]["block_out_channels"])
    config = {"down_block_types": ["DownEncoderBlock2D"] * levels, "up_block_types": ["UpDecoderBlock2D"] * levels, **spec["config"]}
    model = fill(AutoencoderKL(**config)).eval()
    picture = tensor(f"{spec['name']}:picture", 2, spec["height"], spec["width"], model.config.in_channels)
    outputs = {}
    precise = copy.deepcopy(model).double().encode(picture.double().permute(0, 3, 1, 2)).latent_dist
    rounded = model.encode(picture.permute(0, 3, 1, 2)).latent_dist
    for name in ("mean", "logvar"):
        outputs[name] = golden(getattr(precise, name), getattr(rounded, name))
    return {"name": spec["name"], "model": "AutoencoderKL.encode", "config": {"_class_name": "AutoencoderKL", **config},
            "picture": list(picture.shape), "outputs": outputs}


def tiny_case(spec):
    levels = len(spec["config"]["num_encoder_blocks"])
    model = fill(AutoencoderTiny(**spec["config"], decoder_block_out_channels=[4] * levels, num_decoder_blocks=[0] * levels)).eval()
    picture = tensor(f"{spec['name']}:picture", 2, spec["height"], spec["width"], model.config.in_channels)

    def run(model, dtype):
        return model.encode(picture.to(dtype).permute(0, 3, 1, 2)).latents * model.config.scaling_factor

    return {"name": spec["name"], "model": "AutoencoderTiny.encode", "config": json.loads(model.to_json_string()),
            "picture": list(picture.shape), "outputs": {"latents": golden(run(copy.deepcopy(model).double(), torch.float64), run(model, torch.float32))}}


def main():
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    cases = [make(spec) for make, specs in ((kl_case, KLS), (tiny_case, TINIES)) for spec in specs]
    lines = ",\n".join(json.dumps(case) for case in cases)
    Path(__file__).with_name("models").mkdir(exist_ok=True)
    Path(__file__).with_name("models").joinpath("autoencoders.json").write_text(f"[\n{lines}\n]\n")
    for case in cases:
        print(case["name"], {k: (v["shape"], f"{v['f32_error']:.1e}", min(v["data"]), max(v["data"])) for k, v in case["outputs"].items()})


if __name__ == "__main__":
    main()
