"""Outputs of small models of every architecture, in f64, with the error that PyTorch's f32 has: models.json.

    pip install -r requirements.txt && python make_models.py

Weights and inputs are drawn from their names (synthetic.py), so none are stored.
"""

import copy
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, PixArtTransformer2DModel, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

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
# Prompts that end at once, in the middle and at the last place; the last case's end mark is the largest id.
PROJECTED = [
    {"name": "projection", "config": {"projection_dim": 10}, "ids": [[48, 3, 17, 49, 0, 0, 0], [48, 49, 49, 49, 49, 49, 49], [48, 5, 6, 7, 8, 9, 49]]},
    {"name": "projection, gelu, one layer", "config": {"projection_dim": 31, "hidden_act": "gelu", "num_hidden_layers": 1},
     "ids": [[48, 2, 49, 0, 0]]},
    {"name": "projection, end mark 2", "config": {"projection_dim": 24, "eos_token_id": 2}, "ids": [[48, 2, 17, 49, 49, 0]]},
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

CROSS_DOWN, DOWN, CROSS_UP, UP = "CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"
UNET = {"norm_num_groups": 4, "cross_attention_dim": 10}
UNETS = [
    {"name": "three levels, one-pixel convolutions around attention", "height": 8, "width": 12,
     "config": {"block_out_channels": [8, 12, 16], "down_block_types": [CROSS_DOWN, CROSS_DOWN, DOWN], "up_block_types": [UP, CROSS_UP, CROSS_UP],
                "attention_head_dim": 2}},
    {"name": "matrices around attention, heads for each level, an odd side", "height": 6, "width": 2,
     "config": {"block_out_channels": [8, 16], "down_block_types": [CROSS_DOWN, DOWN], "up_block_types": [UP, CROSS_UP], "layers_per_block": 1,
                "attention_head_dim": [1, 4], "use_linear_projection": True, "upcast_attention": True}},
    {"name": "pooled text and sizes, several transformer layers", "height": 4, "width": 8,
     "config": {"block_out_channels": [8, 16], "down_block_types": [DOWN, CROSS_DOWN], "up_block_types": [CROSS_UP, UP], "layers_per_block": 2,
                "attention_head_dim": [2, 4], "transformer_layers_per_block": [1, 2], "use_linear_projection": True,
                "addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 30}},
    {"name": "guidance embedding, more channels in than out, other paddings and layers", "height": 8, "width": 4,
     "config": {"in_channels": 9, "block_out_channels": [8, 8], "down_block_types": [CROSS_DOWN, CROSS_DOWN], "up_block_types": [CROSS_UP, CROSS_UP],
                "layers_per_block": [1, 2], "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-4,
                "time_cond_proj_dim": 6}},
    {"name": "sides that are halved with a rest", "height": 5, "width": 7,
     "config": {"block_out_channels": [8, 12, 16], "down_block_types": [CROSS_DOWN, DOWN, DOWN], "up_block_types": [UP, UP, CROSS_UP],
                "layers_per_block": 1, "attention_head_dim": 2}},
    {"name": "a table of classes, more channels in than out", "height": 4, "width": 6, "class_labels": [41, 3],
     "config": {"in_channels": 7, "block_out_channels": [8, 8], "down_block_types": [DOWN, CROSS_DOWN], "up_block_types": [CROSS_UP, UP],
                "layers_per_block": 1, "attention_head_dim": 2, "num_class_embeds": 42}},
    {"name": "classes embedded as timesteps are", "height": 2, "width": 4, "class_labels": [7.5, 900],
     "config": {"block_out_channels": [8, 8], "down_block_types": [DOWN, CROSS_DOWN], "up_block_types": [CROSS_UP, UP],
                "layers_per_block": 1, "attention_head_dim": 2, "class_embed_type": "timestep"}},
    {"name": "attention to the text alone at one level, whose middle has its own", "height": 4, "width": 6,
     "config": {"block_out_channels": [8, 8], "down_block_types": [CROSS_DOWN, CROSS_DOWN], "up_block_types": [CROSS_UP, CROSS_UP],
                "layers_per_block": 1, "attention_head_dim": 2, "only_cross_attention": [False, True]}},
    {"name": "a depth for each transformer, a middle without attention", "height": 4, "width": 6,
     "config": {"block_out_channels": [8, 8], "down_block_types": [DOWN, CROSS_DOWN], "up_block_types": [CROSS_UP, UP],
                "attention_head_dim": 2, "mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": [1, [2, 1]],
                "reverse_transformer_layers_per_block": [[1, 1, 2], 1]}},
    {"name": "five numbers about the picture, no middle", "height": 4, "width": 6, "time_ids": 5,
     "config": {"block_out_channels": [8, 8], "down_block_types": [DOWN, CROSS_DOWN], "up_block_types": [CROSS_UP, UP], "layers_per_block": 1,
                "attention_head_dim": 2, "mid_block_type": None, "addition_embed_type": "text_time", "addition_time_embed_dim": 4,
                "projection_class_embeddings_input_dim": 26}},
]
KL = {"norm_num_groups": 4, "latent_channels": 4}
KLS = [
    {"name": "three levels", "height": 3, "width": 4,
     "config": {"block_out_channels": [4, 8, 8], "layers_per_block": 1, "scaling_factor": 0.25}},
    {"name": "no attention, no one-pixel convolution, a shift", "height": 2, "width": 5,
     "config": {"block_out_channels": [8, 8], "layers_per_block": 2, "mid_block_add_attention": False, "use_post_quant_conv": False,
                "latent_channels": 6, "scaling_factor": 0.5, "shift_factor": 0.1, "out_channels": 4}},
    {"name": "one level", "height": 3, "width": 2, "config": {"block_out_channels": [12], "layers_per_block": 1}},
    {"name": "a mean and a deviation for each channel", "height": 3, "width": 2,
     "config": {"block_out_channels": [8], "layers_per_block": 1, "scaling_factor": 0.5, "latents_mean": [-1.6574, 1.886, -1.383, 2.5155],
                "latents_std": [8.4927, 5.9022, 6.5498, 5.2299]}},
]
TINIES = [
    {"name": "tiny, three levels", "height": 3, "width": 4, "config": {"decoder_block_out_channels": [8] * 3, "num_decoder_blocks": [2, 1, 1]}},
    {"name": "tiny, a scale, other channels", "height": 2, "width": 5,
     "config": {"decoder_block_out_channels": [6] * 2, "num_decoder_blocks": [1, 0], "latent_channels": 7, "scaling_factor": 0.25, "out_channels": 4}},
    {"name": "tiny, one level", "height": 3, "width": 2, "config": {"decoder_block_out_channels": [12], "num_decoder_blocks": [2]}},
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


def projected_case(spec):
    config = {**CLIP, **spec["config"]}
    model = fill(CLIPTextModelWithProjection(CLIPTextConfig(**config, attn_implementation="sdpa"))).eval()
    ids = torch.tensor(spec["ids"])

    def run(model):
        out = model(input_ids=ids, output_hidden_states=True)
        return {"hidden_states": out.hidden_states[-2], "text_embeds": out.text_embeds}

    precise, rounded = run(copy.deepcopy(model).double()), run(model)
    return {
        "name": spec["name"], "model": "CLIPTextModelWithProjection", "config": {**json.loads(model.config.to_json_string()), **spec["config"]},
        "input_ids": spec["ids"],
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


def unet_case(spec):
    config = {**UNET, **spec["config"]}
    model = fill(UNet2DConditionModel(**config)).eval()
    name, batch, tokens = spec["name"], 2, 5
    channels = config.get("in_channels", 4)
    inputs = {
        "sample": tensor(f"{name}:sample", batch, spec["height"], spec["width"], channels),
        "encoder_hidden_states": tensor(f"{name}:encoder_hidden_states", batch, tokens, config["cross_attention_dim"]),
    }
    if "time_cond_proj_dim" in config:
        inputs["timestep_cond"] = tensor(f"{name}:timestep_cond", batch, config["time_cond_proj_dim"])
    if "addition_embed_type" in config:
        pooled = config["projection_class_embeddings_input_dim"] - spec.get("time_ids", 6) * config["addition_time_embed_dim"]
        inputs["text_embeds"] = tensor(f"{name}:text_embeds", batch, pooled)
    timestep, time_ids = torch.tensor([3.0, 902.25]), torch.tensor([[512.0, 256, 0, 16, 512, 512], [1024, 768, 8, 0, 1024, 1024]])
    time_ids = time_ids[:, :spec.get("time_ids", 6)]

    def run(model, dtype):
        cast = {k: v.to(dtype) for k, v in inputs.items()}
        labels = spec.get("class_labels")
        if labels:
            labels = torch.tensor(labels) if "num_class_embeds" in config else torch.tensor(labels, dtype=dtype)
        added = {"text_embeds": cast["text_embeds"], "time_ids": time_ids.to(dtype)} if "text_embeds" in cast else None
        out = model(cast["sample"].permute(0, 3, 1, 2), timestep.to(dtype), cast["encoder_hidden_states"],
                    timestep_cond=cast.get("timestep_cond"), added_cond_kwargs=added, class_labels=labels).sample
        return out.permute(0, 2, 3, 1)

    rounded = run(model, torch.float32)
    with exact():
        precise = run(copy.deepcopy(model).double(), torch.float64)
    case = {"name": name, "model": "UNet2DConditionModel", "config": {"_class_name": "UNet2DConditionModel", **config},
            "timestep": timestep.tolist(), **{k: list(v.shape) for k, v in inputs.items()},
            "outputs": {"sample": {"shape": list(precise.shape), "f32_error": f32_error(precise, rounded), "data": precise.flatten().tolist()}}}
    if "text_embeds" in inputs:
        case["time_ids"] = time_ids.tolist()
    if "class_labels" in spec:
        case["class_labels"] = spec["class_labels"]
    return case


def kl_case(spec):
    config = {**KL, **spec["config"]}
    levels = len(config["block_out_channels"])
    config = {"down_block_types": ["DownEncoderBlock2D"] * levels, "up_block_types": ["UpDecoderBlock2D"] * levels, **config}
    model = fill(AutoencoderKL(**config)).eval()
    latents = tensor(f"{spec['name']}:latents", 2, spec["height"], spec["width"], config["latent_channels"])

    def run(model, dtype):
        z = latents.to(dtype).permute(0, 3, 1, 2)
        if model.config.latents_mean is not None:  # as StableDiffusionXLPipeline
            mean, std = (torch.tensor(v).view(1, -1, 1, 1).to(dtype) for v in (model.config.latents_mean, model.config.latents_std))
            z = z * std / model.config.scaling_factor + mean
        else:
            z = z / model.config.scaling_factor + (model.config.shift_factor or 0.0)
        return model.decode(z).sample.permute(0, 2, 3, 1)

    precise, rounded = run(copy.deepcopy(model).double(), torch.float64), run(model, torch.float32)
    return {"name": spec["name"], "model": "AutoencoderKL", "config": {"_class_name": "AutoencoderKL", **config}, "latents": list(latents.shape),
            "outputs": {"image": {"shape": list(precise.shape), "f32_error": f32_error(precise, rounded), "data": precise.flatten().tolist()}}}


def tiny_case(spec):
    model = fill(AutoencoderTiny(**spec["config"], encoder_block_out_channels=[4], num_encoder_blocks=[1])).eval()
    latents = tensor(f"{spec['name']}:latents", 2, spec["height"], spec["width"], model.config.latent_channels)

    def run(model, dtype):
        return model.decode(latents.to(dtype).permute(0, 3, 1, 2) / model.config.scaling_factor).sample.permute(0, 2, 3, 1)

    precise, rounded = run(copy.deepcopy(model).double(), torch.float64), run(model, torch.float32)
    return {"name": spec["name"], "model": "AutoencoderTiny", "config": json.loads(model.to_json_string()), "latents": list(latents.shape),
            "outputs": {"image": {"shape": list(precise.shape), "f32_error": f32_error(precise, rounded), "data": precise.flatten().tolist()}}}


def main():
    torch.set_grad_enabled(False)
    cases = [make(spec) for make, specs in ((clip_case, CLIPS), (projected_case, PROJECTED), (pixart_case, PIXARTS), (unet_case, UNETS), (kl_case, KLS), (tiny_case, TINIES)) for spec in specs]
    lines = ",\n".join(json.dumps(case) for case in cases)
    Path(__file__).with_name("models.json").write_text(f"[\n{lines}\n]\n")
    for case in cases:
        print(case["model"], case["name"], {k: (v["shape"], f"{v['f32_error']:.1e}") for k, v in case["outputs"].items()})


if __name__ == "__main__":
    main()
