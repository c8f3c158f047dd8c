"""What every block of full-size models gives, in f64, with the errors of PyTorch's f32 and f16: full_size/NAME.json.

    pip install -r requirements.txt && python make_full_size.py [NAME...]

Weights and inputs are drawn from their names (synthetic.py), so none are stored. A layer's weights exist only while it runs, so that even
SDXL's UNet fits in f64; of each block a few elements are kept, at places drawn from its name.
"""

import json
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel
from transformers import CLIPTextConfig, CLIPTextModel

from precise import exact
from synthetic import signed, tensor, weight

CROSS_DOWN, DOWN, CROSS_UP, UP = "CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"
SAMPLES = 24

# Configurations as published, images small.
MODELS = {
    "sd15_unet": {
        "model": UNet2DConditionModel, "inputs": {"sample": (1, 8, 8, 4), "encoder_hidden_states": (1, 77, 768)}, "timestep": 321,
        "config": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280],
                   "down_block_types": [CROSS_DOWN] * 3 + [DOWN], "up_block_types": [UP] + [CROSS_UP] * 3, "layers_per_block": 2}},
    "sd15_vae": {
        "model": AutoencoderKL, "inputs": {"latents": (1, 6, 4, 4)},
        "config": {"block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4,
                   "up_block_types": ["UpDecoderBlock2D"] * 4, "latent_channels": 4, "layers_per_block": 2, "sample_size": 512}},
    "sd15_vae_encoder": {
        "model": AutoencoderKL, "inputs": {"image": (1, 32, 48, 3)},
        "config": {"block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4,
                   "up_block_types": ["UpDecoderBlock2D"] * 4, "latent_channels": 4, "layers_per_block": 2, "sample_size": 512}},
    # OpenAI's consistency model of ImageNet at 64x64
    "imagenet64_unet": {
        "model": UNet2DModel, "inputs": {"sample": (1, 16, 16, 3)}, "timestep": 250, "class_labels": [207],
        "config": {"sample_size": 64, "block_out_channels": [192, 384, 576, 768], "layers_per_block": 3, "attention_head_dim": 64,
                   "down_block_types": ["ResnetDownsampleBlock2D"] + ["AttnDownBlock2D"] * 3,
                   "up_block_types": ["AttnUpBlock2D"] * 3 + ["ResnetUpsampleBlock2D"], "downsample_type": "resnet", "upsample_type": "resnet",
                   "resnet_time_scale_shift": "scale_shift", "num_class_embeds": 1000, "attn_norm_num_groups": 32, "freq_shift": 0}},
    "sd15_text_encoder": {
        "model": CLIPTextModel, "inputs": {}, "ids": [49406, 320, 736, 3290, 525, 320, 2442, 49407, 49407],
        "config": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "vocab_size": 49408,
                   "max_position_embeddings": 77, "hidden_act": "quick_gelu", "bos_token_id": 49406, "eos_token_id": 49407,
                   "projection_dim": 768, "layer_norm_eps": 1e-5}},
    "sdxl_unet": {
        "model": UNet2DConditionModel, "timestep": 321, "time_ids": [1024, 768, 0, 64, 1024, 1024],
        "inputs": {"sample": (1, 8, 8, 4), "encoder_hidden_states": (1, 77, 2048), "text_embeds": (1, 1280)},
        "config": {"sample_size": 128, "cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20], "block_out_channels": [320, 640, 1280],
                   "down_block_types": [DOWN, CROSS_DOWN, CROSS_DOWN], "up_block_types": [CROSS_UP, CROSS_UP, UP], "layers_per_block": 2,
                   "transformer_layers_per_block": [1, 2, 10], "use_linear_projection": True, "addition_embed_type": "text_time",
                   "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816}},
}


def is_block(name):
    """Whether a module's result is compared."""
    parent, _, last = name.rpartition(".")
    return last.isdigit() and parent.split(".")[-1] in ("resnets", "attentions", "downsamplers", "upsamplers", "layers")


def stream(model, dtype):
    """Draws a layer's weights before it runs and drops them after."""

    def draw(prefix):
        def before(module, _):
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    full = f"{prefix}.{name}".removeprefix("text_model.")
                    module._parameters[name] = torch.nn.Parameter(weight(full, tuple(parameter.shape)).to(dtype), requires_grad=False)

        return before

    def drop(module, *_):
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = torch.nn.Parameter(parameter.to("meta"), requires_grad=False)

    for name, module in model.named_modules():
        if any(parameter is not None for parameter in module._parameters.values()):
            module.register_forward_pre_hook(draw(name))
            module.register_forward_hook(drop)


def nhwc(value):
    value = value[0] if isinstance(value, tuple) else getattr(value, "sample", value)
    return value.permute(0, 2, 3, 1) if value.ndim == 4 else value


def build(spec):
    with torch.device("meta"):
        if spec["model"] is CLIPTextModel:
            return CLIPTextModel(CLIPTextConfig(**spec["config"]))
        return spec["model"](**spec["config"])


def run(name, spec, dtype):
    model = build(spec).to(dtype).eval()
    for buffer, value in list(model.named_buffers()):
        if buffer.endswith("position_ids"):
            model.get_submodule(buffer.rpartition(".")[0]).position_ids = torch.arange(value.shape[-1])[None]
    stream(model, dtype)
    results = {}
    for path, module in model.named_modules():
        if is_block(path):
            key = path.removeprefix("text_model.")
            module.register_forward_hook(lambda _, __, value, key=key: results.__setitem__(key, nhwc(value).double()))
    inputs = {key: tensor(f"{name}:{key}", *shape).to(dtype) for key, shape in spec["inputs"].items()}
    if spec["model"] is CLIPTextModel:
        results["output"] = model(torch.tensor([spec["ids"]])).last_hidden_state.double()
    elif "image" in inputs:
        results["output"] = nhwc(model.encode(inputs["image"].permute(0, 3, 1, 2)).latent_dist.parameters).double()
    elif spec["model"] is AutoencoderKL:
        latents = inputs["latents"].permute(0, 3, 1, 2) / model.config.scaling_factor
        results["output"] = nhwc(model.decode(latents)).double()
    elif spec["model"] is UNet2DModel:
        results["output"] = nhwc(model(inputs["sample"].permute(0, 3, 1, 2), torch.tensor([spec["timestep"]], dtype=dtype),
                                       torch.tensor(spec["class_labels"]))).double()
    else:
        added = None
        if "text_embeds" in inputs:
            added = {"text_embeds": inputs["text_embeds"], "time_ids": torch.tensor([spec["time_ids"]], dtype=dtype)}
        results["output"] = nhwc(model(inputs["sample"].permute(0, 3, 1, 2), torch.tensor([spec["timestep"]], dtype=dtype),
                                       inputs["encoder_hidden_states"], added_cond_kwargs=added)).double()
    return results


def make(name, spec):
    with exact():
        precise = run(name, spec, torch.float64)
    single, half = run(name, spec, torch.float32), run(name, spec, torch.float16)
    blocks = []
    for path, value in precise.items():
        largest, count = float(value.abs().max()), value.numel()
        places = ((signed(f"{name}:{path}", SAMPLES) + 1) / 2 * count).astype(int)
        error = lambda other: float((other[path] - value).abs().max()) / largest
        blocks.append({"path": path, "shape": list(value.shape), "largest": largest, "f32_error": error(single), "f16_error": error(half),
                       "samples": value.flatten()[places].tolist()})
    case = {"name": name, "model": spec["model"].__name__, "config": {**spec["config"]}, "inputs": spec["inputs"], "blocks": blocks}
    if spec["model"] is CLIPTextModel:
        case["config"]["model_type"] = "clip_text_model"
    else:
        case["config"]["_class_name"] = spec["model"].__name__
    case.update({key: spec[key] for key in ("timestep", "ids", "time_ids", "class_labels") if key in spec})
    print(name, len(blocks), "blocks; largest", blocks[-1]["largest"], "f32", blocks[-1]["f32_error"], "f16", blocks[-1]["f16_error"], flush=True)
    path = Path(__file__).with_name("full_size") / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    head = json.dumps({key: value for key, value in case.items() if key != "blocks"})
    lines = ",\n".join(json.dumps(block) for block in blocks)
    path.write_text(f'{head[:-1]}, "blocks": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    for name in sys.argv[1:] or MODELS:
        make(name, MODELS[name])
