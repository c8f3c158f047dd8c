"""Further pictures of the checkpoints of make_latents.py, which stay as they are: what else a prompt may ask for.

    pip install -r requirements.txt && python make_prompts.py [PIPELINE/NAME...]

Weights and long prompts are AUTOMATIC1111's, which diffusers has not: its pipelines are given embeddings that `embed` computes here, from
pieces that each case lists beside its prompt. Only pictures that are named, or that are not there yet, are made.
"""

import json
import sys

import numpy as np
import torch
from PIL import Image
from transformers import CLIPTextModel

from make_latents import HERE, NEGATIVE, PIPELINES, PROMPT, SIZE, LatentConsistencyModelPipeline, StableDiffusionXLPipeline, draw

CASE = {"sampler": None, "prompt": PROMPT, "negative_prompt": NEGATIVE, "seed": 3, "steps": 4, "guidance_scale": 3.0, "height": SIZE, "width": SIZE}
# 39 tokens, where 18 are read at once: the first cut is at a comma, the second between two words.
LONG = "a green square on a red background, a yellow square on a blue background with a red square on a green background and a blue square"
FIRST, SECOND = LONG.split(", ")
CASES = {
    "stable_diffusion": {
        "clip-skip": {**CASE, "clip_skip": 1},
        "weights": {
            **CASE, "prompt": "a (red:1.6) square on a [[blue]] background", "negative_prompt": "((yellow)), blurry",
            "pieces": [("a ", 1), ("red", 1.6), (" square on a ", 1), ("blue", 1.1 ** -2), (" background", 1)],
            "negative_pieces": [("yellow", 1.1 ** 2), (", blurry", 1)]},
        "weights-clip-skip": {
            **CASE, "prompt": r"a (green \(red\):0.4) square on a blue background", "clip_skip": 1,
            "pieces": [("a ", 1), ("green (red)", 0.4), (" square on a blue background", 1)], "negative_pieces": [(NEGATIVE, 1)]},
        "long": {**CASE, "prompt": LONG, "pieces": [(LONG, 1)], "negative_pieces": [(NEGATIVE, 1)]},
        "break": {
            **CASE, "prompt": f"{FIRST} BREAK a (blue:1.4) square", "seed": 5,
            "pieces": [(FIRST, 1), None, ("a ", 1), ("blue", 1.4), (" square", 1)], "negative_pieces": [(NEGATIVE, 1)]},
    },
    "stable_diffusion_xl": {
        "clip-skip": {**CASE, "clip_skip": 1},
        "weights": {
            **CASE, "prompt": "a (red) square on a (blue background:1.5)", "negative_prompt": "(yellow:0.5), blurry",
            "pieces": [("a ", 1), ("red", 1.1), (" square on a ", 1), ("blue background", 1.5)],
            "negative_pieces": [("yellow", 0.5), (", blurry", 1)]},
        "long": {**CASE, "prompt": LONG, "negative_prompt": "", "pieces": [(LONG, 1)], "negative_pieces": None},
        "long-negative": {
            **CASE, "negative_prompt": f"({FIRST}:1.2), {SECOND}", "clip_skip": 1,
            "pieces": [(PROMPT, 1)], "negative_pieces": [(FIRST, 1.2), (f", {SECOND}", 1)]},
    },
    "latent_consistency": {
        "long": {
            **CASE, "prompt": f"{FIRST}, ({SECOND}:1.3)", "negative_prompt": "", "guidance_scale": 5.0,
            "pieces": [(f"{FIRST}, ", 1), (SECOND, 1.3)], "negative_pieces": None},
    },
}


def chunks(pieces, tokenizer):
    """Tokens with their weights, by what is read at once. A chunk ends where it is full; after a comma, if that is among the last twenty
    tokens and the next is none itself; or at a break, None."""
    room, comma = tokenizer.model_max_length - 2, tokenizer.convert_tokens_to_ids(",</w>")
    parts = [[]]
    for piece in pieces:
        if piece is None:
            parts.append([])
        else:
            parts[-1] += [(token, piece[1]) for token in tokenizer(piece[0], add_special_tokens=False).input_ids]
    done = []
    for part in parts:
        while len(part) > room:
            commas = [i for i, (token, _) in enumerate(part[:room]) if token == comma and room - i <= 20]
            cut = commas[-1] + 1 if commas and part[room][0] != comma else room
            done.append(part[:cut])
            part = part[cut:]
        done.append(part)
    return done


