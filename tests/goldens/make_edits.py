"""Pictures that diffusers' own pipelines make from pictures: pipelines/*/edits, from the pictures in edits/.

    pip install -r requirements.txt && python make_edits.py [NAME...]

The checkpoints are those of make_latents.py and make_edited_pipelines.py, which must be there. Every picture is made a second time in f64; where the two differ by more
than one grey level the case would test rounding, and stops the script.
"""

import json
import shutil
import sys

import diffusers
import numpy as np
import torch
from PIL import Image, ImageDraw

from make_pictures import NEGATIVE, NON_ASCII, PROMPT
from make_pipelines import HERE

INPUTS = HERE / "edits"
CLASSES = {
    "euler": "EulerDiscreteScheduler", "euler_ancestral": "EulerAncestralDiscreteScheduler", "heun": "HeunDiscreteScheduler",
    "ddim": "DDIMScheduler", "ddpm": "DDPMScheduler", "dpmpp_2m": "DPMSolverMultistepScheduler", "unipc": "UniPCMultistepScheduler",
}
BASE = {"sampler": None, "image": "square.png", "prompt": PROMPT, "negative_prompt": "", "seed": 0, "steps": 6, "guidance_scale": 1.0}
GUIDED = {**BASE, "negative_prompt": NEGATIVE, "seed": 1234567890123, "guidance_scale": 3.0}


def inputs():
    """A square that the checkpoints know, and what they never saw, at a size that must be rounded."""
    INPUTS.mkdir(exist_ok=True)
    square = Image.new("RGB", (32, 32), (60, 150, 70))
    ImageDraw.Draw(square).rectangle((8, 10, 21, 23), fill=(200, 180, 40))
    square.save(INPUTS / "square.png", optimize=True)
    mask = Image.new("L", (32, 32))
    ImageDraw.Draw(mask).ellipse((5, 6, 23, 25), fill=255)
    mask.save(INPUTS / "mask.png", optimize=True)
    y, x = np.mgrid[0:37, 0:51] / np.array([37, 51])[:, None, None]
    waves = np.stack([0.5 + 0.4 * np.sin(7 * x + 3 * y), 0.3 + 0.5 * y, 0.5 + 0.4 * np.cos(9 * x * y)], -1)
    waves = Image.fromarray((waves * 255).astype("uint8"))
    waves.save(INPUTS / "waves.png", optimize=True)
    square.resize((16, 16), Image.Resampling.BOX).save(INPUTS / "small-square.png", optimize=True)
    waves.resize((27, 17), Image.Resampling.BOX).save(INPUTS / "small-waves.png", optimize=True)


