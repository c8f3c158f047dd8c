#!/usr/bin/env python3
"""Times the parts of one checkpoint on the CPU in Headwater and in every peer that is installed, in turn, each in a process of its own.

    python docs/benchmarks/peers.py FOLDER [--size 512] [--repeats 5] [--rounds 3] [--program target/release/headwater] [--out peers.json] [--chart peers.svg]
        [--sd-cpp build/bin/sd-cli]

Peers: stable-diffusion.cpp, as --sd-cpp names its program (built with -DGGML_LLAMAFILE=ON, which is its quickest; with its flash attention);
diffusers on PyTorch, and ONNX Runtime where FOLDER holds graphs as `optimum-cli export onnx` names them (unet/model.onnx,
text_encoder/model.onnx, vae_decoder/model.onnx). What is missing is skipped with a line. FOLDER is in diffusers' layout, of a UNet (Stable Diffusion 1, 2
or XL); its weights may be random. All compute in f32: reading one prompt, one step of the network (of both predictions where the model is guided
by default), decoding. Every round is one process of each, so that whatever else the machine does meets all alike; a figure is the median over
the rounds of the processes' medians, with the quickest and slowest of all repeats, and memory is the largest resident size, mapped files included.
Writes a JSON file, and prints a table in which a ratio above one is Headwater's gain and "~" marks what the spread explains.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

PARTS = ("prompt encode", "step", "latent decode")


def timed(work, repeats):
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds


def diffusers(folder, size, batch, repeats):
    """-> seconds of every repeat, by part."""
    import torch
    from diffusers import DiffusionPipeline

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    pipe = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, safety_checker=None)
    unet, vae = getattr(pipe, "unet", None), getattr(pipe, "vae", None)
    if unet is None or vae is None:
        raise SystemExit("no pipeline of a UNet and an autoencoder")
    side = size // pipe.vae_scale_factor
    encoders = [(e, t) for e, t in ((getattr(pipe, f"text_encoder{n}", None), getattr(pipe, f"tokenizer{n}", None)) for n in ("", "_2")) if e]
    ids = [torch.tensor([t("", padding="max_length", max_length=t.model_max_length, truncation=True).input_ids]) for _, t in encoders]
    more = {}
    if getattr(unet.config, "addition_embed_type", None) == "text_time":
        pooled = encoders[-1][0].config.projection_dim
        more["added_cond_kwargs"] = {"text_embeds": torch.zeros(batch, pooled), "time_ids": torch.zeros(batch, 6)}
    sample = torch.randn(batch, unet.config.in_channels, side, side)
    text = torch.randn(batch, ids[0].shape[1], unet.config.cross_attention_dim)
    latents = torch.randn(1, vae.config.latent_channels, side, side)
    with torch.inference_mode():
        return {
            "prompt encode": timed(lambda: [e(i) for (e, _), i in zip(encoders, ids)], repeats),
            "step": timed(lambda: unet(sample, 500, text, **more), repeats),
            "latent decode": timed(lambda: vae.decode(latents), repeats),
        }


def onnxruntime(folder, size, batch, repeats):
    """The same. Free extents of a graph are told apart by their position: [batch, channels, side, side] or [batch, tokens, …]."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    factor = 2 ** (len(json.loads((pathlib.Path(folder) / "vae/config.json").read_text())["block_out_channels"]) - 1)
    side, rng, result = size // factor, np.random.default_rng(0), {}
    for part, name in zip(PARTS, ("text_encoder", "unet", "vae_decoder")):
        file = pathlib.Path(folder) / name / "model.onnx"
        if not file.is_file():
            continue
        session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        rows = batch if part == "step" else 1
        inputs = {}
        for i in session.get_inputs():
            free = [rows, 4, side, side] if len(i.shape) == 4 else [rows, 77, 768]
            shape = [e if isinstance(e, int) else free[at] for at, e in enumerate(i.shape)]
            kind = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}.get(i.type, np.float32)
            inputs[i.name] = (np.ones(shape) if kind != np.float32 else rng.standard_normal(shape)).astype(kind)
        result[part] = timed(lambda: session.run(None, inputs), repeats)
    return result