def embed(pipeline, pieces, count, skip, dtype):
    """Hidden states of so many chunks, side by side along the tokens, and the embedding of the first. Every token's channels are multiplied by
    its weight, and then all by what gives those of one chunk and one encoder their old mean."""
    states, pooled = [], None
    for suffix in ("", "_2"):
        if not (text := getattr(pipeline, "text_encoder" + suffix, None)):
            continue
        tokenizer = getattr(pipeline, "tokenizer" + suffix)
        own = chunks(pieces, tokenizer)
        out = []
        for i, chunk in enumerate(own + [[]] * (count - len(own))):
            ids = [tokenizer.bos_token_id, *(token for token, _ in chunk), tokenizer.eos_token_id]
            padding = tokenizer.model_max_length - len(ids)
            output = text(torch.tensor([ids + [tokenizer.pad_token_id] * padding]), output_hidden_states=True)
            if isinstance(pipeline, StableDiffusionXLPipeline):
                z = output.hidden_states[-2 - skip]
                pooled = output[0] if suffix and i == 0 else pooled
            else:
                z = text.final_layer_norm(output.hidden_states[-1 - skip])
            weights = torch.tensor([1.0, *(weight for _, weight in chunk), 1.0] + [1.0] * padding, dtype=dtype)
            weighted = z * weights[:, None]
            out.append(weighted * (z.mean() / weighted.mean()))
        states.append(torch.cat(out, 1))
    return torch.cat(states, -1), pooled


def embedded(pipeline, case, dtype):
    """The case with embeddings instead of prompts."""
    pipeline.to(dtype)
    case = dict(case)
    skip, pieces, negative = case.pop("clip_skip", 0), case.pop("pieces"), case.pop("negative_pieces")
    count = max(len(chunks(p, pipeline.tokenizer)) for p in (pieces, negative) if p)
    case["prompt_embeds"], pooled = embed(pipeline, pieces, count, skip, dtype)
    # The negative prompt skips no layer, as in diffusers; the XL pipeline reads zeros where there is none.
    other, negative_pooled = embed(pipeline, negative or pieces, count, 0, dtype)
    if not isinstance(pipeline, LatentConsistencyModelPipeline):
        case["negative_prompt_embeds"] = other if negative else 0 * other
    if pooled is not None:
        case["pooled_prompt_embeds"] = pooled
        case["negative_pooled_prompt_embeds"] = negative_pooled if negative else 0 * pooled
    return {**case, "prompt": None, "negative_prompt": None}


def main():
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    # Where diffusers looks for the final layer norm, and transformers 5 has it no more.
    CLIPTextModel.text_model = property(lambda self: self)
    for name, cases in CASES.items():
        folder, kind = HERE / "pipelines" / name, PIPELINES[name]["class"]
        listed = json.loads((folder / "pictures/cases.json").read_text())
        known = {case["file"].removesuffix(".png") for case in listed}
        cases = {k: case for k, case in cases.items() if k not in known or f"{name}/{k}" in sys.argv[1:]}
        if not cases:
            continue
        listed = [case for case in listed if case["file"].removesuffix(".png") not in cases]
        pipeline = kind.from_pretrained(
            folder, torch_dtype=torch.float32, **({"add_watermarker": False} if kind is StableDiffusionXLPipeline else {"safety_checker": None}))
        pipeline.set_progress_bar_config(disable=True)
        for case_name, case in cases.items():
            print(f"{name} {case_name}")
            given = lambda dtype: embedded(pipeline, case, dtype) if "pieces" in case else case
            picture, timesteps = draw(pipeline, given(torch.float32), torch.float32)
            precise, _ = draw(pipeline, given(torch.float64), torch.float64)
            rounding = int(np.abs(picture.astype(int) - precise).max())
            assert rounding <= 1, f"{case_name}: f32 and f64 differ by {rounding} of 255"
            plain, _ = draw(pipeline, {k: v for k, v in case.items() if k in CASE}, torch.float32)
            print(f"    f64 differs by {rounding}, plain by {np.abs(picture.astype(int) - plain).max()}, "
                  f"{np.isin(picture, [0, 255]).mean():.0%} saturated, spread {picture.std():.0f}")
            Image.fromarray(picture).save(folder / "pictures" / f"{case_name}.png", optimize=True)
            shown = {k: v for k, v in case.items() if "pieces" not in k}
            listed.append({"file": f"{case_name}.png", **shown, "timesteps": timesteps, "f64_difference": rounding})
        (folder / "pictures/cases.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in listed) + "\n]\n")


if __name__ == "__main__":
    main()
