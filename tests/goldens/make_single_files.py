"""Names of single files (latent diffusion's layout), from rules of their own, each part checked by converting it back with diffusers'
own loader.

    python make_single_files.py

single_files/{stable_diffusion,stable_diffusion_xl}.json: for each tensor of a single file made of the tiny pipeline of that name, the
part and the tensors it is made of, and how. single_files/{sd1,sd2,sdxl,sdxl_refiner,x4_upscaler}.json: names and shapes of the published checkpoints (a name is
written as how many letters it shares with the one before, and the rest), and configurations that a reader should find.
"""

import json
import re
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils as theirs
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

HERE = Path(__file__).resolve().parent
RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0", "conv2": "out_layers.3",
          "conv_shortcut": "skip_connection"}
TOP = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
       "add_embedding.linear_2": "label_emb.0.2", "class_embedding": "label_emb", "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def rest_of(rest, names):
    start = next(name for name in names if rest == name or rest.startswith(name + "."))
    return names[start] + rest[len(start):]


def unet_name(name, config):
    step = config["layers_per_block"] + 1
    if m := re.match(r"down_blocks\.(\d+)\.(resnets|attentions|downsamplers)\.(\d+)\.(.*)", name):
        block, kind, layer, rest = int(m[1]), m[2], int(m[3]), m[4]
        if kind == "downsamplers":
            return f"input_blocks.{step * (block + 1)}.0.op{rest.removeprefix('conv')}"
        place = f"input_blocks.{step * block + layer + 1}"
        return f"{place}.0.{rest_of(rest, RESNET)}" if kind == "resnets" else f"{place}.1.{rest}"
    if m := re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", name):
        return f"middle_block.{2 * int(m[2])}.{rest_of(m[3], RESNET)}" if m[1] == "resnets" else f"middle_block.1.{m[3]}"
    if m := re.match(r"up_blocks\.(\d+)\.(resnets|attentions|upsamplers)\.(\d+)\.(.*)", name):
        block, kind, layer, rest = int(m[1]), m[2], int(m[3]), m[4]
        if kind == "upsamplers":
            beside = 2 if config["up_block_types"][block].startswith("CrossAttn") else 1
            return f"output_blocks.{step * block + step - 1}.{beside}.{rest}"
        place = f"output_blocks.{step * block + layer}"
        return f"{place}.0.{rest_of(rest, RESNET)}" if kind == "resnets" else f"{place}.1.{rest}"
    return rest_of(name, TOP)