def formats():
    """One picture in the ways that files hold pictures: those without loss must all be read as upright.png."""
    out = INPUTS / "formats"
    out.mkdir(exist_ok=True)
    upright = Image.new("RGB", (24, 16), (200, 40, 60))
    ImageDraw.Draw(upright).rectangle((0, 0, 11, 7), fill=(30, 90, 220))
    upright.save(out / "upright.png", optimize=True)
    upright.quantize(4).save(out / "palette.png", optimize=True)
    upright.save(out / "lossless.webp", lossless=True, exact=True)
    transparent = upright.convert("RGBA")
    transparent.putalpha(Image.fromarray(np.arange(16 * 24, dtype=np.uint16).reshape(16, 24).astype("uint8")))
    transparent.save(out / "transparent.png", optimize=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    lying.save(out / "turned.png", exif=exif)
    lying.save(out / "turned.webp", lossless=True, exact=True, exif=exif)
    lying.save(out / "turned.jpg", quality=98, subsampling=0, exif=exif)
    grey = np.arange(16 * 24, dtype=np.uint16).reshape(16, 24) % 256
    Image.fromarray(grey.astype("uint8")).save(out / "grey.png", optimize=True)
    Image.fromarray(grey * 257).save(out / "grey-16.png")


def image_to_image(name):
    if name == "latent_consistency":
        yield "lcm-1", {**BASE, "steps": 4, "strength": 0.5, "guidance_scale": 5.0}
        yield "lcm-2", {**BASE, "steps": 2, "strength": 0.8, "guidance_scale": 2.0, "seed": 7, "image": "waves.png"}
        return
    yield "default-half", {**GUIDED, "strength": 0.5}
    yield "default-full", {**BASE, "strength": 1.0, "seed": 3}
    yield "default-waves", {**BASE, "strength": 0.8, "image": "waves.png"}
    yield "non-ascii", {**GUIDED, **NON_ASCII, "strength": 0.6, "seed": 2}
    if name == "stable_diffusion":
        yield "heun", {**BASE, "sampler": "heun", "strength": 0.7}
        yield "euler_ancestral", {**BASE, "sampler": "euler_ancestral", "strength": 0.8}
        yield "unipc", {**BASE, "sampler": "unipc", "strength": 0.7}
        yield "dpmpp_2m-guided", {**GUIDED, "sampler": "dpmpp_2m", "strength": 0.6}
    else:
        yield "ddpm", {**BASE, "sampler": "ddpm", "strength": 0.5}


def inpainting(name):
    base, guided = {**BASE, "mask_image": "mask.png"}, {**GUIDED, "mask_image": "mask.png"}
    if name == "latent_consistency":
        yield "lcm", {**base, "steps": 4, "strength": 1.0, "guidance_scale": 5.0}
        yield "lcm-part", {**base, "steps": 5, "strength": 0.6, "guidance_scale": 2.0}
        return
    yield "full", {**guided, "strength": 1.0}
    yield "part", {**base, "strength": 0.7, "seed": 3}
    yield "non-ascii", {**guided, **NON_ASCII, "strength": 0.8, "seed": 2}
    if name == "inpainting":
        # The networks are asked twice at the second timestep: where a tail begins matters.
        yield "late", {**guided, "strength": 0.4}
    # The picture is enlarged, and so is the mask, to other sides.
    yield "wide", {**base, "image": "waves.png", "strength": 0.9, "width": 64, "height": 32}
    if name != "stable_diffusion_xl":
        yield "euler_ancestral", {**base, "sampler": "euler_ancestral", "strength": 1.0, "seed": 5}
        yield "ddpm", {**base, "sampler": "ddpm", "strength": 0.8}
        yield "dpmpp_2m", {**guided, "sampler": "dpmpp_2m", "strength": 0.8}
        yield "heun", {**base, "sampler": "heun", "strength": 1.0}


def refining(name):
    yield "default", {**BASE, "strength": 0.5}
    yield "guided", {**GUIDED, "strength": 0.6}
    yield "no-negative", {**BASE, "strength": 0.8, "guidance_scale": 3.0, "image": "waves.png", "seed": 3}


def upscaling(name):
    base, guided = {**BASE, "image": "small-square.png"}, {**GUIDED, "image": "small-square.png"}
    yield "default", {**base, "noise_level": 20}
    yield "guided", {**guided, "noise_level": 5}
    yield "non-ascii", {**guided, **NON_ASCII, "noise_level": 30, "seed": 2}
    yield "waves", {**base, "image": "small-waves.png", "noise_level": 90, "prompt": ""}
    yield "clean-euler", {**base, "noise_level": 0, "sampler": "euler", "seed": 9}
    yield "ddpm", {**base, "noise_level": 40, "sampler": "ddpm", "seed": 3}


TASKS = {
    "stable_diffusion": {
        "img2img": (diffusers.StableDiffusionImg2ImgPipeline, image_to_image),
        "inpaint": (diffusers.StableDiffusionInpaintPipeline, inpainting)},
    "stable_diffusion_xl": {
        "img2img": (diffusers.StableDiffusionXLImg2ImgPipeline, image_to_image),
        "inpaint": (diffusers.StableDiffusionXLInpaintPipeline, inpainting)},
    "latent_consistency": {
        "img2img": (diffusers.LatentConsistencyModelImg2ImgPipeline, image_to_image),
        "inpaint": (diffusers.StableDiffusionInpaintPipeline, inpainting)},
    "refiner": {"img2img": (diffusers.StableDiffusionXLImg2ImgPipeline, refining)},
    "upscaler": {"upscale": (diffusers.StableDiffusionUpscalePipeline, upscaling)},
    "inpainting": {"inpaint": (diffusers.StableDiffusionInpaintPipeline, inpainting)},
}


def draw(pipeline, case, dtype):
    """The picture, and the timesteps the network was asked at. Noise is drawn in f32 for either type: torch's stream differs between them."""
    arguments = {k: v for k, v in case.items() if k not in ("sampler", "steps", "seed")}
    for what in ("image", "mask_image"):
        if what in case:
            arguments[what] = Image.open(INPUTS / case[what])
    if "mask_image" in case:
        # Elsewhere the picture's size is the image's.
        arguments = {"height": arguments["image"].height, "width": arguments["image"].width, **arguments}
    arguments["negative_prompt"] = arguments["negative_prompt"] or None
    if isinstance(pipeline, diffusers.LatentConsistencyModelImg2ImgPipeline):
        del arguments["negative_prompt"]
    asked = []
    hook = pipeline.unet.register_forward_pre_hook(lambda _, args, __: asked.append(float(args[1])), with_kwargs=True)

    def drawn(shape, generator, device=None, dtype=dtype, layout=None):
        return torch.randn(shape, generator=generator).to(dtype)

    places = [(m, m.randn_tensor) for n, m in list(sys.modules.items()) if n.startswith("diffusers.") and "randn_tensor" in vars(m)]
    for module, _ in places:
        module.randn_tensor = drawn
    picture = pipeline.to(dtype)(
        **arguments, generator=torch.Generator("cpu").manual_seed(case["seed"]), num_inference_steps=case["steps"], output_type="np").images[0]
    for module, original in places:
        module.randn_tensor = original
    hook.remove()
    return (picture * 255).round().astype("uint8"), asked


def load(kind, folder):
    extra = {"add_watermarker": False} if "XL" in kind.__name__ else {"safety_checker": None}
    pipeline = kind.from_pretrained(folder, torch_dtype=torch.float32, **extra)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def make(name):
    folder, listed = HERE / "pipelines" / name, []
    out = folder / "edits"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for task, (kind, cases) in TASKS[name].items():
        pipeline = load(kind, folder)
        default = pipeline.scheduler
        for case_name, case in cases(name):
            pipeline.scheduler = getattr(diffusers, CLASSES[case["sampler"]]).from_config(default.config) if case["sampler"] else default
            picture, timesteps = draw(pipeline, case, torch.float32)
            precise, _ = draw(pipeline, case, torch.float64)
            rounding = int(np.abs(picture.astype(int) - precise).max())
            assert rounding <= 1, f"{case_name}: f32 and f64 differ by {rounding} of 255"
            file = f"{task}-{case_name}.png"
            Image.fromarray(picture).save(out / file, optimize=True)
            saturated = float(np.isin(picture, [0, 255]).mean())
            print(f"{name:20}{file:32}f64 differs by {rounding}, {saturated:4.0%} saturated, spread {picture.std():.0f}, {len(timesteps)} calls")
            listed.append({"file": file, "task": task, **case, "timesteps": timesteps, "f64_difference": rounding})
    (out / "cases.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in listed) + "\n]\n")


def main():
    torch.set_num_threads(1)
    diffusers.utils.logging.set_verbosity_error()
    inputs()
    formats()
    with torch.no_grad():
        for name in sys.argv[1:] or TASKS:
            make(name)


if __name__ == "__main__":
    main()
