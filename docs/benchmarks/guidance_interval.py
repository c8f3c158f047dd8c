"""What guidance in a limited interval costs and how far it moves pictures, on the bundled teacher: python guidance_interval.py HEADWATER

Each row: predictions of the network, CPU time beside full guidance (the sums over all runs, the two in turn), and the root mean square of the
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

PROMPTS = ["a rocket", "a red heart", "a fox", "a star", "a green fish", "a blue house"]
SEEDS = 4
STEPS = 40
ROWS = ["0,inf", "0,20", "0,5", "0,2", "0.2,inf", "0.2,20", "0.2,5", "0.5,3", "2,inf", "off"]


def sample(path):
    """The one tensor of a file, in levels of 255."""
    data = Path(path).read_bytes()
    values = array.array("f", data[8 + int.from_bytes(data[:8], "little") :])
    return [127.5 * (1 + max(-1.0, min(1.0, value))) for value in values]


def distance(one, other):
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(one, other)) / len(one))


def make(program, folder, prompt, row):
    """The pictures, how often the network predicted for each, and the CPU seconds."""
    own = ["--guidance", "1"] if row == "off" else ["--guidance", "3", "--guidance-interval", row]
    command = [program, "generate", prompt, "-m", "icons-64", "--device", "cpu", "-t", "1", "--steps", str(STEPS)]
    command += ["-s", "1", "-n", str(SEEDS), "--batch", "1", "--json", "-q", "-o", f"{folder}/{{seed}}.safetensors", *own]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return [sample(one["path"]) for one in told], told[0]["predictions"], seconds


def main():
    program = str(Path(sys.argv[1]).resolve())
    print("| interval | predictions | CPU time | difference |\n|---|---:|---:|---:|")
    for row in ROWS:
        spent, whole, differences = 0.0, 0.0, []
        for prompt in PROMPTS:
            with tempfile.TemporaryDirectory() as folder:
                full, _, seconds = make(program, folder, prompt, "0,inf")
                whole += seconds
                own, predictions, seconds = make(program, folder, prompt, row)
                spent += seconds
            differences += [distance(a, b) for a, b in zip(full, own)]
        median = statistics.median(differences)
        print(f"| {row} | {predictions} | {spent / whole:.2f} | {median:.1f} |", flush=True)


if __name__ == "__main__":
    main()
