"""Random adapters for the tiny latent pipelines, in every spelling, and the pictures that diffusers' pipelines make with them:
loras/*.safetensors and loras/cases.json.

    python make_loras.py

diffusers adds adapters through PEFT, which requirements.txt leaves out: the products are added here, in f64, to the modules that each
adapter is made for, and names are then spelled as the programs do that write such files.
"""

import json
import zlib
from pathlib import Path

import diffusers
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from make_latents import PIPELINES, SAMPLERS, SIZE, draw
from make_pictures import NEGATIVE, PROMPT
from make_single_files import HERE, unet_name

OUT = HERE / "loras"
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


def peft(part, module, config):
    return f"{part}.{module}.lora_A.weight", f"{part}.{module}.lora_B.weight", None


def diffusers_new(part, module, config):
    return f"{part}.{module}.lora.down.weight", f"{part}.{module}.lora.up.weight", None


def diffusers_old(part, module, config):
    if part != "unet":
        head, _, last = module.rpartition(".")
        if last in ("fc1", "fc2"):
            return tuple(f"{part}.{module}.lora_linear_layer.{way}.weight" for way in ("down", "up")) + (None,)
        names = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}
        return tuple(f"{part}.{head}.{names[last]}_lora.{way}.weight" for way in ("down", "up")) + (None,)
    head, last = module.removesuffix(".0").rsplit(".", 1)
    return tuple(f"{part}.{head}.processor.{last}_lora.{way}.weight" for way in ("down", "up")) + (None,)


def kohya(part, module, config, ldm=False, single=True):
    prefix = {"unet": "lora_unet_", "text_encoder": "lora_te_" if single else "lora_te1_", "text_encoder_2": "lora_te2_"}[part]
    if part == "unet" and ldm:
        module = unet_name(module + ".weight", config).removesuffix(".weight")
    name = prefix + module.replace(".", "_")
    return f"{name}.lora_down.weight", f"{name}.lora_up.weight", f"{name}.alpha"


def kohya_xl(part, module, config):
    return kohya(part, module, config, ldm=True, single=False)


# file: pipeline, spelling, rank, which modules of (part, name, weight), metadata's alpha
LORAS = {
    "peft": ("stable_diffusion", peft, 2, lambda part, name: part in ("unet", "text_encoder") and name.endswith((*ATTENTION, *TEXT)), 3),
    "processor": ("stable_diffusion", diffusers_old, 1, lambda part, name: name.endswith((*ATTENTION, *TEXT)), None),
    "locon": ("stable_diffusion", kohya, 2, lambda part, name: part == "unet" and name.endswith(
        ("conv1", "conv_shortcut", "conv", "conv_in", "proj_in", "ff.net.2", "linear_1")), None),
    "xl-kohya": ("stable_diffusion_xl", kohya_xl, 2, lambda part, name: name.endswith(
        ("to_q", "to_out.0", "ff.net.0.proj", "conv2", "time_emb_proj", "proj_out", "linear_2", "conv", "conv_in", "v_proj", "fc1")), None),
    "xl-diffusers": ("stable_diffusion_xl", diffusers_new, 1, lambda part, name: name.endswith(("to_k", "to_v", "q_proj", "fc2")), None),
}
CASES = [("stable_diffusion", {"peft": 1.0}), ("stable_diffusion", {"processor": 0.7, "locon": 0.5}), ("stable_diffusion", {"peft": -0.5, "locon": 1.0}),
         ("stable_diffusion_xl", {"xl-kohya": 0.8}), ("stable_diffusion_xl", {"xl-kohya": 0.4, "xl-diffusers": 1.0})]


def modules(pipeline):
    for part in ("unet", "text_encoder", "text_encoder_2"):
        if model := getattr(pipeline, part, None):
            for name, module in model.named_modules():
                if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
                    yield part, name, module.weight


def make(file, pipeline):
    """The file, and what it adds: {(part, module): f64}."""
    _, spell, rank, wanted, alpha = LORAS[file]
    tensors, deltas = {}, {}
    for part, name, weight in modules(pipeline):
        if not wanted(part, name):
            continue
        generator = torch.Generator().manual_seed(zlib.crc32(f"{file} {part} {name}".encode()))
        draw = lambda *shape: torch.randn(shape, generator=generator)
        down = draw(rank, *weight.shape[1:]).half()
        # A fifth of the weight's own size.
        up = (draw(weight.shape[0], rank, *[1] * (weight.dim() - 2)) * 0.2 * weight.std() / rank ** 0.5).half()
        shown = name if part == "unet" or name.startswith("text_model.") or spell is diffusers_new else f"text_model.{name}"
        own = dict(pipeline.unet.config) if part == "unet" else None
        names = spell(part, shown, own)
        tensors[names[0]], tensors[names[1]] = down, up
        scale = 1.0 if alpha is None else alpha / rank
        if names[2]:
            tensors[names[2]] = torch.tensor(1.5).half()
            scale = 1.5 / rank
        product = up.double().flatten(1) @ down.double().flatten(1)
        deltas[part, name] = scale * product.reshape(weight.shape)
    metadata = None
    if alpha is not None:
        fields = {f"{part}.{field}": value for part in ("unet", "text_encoder") for field, value in (
            ("r", rank), ("lora_alpha", alpha), ("alpha_pattern", {}), ("use_dora", False), ("use_rslora", False))}
        metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(fields)}
    save_file(tensors, OUT / f"{file}.safetensors", metadata)
    return deltas


def load(name):
    kind = PIPELINES[name]["class"]
    more = {"add_watermarker": False} if name == "stable_diffusion_xl" else {"safety_checker": None}
    pipeline = kind.from_pretrained(HERE / "pipelines" / name, torch_dtype=torch.float64, **more)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    OUT.mkdir(exist_ok=True)
    deltas = {file: make(file, load(spec[0])) for file, spec in LORAS.items()}
    listed = []
    for number, (name, loras) in enumerate(CASES):
        pipeline = load(name)
        case = {"sampler": "euler", "prompt": PROMPT, "negative_prompt": NEGATIVE, "seed": 20 + number, "steps": 4, "height": SIZE, "width": SIZE,
                "guidance_scale": 2.0}
        pipeline.scheduler = getattr(diffusers, SAMPLERS["euler"]).from_config(pipeline.scheduler.config)
        plain, _ = draw(pipeline, case, torch.float64)
        for file, strength in loras.items():
            for (part, module), delta in deltas[file].items():
                getattr(pipeline, part).get_submodule(module).weight += strength * delta
        precise, _ = draw(pipeline, case, torch.float64)
        picture, timesteps = draw(pipeline, case, torch.float32)
        rounding = int(np.abs(picture.astype(int) - precise).max())
        changed = np.abs(picture.astype(int) - plain).mean()
        assert rounding <= 1 and changed > 4, (loras, rounding, changed)
        file = f"{'+'.join(loras)}.png"
        Image.fromarray(picture).save(OUT / file, optimize=True)
        saturated = float(np.isin(picture, [0, 255]).mean())
        print(f"{file:28} f64 differs by {rounding}, changed by {changed:.0f}, {saturated:.0%} saturated, spread {picture.std():.0f}")
        listed.append({"pipeline": name, "loras": loras, "file": file, **case, "timesteps": timesteps})
    (OUT / "cases.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in listed) + "\n]\n")


if __name__ == "__main__":
    main()
