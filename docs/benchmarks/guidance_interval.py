"""What guidance in a limited interval costs and how far it moves pictures, on the bundled teacher: python guidance_interval.py HEADWATER

Each row: predictions of the network, CPU time beside full guidance (whole program, sums over all prompts), and the root mean square of the
difference from the fully guided picture of the same prompt and seed, in levels of 255 (median over prompts and seeds).
"""

import array
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PROMPTS = ["a rocket", "a red heart", "a fox"]
SEEDS = 3
STEPS = 20
ROWS = ["0,20", "0,5", "0.5,20", "0.5,5", "off"]


def sample(path):
    """The one tensor of a file, in levels of 255."""
    data = Path(path).read_bytes()
    values = array.array("f", data[8 + int.from_bytes(data[:8], "little") :])
    return [127.5 * (1 + max(-1.0, min(1.0, value))) for value in values]


def distance(one, other):
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(one, other)) / len(one))


def cpu_seconds(command):
    """What a command prints, and the CPU seconds that it takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def make(program, folder, prompt, row):
    """The pictures, how often the network predicted for each, and the CPU seconds."""
    own = ["--guidance", "1"] if row == "off" else ["--guidance", "3", "--guidance-interval", row]
    command = [program, "generate", prompt, "-m", "icons-64", "--device", "cpu", "-t", "1", "--steps", str(STEPS)]
    command += ["-s", "1", "-n", str(SEEDS), "--batch", "1", "--json", "-q", "-o", f"{folder}/{{seed}}.safetensors", *own]
    done, seconds = cpu_seconds(command)
    told = [json.loads(line) for line in done.splitlines()]
    return [sample(one["path"]) for one in told], told[0]["predictions"], seconds


def main():
    program = str(Path(sys.argv[1]).resolve())
    print("| interval | predictions | CPU time | difference |\n|---|---:|---:|---:|")
    whole = {}
    for row in ["0,inf", *ROWS]:
        spent, differences = 0.0, []
        for prompt in PROMPTS:
            with tempfile.TemporaryDirectory() as folder:
                own, predictions, seconds = make(program, folder, prompt, row)
            full, _, _ = whole.setdefault(prompt, (own, predictions, seconds))
            spent += seconds
            differences += [distance(a, b) for a, b in zip(full, own)]
        share = spent / sum(seconds for _, _, seconds in whole.values())
        print(f"| {row} | {predictions} | {share:.2f} | {statistics.median(differences):.1f} |", flush=True)


if __name__ == "__main__":
    main()
