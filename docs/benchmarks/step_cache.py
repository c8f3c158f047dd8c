"""What keeping values from step to step costs and how far it moves pictures: python step_cache.py HEADWATER [MODEL [STEP_CACHE...]]

Each row: evaluations that used kept values, of all; predictions of the network; CPU time beside that of no step cache (whole program, sums over all
prompts, every row in turn for each prompt); and the difference from the picture without, of the same prompt and seed: root mean square and mean of the
absolute values, in levels of 255 (medians over prompts and seeds). Of a model with latents these are the latents', beside their own range of -1..1.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path

from guidance_interval import PROMPTS, SEEDS, STEPS, cpu_seconds, distance, sample

ROWS = ["first-block:0", "first-block:0.1", "first-block:0.2", "first-block:0.4", "t-gate:15", "t-gate:10", "t-gate:5"]


def make(program, model, folder, prompt, row):
    """The pictures, what is told of the first, and the CPU seconds."""
    own = [] if row == "off" else ["--step-cache", row]
    command = [program, "generate", prompt, "-m", model, "--device", "cpu", "-t", "1", "--steps", str(STEPS), "--guidance", "3"]
    command += ["-s", "1", "-n", str(SEEDS), "--batch", "1", "--json", "-q", "-o", f"{folder}/{{seed}}.safetensors", *own]
    done, seconds = cpu_seconds(command)
    told = [json.loads(line) for line in done.splitlines()]
    return [sample(one["path"]) for one in told], told, seconds


def main():
    program, model = str(Path(sys.argv[1]).resolve()), (sys.argv[2:] or ["icons-64"])[0]
    rows = ["off", *(sys.argv[3:] or ROWS)]
    made = {row: [] for row in rows}
    for prompt in PROMPTS:
        for row in rows:
            with tempfile.TemporaryDirectory() as folder:
                made[row].append(make(program, model, folder, prompt, row))
    print("| `--step-cache` | reused | predictions | CPU time | root mean square | mean |\n|---|---:|---:|---:|---:|---:|")
    for row in rows:
        pairs = [pair for own, full in zip(made[row], made["off"]) for pair in zip(own[0], full[0])]
        told = [one for own in made[row] for one in own[1]]
        median = lambda key: f"{statistics.median(one[key] for one in told):g}"
        share = sum(own[2] for own in made[row]) / sum(own[2] for own in made["off"])
        moved = statistics.median(distance(a, b) for a, b in pairs)
        mean = statistics.median(sum(abs(x - y) for x, y in zip(a, b)) / len(a) for a, b in pairs)
        print(f"| {row} | {median('reused')} of {median('evaluations')} | {median('predictions')} | {share:.2f} | {moved:.1f} | {mean:.1f} |", flush=True)


if __name__ == "__main__":
    main()