def vae_name(name, levels):
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = re.sub(r"mid_block\.attentions\.0\.(.*)", lambda m: "mid.attn_1." + rest_of(m[1], ATTENTION), name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", name)
    name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
    return re.sub(r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", name)


def open_clip(names):
    """(name, sources, how) of OpenCLIP's layout."""
    for name in names:
        plain = name.removeprefix("text_model.")
        if m := re.match(r"encoder\.layers\.(\d+)\.(.*)", plain):
            place, rest = f"transformer.resblocks.{m[1]}.", m[2]
            if q := re.match(r"self_attn\.q_proj\.(weight|bias)", rest):
                yield f"{place}attn.in_proj_{q[1]}", [name.replace("q_proj", f"{x}_proj") for x in "qkv"], "stacked"
            elif not re.match(r"self_attn\.[kv]_proj", rest):
                for ours, others in (("layer_norm", "ln_"), ("self_attn", "attn"), ("fc1", "c_fc"), ("fc2", "c_proj")):
                    rest = rest.replace(ours, others)
                yield place + rest, [name], ""
        else:
            how = "transposed" if plain == "text_projection.weight" else ""
            yield {"embeddings.token_embedding.weight": "token_embedding.weight", "embeddings.position_embedding.weight": "positional_embedding",
                   "final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias",
                   "text_projection.weight": "text_projection"}[plain], [name], how


def layout(parts, configs):
    """All tensors of the single file: name -> (part, sources, how)."""
    out = {}
    xl = "text_encoder_2" in parts
    for part, tensors in parts.items():
        config = configs[part]
        if part == "unet":
            out |= {"model.diffusion_model." + unet_name(name, config): (part, [name], "") for name in tensors}
        elif part == "vae":
            for name, tensor in tensors.items():
                pointwise = ".attentions." in name and name.endswith(".weight") and tensor.dim() == 2
                out["first_stage_model." + vae_name(name, len(config["block_out_channels"]))] = (part, [name], "pointwise" if pointwise else "")
        elif config["hidden_act"] == "gelu":
            prefix = f"conditioner.embedders.{int('text_encoder' in parts)}.model." if xl else "cond_stage_model.model."
            out |= {prefix + name: (part, sources, how) for name, sources, how in open_clip(tensors)}
        else:
            prefix = "conditioner.embedders.0.transformer." if xl else "cond_stage_model.transformer."
            out |= {f"{prefix}text_model.{name.removeprefix('text_model.')}": (part, [name], "") for name in tensors}
    return out


def build(parts, listed):
    out = {}
    for name, (part, sources, how) in listed.items():
        tensors = [parts[part][source] for source in sources]
        tensor = torch.cat(tensors) if how == "stacked" else tensors[0]
        out[name] = {"pointwise": lambda: tensor[:, :, None, None], "transposed": lambda: tensor.T}.get(how, lambda: tensor)().contiguous()
    return out


def check(single, parts, configs):
    """diffusers' own loader must find every part again."""
    xl = "text_encoder_2" in parts
    for part, tensors in parts.items():
        if part == "unet":
            back = theirs.convert_ldm_unet_checkpoint(dict(single), configs[part])
        elif part == "vae":
            back = theirs.convert_ldm_vae_checkpoint(dict(single), configs[part])
        elif configs[part]["hidden_act"] == "gelu":
            prefix = f"conditioner.embedders.{int('text_encoder' in parts)}.model." if xl else "cond_stage_model.model."
            shown = type("model", (), {"config": type("config", (), {"hidden_size": configs[part]["hidden_size"]})})
            back = theirs.convert_open_clip_checkpoint(shown, dict(single), prefix=prefix)
        else:
            back = theirs.convert_ldm_clip_checkpoint(dict(single))
        plain = lambda found: {name.removeprefix("text_model."): tensor for name, tensor in found.items()}
        back, tensors = plain(back), plain(tensors)
        assert back.keys() == tensors.keys(), (part, back.keys() ^ tensors.keys())
        for name, tensor in tensors.items():
            assert back[name].shape == tensor.shape, (part, name)
            assert tensor.is_meta or torch.equal(back[name], tensor), (part, name)


def tiny(name):
    folder = HERE / "pipelines" / name
    parts, configs = {}, {}
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if (folder / part).exists():
            parts[part] = load_file(next((folder / part).glob("*.safetensors")))
            configs[part] = json.loads((folder / part / "config.json").read_text())
    listed = layout(parts, configs)
    check(build(parts, listed), parts, configs)
    lines = [json.dumps([name, *source], separators=(",", ":")) for name, source in sorted(listed.items())]
    (HERE / "single_files" / f"{name}.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


UNET = {"sample_size": 64, "cross_attention_dim": 768}
CROSS = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
VAE = {"block_out_channels": (128, 256, 512, 512), "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
       "layers_per_block": 2, "latent_channels": 4, "sample_size": 512}
CLIP_L = {"vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
          "max_position_embeddings": 77, "hidden_act": "quick_gelu", "projection_dim": 768}
PUBLISHED = {
    "sd1": {"unet": UNET, "vae": VAE, "text_encoder": CLIP_L},
    "sd2": {"unet": {**UNET, "cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}, "vae": VAE,
            "text_encoder": {**CLIP_L, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16,
                             "hidden_act": "gelu", "projection_dim": 1024}},
    "sdxl": {
        "unet": {"sample_size": 128, "cross_attention_dim": 2048, "block_out_channels": (320, 640, 1280), "attention_head_dim": (5, 10, 20),
                 "down_block_types": ("DownBlock2D", CROSS[0], CROSS[0]), "up_block_types": (CROSS[1], CROSS[1], "UpBlock2D"),
                 "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True, "addition_embed_type": "text_time",
                 "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816},
        "vae": {**VAE, "sample_size": 1024, "scaling_factor": 0.13025}, "text_encoder": CLIP_L,
        "text_encoder_2": {**CLIP_L, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
                           "hidden_act": "gelu", "projection_dim": 1280}},
}
XL = PUBLISHED["sdxl"]
PUBLISHED["sdxl_refiner"] = {
    "unet": {**XL["unet"], "cross_attention_dim": 1280, "block_out_channels": (384, 768, 1536, 1536), "attention_head_dim": (6, 12, 24, 24),
             "down_block_types": ("DownBlock2D", CROSS[0], CROSS[0], "DownBlock2D"), "transformer_layers_per_block": 4,
             "up_block_types": ("UpBlock2D", CROSS[1], CROSS[1], "UpBlock2D"), "projection_class_embeddings_input_dim": 2560},
    "vae": XL["vae"], "text_encoder_2": XL["text_encoder_2"],
}
# configs/stable-diffusion/x4-upscaling.yaml of Stability AI's repository.
PUBLISHED["x4_upscaler"] = {
    "unet": {**PUBLISHED["sd2"]["unet"], "sample_size": 128, "in_channels": 7, "attention_head_dim": 8, "block_out_channels": (256, 512, 512, 1024),
             "down_block_types": ("DownBlock2D", CROSS[0], CROSS[0], CROSS[0]), "up_block_types": (CROSS[1], CROSS[1], CROSS[1], "UpBlock2D"),
             "num_class_embeds": 1000, "only_cross_attention": (True, True, True, False)},
    "vae": {**VAE, "block_out_channels": (128, 256, 512), "down_block_types": VAE["down_block_types"][1:],
            "up_block_types": VAE["up_block_types"][1:], "sample_size": 256, "scaling_factor": 0.08333},
    "text_encoder": PUBLISHED["sd2"]["text_encoder"],
}


def published(family):
    parts, configs = {}, {}
    with torch.device("meta"):
        for part, fields in PUBLISHED[family].items():
            if part == "unet":
                model = UNet2DConditionModel(**fields)
            elif part == "vae":
                model = AutoencoderKL(**fields)
            else:
                model = (CLIPTextModelWithProjection if part == "text_encoder_2" else CLIPTextModel)(CLIPTextConfig(**fields))
            parts[part] = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("position_ids")}
            configs[part] = json.loads(json.dumps(dict(model.config if part in ("unet", "vae") else fields)))
    single = build(parts, layout(parts, configs))
    check(single, parts, configs)
    lines, before = [], ""
    for name, tensor in sorted(single.items()):
        shared = next((i for i, (a, b) in enumerate(zip(name, before)) if a != b), min(len(name), len(before)))
        lines.append(json.dumps([shared, name[shared:], *tensor.shape], separators=(",", ":")))
        before = name
    tensors = "[\n" + ",\n".join(lines) + "\n]"
    print(family, {part: len(tensors) for part, tensors in parts.items()}, len(single))
    (HERE / "single_files" / f"{family}.json").write_text(f'{{"configs": {json.dumps(configs)},\n"tensors": {tensors}}}\n')


def main():
    torch.set_num_threads(1)
    (HERE / "single_files").mkdir(exist_ok=True)
    for name in ("stable_diffusion", "stable_diffusion_xl"):
        tiny(name)
    for family in PUBLISHED:
        published(family)


if __name__ == "__main__":
    main()