def stable_diffusion_cpp(folder, size, batch, repeats):
    """The same, out of what its program says: that many pictures of one step, by the checkpoint as one file. It computes the two predictions of a guided
    step one after the other. The first of each is left out: it reads the weights."""
    program, ours = os.environ["SD_CPP"], os.environ["HEADWATER"]
    with tempfile.TemporaryDirectory() as out:
        model = f"{out}/model.safetensors"
        subprocess.run([ours, "convert", folder, model], check=True, stdout=sys.stderr)
        flags = ["-p", "", "--steps", "1", "-W", str(size), "-H", str(size), "--cfg-scale", "7.5" if batch == 2 else "1", "--type", "f32", "--diffusion-fa"]
        command = [program, "-m", model, *flags, "-b", str(repeats + 1), "-v", "-o", f"{out}/picture.png"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(done.stdout[-2000:])
    found = lambda pattern, unit: [float(seconds) * unit for seconds in re.findall(pattern, done.stdout)[1:]]
    return {
        "prompt encode": found(r"computing condition graph completed, taking (\d+) ms", 1e-3),
        "step": found(r"sampling completed, taking ([\d.]+)s", 1),
        "latent decode": found(r"latent \d+ decoded, taking ([\d.]+)s", 1),
    }


def chart(rows, sides, title):
    """-> an SVG of bars: seconds of every side in every part, each part on a scale of its own, so that parts of milliseconds are seen."""
    bar, gap, left, width = 18, 26, 130, 420
    colours = ("#2f6fde", "#9aa3ad", "#d39b3c", "#5b9d6b")
    parts, y = [], 44
    for row in rows:
        parts.append(f'<text x="8" y="{y + 13}" font-weight="600">{row["part"]}</text>')
        slowest = max(row[side]["median"] for side in sides if side in row)
        for side, colour in zip(sides, colours):
            if side not in row:
                continue
            seconds = row[side]["median"]
            length = width * seconds / slowest
            parts.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar - 4}" rx="2" fill="{colour}"/>')
            parts.append(f'<text x="{left + length + 6:.1f}" y="{y + 11}">{side} {seconds:.3g} s</text>')
            y += bar
        y += gap - bar // 2
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 170} {y}" font-family="sans-serif" font-size="12" fill="#777">'
    return "\n".join([head, f'<text x="8" y="22" font-size="14">{title}</text>', *parts, "</svg>", ""])


PEERS = {
    "diffusers": (diffusers, ("torch", "diffusers", "transformers")),
    "onnxruntime": (onnxruntime, ("onnxruntime", "numpy")),
    "stable-diffusion.cpp": (stable_diffusion_cpp, ()),
}


def missing(name, folder):
    """Why a peer cannot run; None if it can."""
    lacks = [module for module in PEERS[name][1] if importlib.util.find_spec(module) is None]
    if lacks:
        return f"{', '.join(lacks)} not installed"
    if name == "onnxruntime" and not (pathlib.Path(folder) / "unet/model.onnx").is_file():
        return f"{folder} holds no unet/model.onnx"
    if name == "stable-diffusion.cpp" and "SD_CPP" not in os.environ:
        return "--sd-cpp names no program of it"
    return None


