#!/usr/bin/env python3
"""Times a Stable Diffusion checkpoint on the CPU in diffusers and in Headwater, in turn, each in a process of its own.

    python docs/benchmarks/compare_diffusers.py FOLDER [--sizes 256 512] [--steps 3] [--rounds 3] [--program target/release/headwater]

Needs torch, diffusers and transformers (tests/goldens/requirements.txt). FOLDER is in diffusers' layout; its weights may be random.
Both read it from disk, in f32, and draw one unguided picture with Euler's method. A round is one process of either side at every size, so
that whatever else the machine does meets both alike. Seconds are medians over the rounds: of one step (the mean of a run's steps after the first)
and of the decode; memory is the largest resident size of the process, whole files mapped into it included.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time


def child(folder, size, steps):
    """diffusers' side: prints {"step": seconds, "decode": seconds}."""
    import torch
    from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    pipe = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, safety_checker=None)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    times = []
    latents = pipe("a cat", height=size, width=size, num_inference_steps=steps, guidance_scale=1.0, output_type="latent",
                   callback_on_step_end=lambda *a: times.append(time.perf_counter()) or a[3]).images
    start = time.perf_counter()
    with torch.no_grad():
        picture = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    assert picture.isfinite().all()
    print(json.dumps({"step": (times[-1] - times[0]) / (steps - 1), "decode": time.perf_counter() - start}))


def headwater(program, folder, size, steps, out):
    """The command, and how to read what it prints on either stream."""
    command = [program, "generate", "a cat", "--model", folder, "--device", "cpu", "--steps", str(steps), "--sampler", "euler", "--guidance", "1",
               "-W", str(size), "-H", str(size), "--seed", "0", "--json", "--output", out]

    def read(printed):
        # "sample" is all steps; the first does no more than the others, since the weights are packed before it ("prepare").
        timings = json.loads(printed)["timings"]
        return {"step": timings["sample"] / steps, "decode": timings["decode"]}

    return command, read


def run(command, read):
    """-> the child's figures and "memory", the bytes of its largest resident size."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return {**read(printed.strip().splitlines()[-1]), "memory": usage.ru_maxrss * 1024}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder")
    p.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    p.add_argument("--steps", type=int, default=3)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--program", default="target/release/headwater")
    p.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.child:
        return child(a.folder, a.sizes[0], a.steps)
    figures = {}
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(a.rounds):
            for size in a.sizes:
                theirs = [sys.executable, __file__, a.folder, "--child", "--sizes", str(size), "--steps", str(a.steps)]
                ours = headwater(a.program, a.folder, size, a.steps, f"{scratch}/cat.png")
                for side, (command, read) in (("diffusers", (theirs, json.loads)), ("headwater", ours)):
                    figures.setdefault((size, side), []).append(run(command, read))
    print("| picture | | diffusers | Headwater | ratio |\n|---|---|---:|---:|---:|")
    for size in a.sizes:
        for what, unit, scale in (("step", "s", 1), ("decode", "s", 1), ("memory", "GB", 1e9)):
            theirs, ours = (statistics.median(f[what] for f in figures[size, side]) / scale for side in ("diffusers", "headwater"))
            print(f"| {size} × {size} | {what} | {theirs:.2f} {unit} | {ours:.2f} {unit} | {theirs / ours:.2f} |")


if __name__ == "__main__":
    main()
