"""Zero-shot editing, written down from the papers in PyTorch, on the tiny checkpoints: zero_shot/.

    pip install -r requirements.txt && python make_zero_shot.py

Song et al. 2023, *Consistency Models*, Algorithm 4: an orthogonal change of basis A, in which some coefficients of a picture are known and a
mask Ω is 1 where they are not. Every denoised picture is clipped, its known coefficients are replaced, and the sampler goes on from there. Bases
are made by QR decompositions, as the paper's appendix describes them. The same replacement is put into Euler's method and DPM-Solver++(2M)
for diffusion models, and for latents it is done on the decoded picture, which is then encoded again.

cases.json has, for every step, x and the denoised picture after the replacement: every thirteenth number of `[H, W, C]`, of a run in f64.
`f32_error` is how far the same run in f32 is from it at most, relative to the largest number, in a few runs whose first x is rounded differently:
where a run takes an error up and makes it larger, a single one may be near by chance. The cases of `repaint` are diffusers' own RePaintPipeline.
"""

import json
import sys
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import (DDPMPipeline, LatentConsistencyModelPipeline, RePaintPipeline, RePaintScheduler, StableDiffusionPipeline, UNet2DModel)
from PIL import Image, ImageDraw

import precise
from make_pictures import NEGATIVE, PROMPT
from make_pictures import Pipeline as PixArt

HERE = Path(__file__).parent
OUT = HERE / "zero_shot"
STRIDE = 13  # shares no factor with channels and sides
ROUNDINGS = 8


# What is known.

def basis(first):
    """An orthonormal basis, in columns, whose first axis points along this."""
    first = torch.tensor(first, dtype=torch.float64)
    columns = torch.eye(len(first), dtype=torch.float64)
    columns[:, 0] = first
    q, r = torch.linalg.qr(columns)
    return q * torch.sign(r[0, 0])


class Colours:
    """Every pixel in a basis whose first axis is its brightness; `anew` is the mask Ω of each coefficient."""

    def __init__(self, anew):
        self.q, self.anew = basis([0.299, 0.587, 0.114]), anew

    def forward(self, x):
        return torch.einsum("bchw,cd->bdhw", x, self.q.to(x))

    def back(self, x):
        return torch.einsum("bdhw,cd->bchw", x, self.q.to(x))


class Pixels:
    """The pixels themselves."""

    def __init__(self, anew):
        self.anew = anew

    def forward(self, x):
        return x

    back = forward


class Patches:
    """Every patch in a basis whose first axis is constant, so that the first coefficient is a multiple of the mean."""

    def __init__(self, side):
        self.side, self.q = side, basis([1.0] * side**2)
        self.anew = torch.ones(side**2).reshape(1, -1, 1)
        self.anew[:, 0] = 0

    def forward(self, x):
        self.extents = x.shape[-2:]
        patches = torch.nn.functional.unfold(x.reshape(-1, 1, *self.extents), self.side, stride=self.side)
        return torch.einsum("cpn,pq->cqn", patches, self.q.to(x))

    def back(self, x):
        patches = torch.einsum("cqn,pq->cpn", x, self.q.to(x))
        return torch.nn.functional.fold(patches, self.extents, self.side, stride=self.side).reshape(1, -1, *self.extents)


def replaced(transform, known, x):
    """Algorithm 4: A⁻¹[(A known) ⊙ (1 − Ω) + (A x) ⊙ Ω]."""
    anew = transform.anew.to(x)
    return transform.back(transform.forward(known) * (1 - anew) + transform.forward(x) * anew)


def filled(values, weights):
    """Means of known pixels (weight 1): over 2x2 squares, again and again, and back up wherever a square knows less than one whole pixel."""
    if bool((weights >= 1).all()) or weights.numel() == 1:
        return values
    odd = [0, values.shape[-1] % 2, 0, values.shape[-2] % 2]
    sums, counts = (4 * torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x, odd), 2) for x in (values, weights))
    coarse = filled(sums / counts.clamp(min=1), counts.clamp(max=1))
    finer = torch.nn.functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    return values + (1 - weights) * finer[..., : values.shape[-2], : values.shape[-1]]


