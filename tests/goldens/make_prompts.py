"""Further pictures of the checkpoints of make_latents.py, which stay as they are: what else a prompt may ask for.

    pip install -r requirements.txt && python make_prompts.py
"""

import json

import numpy as np
import torch
from PIL import Image
from transformers import CLIPTextModel

from make_latents import HERE, NEGATIVE, PIPELINES, PROMPT, SIZE, StableDiffusionXLPipeline, draw

CASE = {"sampler": None, "prompt": PROMPT, "negative_prompt": NEGATIVE, "seed": 3, "steps": 4, "guidance_scale": 3.0, "height": SIZE, "width": SIZE}
CASES = {
    "stable_diffusion": {"clip-skip": {**CASE, "clip_skip": 1}},
    "stable_diffusion_xl": {"clip-skip": {**CASE, "clip_skip": 1}},
}


def main():
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    # Where diffusers looks for the final layer norm, and transformers 5 has it no more.
    CLIPTextModel.text_model = property(lambda self: self)
    for name, cases in CASES.items():
        folder, kind = HERE / "pipelines" / name, PIPELINES[name]["class"]
        pipeline = kind.from_pretrained(
            folder, torch_dtype=torch.float32, **({"add_watermarker": False} if kind is StableDiffusionXLPipeline else {"safety_checker": None}))
        pipeline.set_progress_bar_config(disable=True)
        listed = [case for case in json.loads((folder / "pictures/cases.json").read_text()) if case["file"].removesuffix(".png") not in cases]
        for case_name, case in cases.items():
            picture, timesteps = draw(pipeline, case, torch.float32)
            precise, _ = draw(pipeline, case, torch.float64)
            rounding = int(np.abs(picture.astype(int) - precise).max())
            assert rounding <= 1, f"{case_name}: f32 and f64 differ by {rounding} of 255"
            plain, _ = draw(pipeline, {k: v for k, v in case.items() if k in CASE}, torch.float32)
            print(f"{name:20}{case_name:20}f64 differs by {rounding}, plain by {np.abs(picture.astype(int) - plain).max()}")
            Image.fromarray(picture).save(folder / "pictures" / f"{case_name}.png", optimize=True)
            listed.append({"file": f"{case_name}.png", **case, "timesteps": timesteps, "f64_difference": rounding})
        (folder / "pictures/cases.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in listed) + "\n]\n")


if __name__ == "__main__":
    main()
