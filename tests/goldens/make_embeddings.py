"""Random textual inversions for the tiny latent pipelines, in every form, and the pictures that diffusers makes with them:
embeddings/*.safetensors and embeddings/cases.json.

    python make_embeddings.py

diffusers' load_textual_inversion reads the first form; what the others hold is handed to it tensor by tensor.
"""

import json
import zlib

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from make_latents import HERE, NEGATIVE, SIZE, draw
from make_loras import load
from make_prompts import embedded

OUT = HERE / "embeddings"
# file: {tensor: shape}
FILES = {
    "toy": {"<toy>": (3, 24)},
    "one": {"<hue>": (24,)},
    "faded-look": {"emb_params": (2, 24)},
    "pair": {"clip_l": (2, 24), "clip_g": (2, 16)},
    "learned": {"<s>": (1, 24)},
    "learned_2": {"<s>": (2, 16)},
}
CASE = {"sampler": None, "negative_prompt": NEGATIVE, "steps": 4, "guidance_scale": 2.0, "height": SIZE, "width": SIZE}
TOY = ("<toy> <toy>_1 <toy>_2", 1.3)
CASES = [
    ("several-vectors", "stable_diffusion", {"toy": None}, {"prompt": "a <toy> square on a blue background"}),
    ("two-files", "stable_diffusion", {"one": None, "faded-look": None},
     {"prompt": "a red square on a <hue> background", "negative_prompt": "faded-look, blurry", "clip_skip": 1}),
    ("other-word", "stable_diffusion", {"toy": "wug"}, {"prompt": "a wug square and a red square", "negative_prompt": "wug_2, blurry"}),
    ("weighted", "latent_consistency", {"toy": None}, {
        "prompt": "a (<toy>:1.3) square on a blue background, a green square BREAK a <toy> square", "negative_prompt": "", "guidance_scale": 5.0,
        "pieces": [("a ", 1), TOY, (" square on a blue background, a green square", 1), None, (f"a {TOY[0]} square", 1)], "negative_pieces": None}),
    ("pair", "stable_diffusion_xl", {"pair": "whorl"}, {"prompt": "a whorl square on a blue background"}),
    ("each-its-own", "stable_diffusion_xl", {"learned": None, "learned_2": None}, {"prompt": "a red square on a <s> background"}),
]


def make(file):
    tensors = {}
    for name, shape in FILES[file].items():
        generator = torch.Generator().manual_seed(zlib.crc32(f"{file} {name}".encode()))
        # Larger than most words of the vocabulary, so that they show; in either precision.
        values = torch.randn(shape, generator=generator) * 0.15
        tensors[name] = values.half() if file == "one" else values
    save_file(tensors, OUT / f"{file}.safetensors")


def learn(pipeline, file, word):
    path = OUT / f"{file}.safetensors"
    tensors = load_file(path)
    if "clip_l" in tensors:
        pipeline.load_textual_inversion(tensors["clip_l"], token=word or file)
        pipeline.load_textual_inversion(
            tensors["clip_g"], token=word or file, tokenizer=pipeline.tokenizer_2, text_encoder=pipeline.text_encoder_2)
    elif "emb_params" in tensors:
        pipeline.load_textual_inversion(tensors["emb_params"], token=word or file)
    elif file == "learned_2":
        pipeline.load_textual_inversion(path, token=word, tokenizer=pipeline.tokenizer_2, text_encoder=pipeline.text_encoder_2)
    else:
        pipeline.load_textual_inversion(path, token=word)


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    CLIPTextModel.text_model = property(lambda self: self)
    OUT.mkdir(exist_ok=True)
    for file in FILES:
        make(file)
    listed = []
    for number, (case_name, name, files, more) in enumerate(CASES):
        case = {**CASE, "seed": 40 + number, **more}
        given = lambda pipeline, dtype: embedded(pipeline, case, dtype) if "pieces" in case else case
        plain, _ = draw(pipeline := load(name), given(pipeline, torch.float64), torch.float64)
        for file, word in files.items():
            learn(pipeline, file, word)
        precise, _ = draw(pipeline, given(pipeline, torch.float64), torch.float64)
        picture, timesteps = draw(pipeline, given(pipeline, torch.float32), torch.float32)
        rounding = int(np.abs(picture.astype(int) - precise).max())
        changed = np.abs(picture.astype(int) - plain).mean()
        saturated = float(np.isin(picture, [0, 255]).mean())
        print(f"{case_name:20} f64 differs by {rounding}, changed by {changed:.0f}, {saturated:.0%} saturated, spread {picture.std():.0f}")
        assert rounding <= 1 and changed > 4, (case_name, rounding, changed)
        Image.fromarray(picture).save(OUT / f"{case_name}.png", optimize=True)
        shown = {k: v for k, v in case.items() if "pieces" not in k}
        listed.append({"pipeline": name, "embeddings": files, "file": f"{case_name}.png", **shown, "timesteps": timesteps})
    (OUT / "cases.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in listed) + "\n]\n")


if __name__ == "__main__":
    main()