def beginning(image, transform, sigma):
    """What a run starts from, before noise: what is known, and 0 elsewhere; where little noise would not hide that, what lies around holes."""
    if isinstance(transform, Pixels) and sigma < 5:
        weights = 1 - transform.anew.to(image)
        return filled(image * weights, weights)
    return replaced(transform, image, torch.zeros_like(image))


def read(name):
    """[1, 3, H, W] of −1..1, in f64."""
    pixels = np.asarray(Image.open(HERE / name).convert("RGB"), dtype=np.float64)
    return torch.from_numpy(pixels / 255 * 2 - 1).permute(2, 0, 1)[None]


def what_is_known(case):
    """The picture that what is known is taken from, and the transform; none where nothing is held."""
    image = read(case["image"])
    mask = (read(case["mask"])[:, :1] > 0).double() if "mask" in case else torch.ones_like(image[:, :1])
    if case["task"] == "inpaint":
        return image, Pixels(mask)
    if case["task"] == "colorize":
        # Kept pixels have all three coefficients, the others the first alone.
        return image, Colours(torch.cat([mask * 0, mask, mask], 1))
    if case["task"] == "upscale":
        return image.repeat_interleave(case["scale"], 2).repeat_interleave(case["scale"], 3), Patches(case["scale"])
    return image, None


# Models: D(x; σ), where x is a picture plus σ times noise.

class Consistency:
    def __init__(self, folder):
        self.net = UNet2DModel.from_pretrained(folder / "unet")
        self.config = json.loads((folder / "scheduler/scheduler_config.json").read_text())
        self.clips = self.config["clip_denoised"]

    def to(self, dtype):
        self.net.to(dtype)

    def start(self, case):
        self.label = torch.tensor([case["class_label"]])

    def denoise(self, x, sigma, _):
        """Song et al. 2023, appendix C."""
        data, low = self.config["sigma_data"], self.config["sigma_min"]
        skip = data**2 / ((sigma - low)**2 + data**2)
        out = (sigma - low) * data / (sigma**2 + data**2)**0.5
        time = torch.tensor([250 * np.log(sigma)], dtype=x.dtype)
        return skip * x + out * self.net(x / (sigma**2 + data**2)**0.5, time, class_labels=self.label).sample


class Discrete:
    """A model of timesteps 0..T, whose own x is the picture times √ᾱ plus noise times √(1 − ᾱ)."""

    def __init__(self, config):
        self.config = json.loads(config.read_text())
        # diffusers' table, which is rounded to f32, is part of what a checkpoint is.
        kept = getattr(diffusers, self.config["_class_name"]).from_config(self.config).alphas_cumprod.double().numpy()
        self.table = ((1 - kept) / kept)**0.5
        self.clips = self.config.get("clip_sample", False)

    def timestep(self, sigma):
        """Between the table's entries as their logarithms lie."""
        return float(np.interp(np.log(sigma), np.log(self.table), np.arange(len(self.table))))

    def denoise(self, x, sigma, t):
        own = x / (1 + sigma**2)**0.5
        output = self.predict(own, torch.tensor([t], dtype=x.dtype))
        kind = self.config["prediction_type"]
        if kind == "epsilon":
            return x - sigma * output
        if kind == "sample":
            return output
        assert kind == "v_prediction"
        return own / (1 + sigma**2)**0.5 - sigma / (1 + sigma**2)**0.5 * output


class Unconditional(Discrete):
    def __init__(self, folder):
        super().__init__(folder / "scheduler_config.json")
        self.net = DDPMPipeline.from_pretrained(folder).unet

    def to(self, dtype):
        self.net.to(dtype)

    def start(self, case):
        pass

    def predict(self, x, t):
        return self.net(x, t).sample


class Transformer(Discrete):
    """PixArt on pixels."""

    def __init__(self, folder):
        super().__init__(folder / "scheduler/scheduler_config.json")
        self.parts = PixArt(folder)

    def to(self, dtype):
        self.parts.to(dtype)

    def start(self, case):
        self.scale, (self.text, self.mask) = case["guidance_scale"], self.parts.encode(case["prompt"])
        if self.scale > 1:
            text, mask = self.parts.encode(case["negative_prompt"])
            self.text, self.mask = torch.cat([text, self.text]), torch.cat([mask, self.mask])

    def predict(self, x, t):
        out = self.parts.transformer(
            x.expand(len(self.text), -1, -1, -1), encoder_hidden_states=self.text, encoder_attention_mask=self.mask,
            timestep=t.expand(len(self.text)), added_cond_kwargs={"resolution": None, "aspect_ratio": None}).sample
        return guided(out, self.scale)[:, :3]