def run(command):
    """-> (what the child printed last, as JSON, and the bytes of its largest resident size), or None if it failed."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    return None if status else (json.loads(printed.strip().splitlines()[-1]), usage.ru_maxrss * 1024)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder")
    p.add_argument("--size", type=int, default=512)
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--program", default="target/release/headwater")
    p.add_argument("--out", default="peers.json")
    p.add_argument("--chart", help="an SVG of bars")
    p.add_argument("--sd-cpp", help="stable-diffusion.cpp's sd-cli")
    p.add_argument("--child", choices=PEERS, help=argparse.SUPPRESS)
    p.add_argument("--batch", type=int, default=1, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.child:
        return print(json.dumps(PEERS[a.child][0](a.folder, a.size, a.batch, a.repeats)))
    if a.sd_cpp:
        os.environ |= {"SD_CPP": a.sd_cpp, "HEADWATER": a.program}
    peers = []
    for name in PEERS:
        why = missing(name, a.folder)
        if why:
            print(f"{name}: skipped, {why}", file=sys.stderr)
        else:
            peers.append(name)
    size = str(a.size)
    ours = [a.program, "bench", "-m", a.folder, "--device", "cpu", "-W", size, "-H", size, "--repeats", str(a.repeats), "--json"]
    seconds, memory, ceilings = {}, {}, []
    for _ in range(a.rounds):
        made = run(ours)
        if made is None:
            raise SystemExit(f"{' '.join(ours)} failed")
        object, _ = made
        ceilings.append(object["ceiling"])
        batch = 2 if object["guidance"] > 1 else 1
        parts = {row["part"]: row["seconds"] for row in object["rows"] if row["group"] is None}
        # The ceiling's own arrays come after the model's parts and are no part of their peak.
        sides = [("headwater", parts, object["peak_memory"])]
        for name in list(peers):
            made = run([sys.executable, __file__, a.folder, "--child", name, "--batch", str(batch), "--size", size, "--repeats", str(a.repeats)])
            if made is None:
                print(f"{name}: skipped, it failed", file=sys.stderr)
                peers.remove(name)
                continue
            sides.append((name, *made))
        for side, parts, peak in sides:
            memory.setdefault(side, []).append(peak)
            for part in PARTS:
                if part in parts:
                    seconds.setdefault((part, side), []).append(parts[part])
    rows = []
    print("| part | " + " | ".join(["Headwater", *(f"{name} | ratio" for name in peers)]) + " |")
    print("|---|" + "---:|" * (1 + 2 * len(peers)))
    for part in PARTS:
        if (part, "headwater") not in seconds:
            continue
        row = {"part": part}
        for side in ("headwater", *peers):
            lists = seconds.get((part, side))
            if lists:
                every = [s for one in lists for s in one]
                row[side] = {"median": statistics.median(map(statistics.median, lists)), "fastest": min(every), "slowest": max(every), "seconds": lists}
        own, cells = row["headwater"], [f"{row['headwater']['median']:.4g} s"]
        for name in peers:
            if name not in row:
                cells += ["", ""]
                continue
            theirs = row[name]
            theirs["ratio"] = theirs["median"] / own["median"]
            theirs["within_spread"] = theirs["fastest"] <= own["slowest"] and own["fastest"] <= theirs["slowest"]
            cells += [f"{theirs['median']:.4g} s", f"{'~' if theirs['within_spread'] else ''}{theirs['ratio']:.2f}"]
        rows.append(row)
        print(f"| {part} | " + " | ".join(cells) + " |")
    if all(memory["headwater"]):
        peaks = {side: statistics.median(values) for side, values in memory.items()}
        cells = [f"{peaks['headwater'] / 1e9:.2f} GB"]
        for name in peers:
            cells += [f"{peaks[name] / 1e9:.2f} GB", f"{peaks[name] / peaks['headwater']:.2f}"]
        print("| peak memory | " + " | ".join(cells) + " |")
    if a.chart:
        title = f"{pathlib.Path(a.folder).name}, {a.size} × {a.size}, CPU, f32: seconds, less is better"
        pathlib.Path(a.chart).write_text(chart(rows, ("headwater", *peers), title))
    pathlib.Path(a.out).write_text(json.dumps({"folder": a.folder, "size": a.size, "ceilings": ceilings, "rows": rows, "memory": memory}, indent=1) + "\n")


if __name__ == "__main__":
    main()