def guided(out, scale):
    if len(out) == 1:
        return out
    negative, positive = out.chunk(2)
    return negative + scale * (positive - negative)


class Latent(Discrete):
    """Stable Diffusion."""

    kind = StableDiffusionPipeline

    def __init__(self, folder):
        super().__init__(folder / "scheduler/scheduler_config.json")
        self.pipe = self.kind.from_pretrained(folder, torch_dtype=torch.float32, safety_checker=None)
        self.vae = self.pipe.vae

    def to(self, dtype):
        self.pipe.to(dtype)

    def start(self, case):
        self.scale = case["guidance_scale"]
        positive, negative = self.pipe.encode_prompt(case["prompt"], "cpu", 1, self.scale > 1, case["negative_prompt"])
        self.text = torch.cat([negative, positive]) if self.scale > 1 else positive

    def predict(self, x, t):
        return guided(self.pipe.unet(x.expand(len(self.text), -1, -1, -1), t.expand(len(self.text)), self.text).sample, self.scale)

    def decode(self, latents):
        return self.vae.decode(latents / self.vae.config.scaling_factor).sample

    def encode(self, picture, draw=None):
        """The mean, or with `draw` a sample."""
        latents = self.vae.encode(picture).latent_dist
        return (latents.mean if draw is None else latents.mean + latents.std * draw(latents.mean.shape)) * self.vae.config.scaling_factor


class LatentConsistency(Latent):
    """Luo et al. 2023, with a deterministic autoencoder."""

    kind = LatentConsistencyModelPipeline

    def start(self, case):
        super().start({**case, "guidance_scale": 1.0})
        weight = torch.tensor([case["guidance_scale"] - 1])
        self.weight = self.pipe.get_guidance_scale_embedding(weight, self.pipe.unet.config.time_cond_proj_dim, self.text.dtype)

    def predict(self, x, t):
        return self.pipe.unet(x, t, self.text, timestep_cond=self.weight).sample

    def encode(self, picture, _=None):
        return self.vae.encode(picture).latents * self.vae.config.scaling_factor

    def decode(self, latents):
        return self.vae.decode(latents / self.vae.config.scaling_factor).sample


# Samplers. `denoised` is D after the replacement; every one yields (x, denoised) and returns the last picture.

def consistency(model, x, levels, denoised, draw):
    """Song et al. 2023, Algorithm 1 and, with the replacement, Algorithm 4."""
    low = model.config["sigma_min"]
    for sigma, after in zip(levels, levels[1:]):
        d = denoised(x, sigma)
        yield x, d
        x = d + max(after**2 - low**2, 0)**0.5 * draw(x.shape) if after > low else d
    yield x, None


def lcm(model, x, levels, denoised, draw):
    for sigma, after in zip(levels, levels[1:]):
        d = denoised(x, sigma)
        yield x, d
        x = d + after * draw(x.shape) if after > 0 else d
    yield x, None


def euler(model, x, levels, denoised, draw):
    for sigma, after in zip(levels, levels[1:]):
        d = denoised(x, sigma)
        yield x, d
        x = d + after / sigma * (x - d)
    yield x, None


def dpmpp_2m(model, x, levels, denoised, draw):
    """Lu et al. 2022, DPM-Solver++, Algorithm 2, in λ = −ln σ. The first and the last step are of first order."""
    before = None
    for i, (sigma, after) in enumerate(zip(levels, levels[1:])):
        d = denoised(x, sigma)
        yield x, d
        if after == 0:
            x = d
            continue
        h, combined = np.log(sigma / after), d
        if before is not None:
            r = np.log(levels[i - 1] / sigma) / h
            combined = d + (d - before) / (2 * r)
        x, before = after / sigma * x + (1 - np.exp(-h)) * combined, d
    yield x, None


# DDIM without noise is Euler's method (Song et al. 2021, equation 14).
SAMPLERS = {"consistency": consistency, "lcm": lcm, "euler": euler, "ddim": euler, "dpmpp_2m": dpmpp_2m}


def walk(model, case, dtype, rounding=0):
    """(x, denoised) of every step, and the last picture; the times that the network was asked at. Where `rounding` is not 0, it says which way the
    numbers of the first x are rounded, up or down by the last bit."""
    model.to(dtype)
    model.start(case)
    generator = torch.Generator("cpu").manual_seed(case["seed"])

    def draw(shape):
        """In f32 for either type: torch's stream differs between them."""
        return torch.randn(shape, generator=generator).to(dtype)

    latent = isinstance(model, Latent)
    image, transform = what_is_known(case)
    image = image.to(dtype)
    levels = case.get("sigmas") or [float(model.table[t]) for t in case["timesteps"]] + [0.0]
    clean = image if transform is None else beginning(image, transform, levels[0])
    if latent:
        clean = model.encode(clean, draw)
    asked, count = [], 0

    def denoised(x, sigma):
        nonlocal count
        if "timesteps" in case:
            t = case["timesteps"][count]
        else:
            t = model.timestep(sigma) if isinstance(model, Discrete) else 250 * np.log(sigma)
        asked.append(float(t))
        d = model.denoise(x, sigma, t)
        if model.clips and case["sampler"] in ("consistency", "ddim"):  # in diffusers the others do not
            d = d.clamp(-1, 1)
        if transform is not None:
            if not latent:
                d = replaced(transform, image, d)
            elif count % case["replace_every"] == 0:
                d = model.encode(replaced(transform, image, model.decode(d).clamp(-1, 1)))
        count += 1
        return d

    # A picture that is noisy itself gets no more noise, unless it is made to latents, but where bytes have cut its noise off at black or white.
    noise = draw(clean.shape)
    x = clean + levels[0] * noise
    if case["task"] == "restore" and not latent:
        x = clean + levels[0] * noise.abs() * ((clean >= 1).to(dtype) - (clean <= -1).to(dtype))
    if rounding:
        ways = torch.randint(-1, 2, x.shape, generator=torch.Generator().manual_seed(rounding))
        x = x * (1 + ways * torch.finfo(dtype).eps / 2)
    return list(SAMPLERS[case["sampler"]](model, x, levels, denoised, draw)), asked


MODELS = {
    "consistency": Consistency, "ddpm": Unconditional, "pixels": Transformer, "stable_diffusion": Latent,
    "latent_consistency": LatentConsistency,
}


def cases(name):
    base = {"pipeline": name, "seed": 0}
    square, hole = {"image": "zero_shot/square.png"}, {"mask": "zero_shot/square-mask.png"}
    if name == "consistency":
        base |= {"sampler": "consistency", "sigmas": [20.0, 8.0, 3.0, 0.9, 0.0], "class_label": 1}
        yield "inpaint", {**base, **square, **hole, "task": "inpaint", "seed": 3}
        yield "colorize", {**base, **square, "task": "colorize", "class_label": 3}
        yield "colorize-part", {**base, **square, **hole, "task": "colorize", "seed": 7}
        yield "colorize-saturated", {**base, "image": "zero_shot/saturated.png", "task": "colorize", "class_label": 4, "seed": 5}
        yield "upscale-2", {**base, "image": "zero_shot/small-8.png", "task": "upscale", "scale": 2}
        yield "upscale-4", {**base, "image": "zero_shot/small-4.png", "task": "upscale", "scale": 4, "seed": 1234567890123}
        yield "restore", {**base, "image": "zero_shot/noisy.png", "task": "restore", "sigmas": [0.5, 0.2, 0.0]}
        yield "stroke", {**base, "image": "zero_shot/strokes.png", "task": "stroke", "sigmas": [5.38, 2.24, 0.9, 0.0], "class_label": 0}
        return
    if name == "ddpm":
        square, hole = {"image": "zero_shot/wide.png"}, {"mask": "zero_shot/wide-mask.png"}
        base |= {"sampler": "euler", "sigmas": [3.5, 1.9, 1.0, 0.5, 0.2, 0.0]}
        yield "inpaint", {**base, **square, **hole, "task": "inpaint"}
        yield "inpaint-clipped", {**base, **square, **hole, "task": "inpaint", "sampler": "ddim", "seed": 2}
        yield "upscale-2", {**base, "image": "zero_shot/small-8.png", "task": "upscale", "scale": 2, "sampler": "ddim", "seed": 6}
        yield "inpaint-2m", {**base, **square, **hole, "task": "inpaint", "sampler": "dpmpp_2m", "seed": 8}
        yield "colorize-part", {**base, **square, **hole, "task": "colorize", "sampler": "dpmpp_2m", "seed": 7}
        yield "restore", {**base, **square, "task": "restore", "sigmas": [0.4, 0.2, 0.1, 0.0]}
        yield "stroke", {**base, **square, "task": "stroke", "sampler": "dpmpp_2m"}
        return
    square, hole = {"image": "edits/square.png"}, {"mask": "zero_shot/hole.png"}
    base |= {"prompt": PROMPT, "negative_prompt": "", "guidance_scale": 1.0}
    guided = {**base, "negative_prompt": NEGATIVE, "guidance_scale": 3.0}
    if name == "pixels":
        base |= {"sigmas": [60.0, 12.0, 4.0, 1.2, 0.4, 0.0]}
        guided |= {"sigmas": [60.0, 12.0, 4.0, 1.2, 0.4, 0.0]}
        yield "inpaint", {**guided, **square, **hole, "task": "inpaint", "sampler": "euler"}
        yield "colorize", {**base, **square, "task": "colorize", "sampler": "dpmpp_2m", "seed": 4}
        yield "upscale-4", {**guided, "image": "zero_shot/small-8.png", "task": "upscale", "scale": 4, "sampler": "dpmpp_2m", "seed": 2}
        return
    if name == "stable_diffusion":
        base |= {"sigmas": [4.5, 2.4, 1.2, 0.5, 0.0], "sampler": "euler", "replace_every": 1}
        guided |= {"sigmas": [4.5, 2.4, 1.2, 0.5, 0.0], "sampler": "euler", "replace_every": 1}
        yield "inpaint", {**guided, **square, **hole, "task": "inpaint"}
        yield "colorize-2nd", {**base, **square, "task": "colorize", "sampler": "dpmpp_2m", "replace_every": 2, "seed": 4}
        yield "upscale-2", {**base, "image": "edits/small-square.png", "task": "upscale", "scale": 2, "seed": 1}
        yield "stroke", {**base, **square, "task": "stroke", "sigmas": [3.0, 1.2, 0.4, 0.0]}
        return
    base |= {"timesteps": [899, 659, 419, 179], "sampler": "lcm", "replace_every": 1, "guidance_scale": 4.0}
    yield "inpaint", {**base, **square, **hole, "task": "inpaint"}
    yield "colorize-2nd", {**base, **square, "task": "colorize", "replace_every": 2, "seed": 4}
    yield "upscale-2", {**base, "image": "edits/small-square.png", "task": "upscale", "scale": 2, "seed": 1}


def inputs():
    OUT.mkdir(exist_ok=True)

    def picture(size, background, draw, mode="RGB"):
        image = Image.new(mode, size, background)
        draw(ImageDraw.Draw(image))
        return image

    def save(image, name):
        image.save(OUT / name, optimize=True)

    square = picture((16, 16), (40, 160, 60), lambda d: (d.rectangle((4, 3, 11, 10), fill=(200, 50, 40)), d.point((13, 14), fill=(9, 9, 9))))
    save(square, "square.png")
    save(square.resize((8, 8), Image.Resampling.BOX), "small-8.png")
    save(square.resize((4, 4), Image.Resampling.BOX), "small-4.png")
    save(picture((16, 16), 0, lambda d: (d.polygon([(3, 2), (13, 5), (8, 8), (12, 14), (2, 11)], fill=255), d.point((15, 0), fill=255)), "L"), "square-mask.png")
    save(picture((24, 16), (60, 70, 190), lambda d: d.rectangle((6, 4, 13, 11), fill=(210, 190, 60))), "wide.png")
    save(picture((24, 16), 0, lambda d: (d.polygon([(2, 1), (12, 3), (10, 13), (5, 9)], fill=255), d.line((15, 15, 23, 2), fill=255)), "L"), "wide-mask.png")
    save(picture((32, 32), 0, lambda d: (d.polygon([(3, 4), (27, 9), (15, 15), (22, 29), (6, 23)], fill=255), d.point((31, 31), fill=255)), "L"), "hole.png")
    # Colours at the ends of what bytes hold, beside each other.
    ends = [[0, 255][(x * 5 + y * 3 + c * (x + 1)) % 7 % 2] for y in range(16) for x in range(16) for c in range(3)]
    save(Image.fromarray(np.array(ends, dtype="uint8").reshape(16, 16, 3)), "saturated.png")
    save(picture((16, 16), (230, 230, 230), lambda d: (d.line((0, 4, 15, 6), fill=(220, 40, 40), width=4), d.line((3, 15, 12, 8), fill=(40, 60, 200), width=3))), "strokes.png")
    noise = torch.randn((16, 16, 3), generator=torch.Generator().manual_seed(0)).numpy()
    noisy = np.asarray(square, dtype=np.float64) + 0.5 * 255 / 2 * noise
    save(Image.fromarray(noisy.round().clip(0, 255).astype("uint8")), "noisy.png")


def numbers(x):
    """Every thirteenth of `[H, W, C]`."""
    return [round(float(v), 6) for v in x[0].permute(1, 2, 0).flatten()[::STRIDE]]


def compared(exact, rounded):
    """The largest f32 error of all steps, of x and of denoised pictures, and the last sample's."""
    errors = [[precise.f32_error(a, b) for a, b in zip(one, other) if a is not None] for one, other in zip(exact, rounded)]
    return {"x": max(e[0] for e in errors), "denoised": max(e[1] for e in errors[:-1])}


def make(name):
    model = MODELS[name](HERE / "pipelines" / name)
    for case_name, case in cases(name):
        with precise.exact():
            exact, asked = walk(model, case, torch.float64)
        errors = [compared(exact, walk(model, case, torch.float32, rounding)[0]) for rounding in range(ROUNDINGS)]
        error = {what: max(e[what] for e in errors) for what in errors[0]}
        sample = exact[-1][0]
        beyond = float((sample.abs() > 1).double().mean())
        print(f"{name:20}{case_name:20}f32 differs by {error['x']:.1e} of x, {error['denoised']:.1e} of denoised, {beyond:4.0%} beyond 1")
        steps = [{"sigma": round(s, 6), "x": numbers(x), "denoised": numbers(d)}
                 for s, (x, d) in zip(case.get("sigmas") or [float(model.table[t]) for t in case["timesteps"]], exact[:-1])]
        yield {"name": case_name, **case, "asked": asked, "f32_error": error, "steps": steps, "sample": numbers(sample)}


def repaint():
    """diffusers' RePaintPipeline: a run that is one jump back and forth, and more steps than a jump is long."""
    folder = HERE / "pipelines/ddpm"
    image, mask = read("zero_shot/wide.png"), read("zero_shot/wide-mask.png")[:, :1] <= 0

    def randn_tensor(shape, generator=None, device=None, dtype=None, layout=None):
        return torch.randn(shape, generator=generator).to(dtype)

    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("diffusers.") and "randn_tensor" in vars(module):
            module.randn_tensor = randn_tensor
    unet = DDPMPipeline.from_pretrained(folder).unet
    for seed, (steps, eta) in enumerate([(12, 0.0), (21, 1.0)]):
        pictures = []
        for dtype in (torch.float64, torch.float32):
            pipe = RePaintPipeline(unet.to(dtype), RePaintScheduler.from_pretrained(folder))
            pipe.set_progress_bar_config(disable=True)
            made = pipe(image.to(dtype), mask.to(dtype), num_inference_steps=steps, eta=eta, generator=torch.Generator("cpu").manual_seed(seed), output_type="np")
            pictures.append((made.images[0] * 255).round().astype("uint8"))
        rounding = int(np.abs(pictures[0].astype(int) - pictures[1]).max())
        assert rounding <= 1, f"f32 and f64 differ by {rounding} of 255"
        file = f"repaint-{steps}.png"
        Image.fromarray(pictures[0]).save(OUT / file, optimize=True)
        print(f"repaint {steps} steps, eta {eta}: f32 differs by {rounding} of 255")
        yield {"file": file, "image": "zero_shot/wide.png", "mask": "zero_shot/wide-mask.png", "steps": steps, "eta": eta, "seed": seed}


def main():
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    diffusers.utils.logging.set_verbosity_error()
    inputs()
    listed = [case for name in MODELS for case in make(name)]
    (OUT / "cases.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in listed) + "\n]\n")
    (OUT / "repaint.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in repaint()) + "\n]\n")


if __name__ == "__main__":
    main()
