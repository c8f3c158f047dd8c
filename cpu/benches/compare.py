#!/usr/bin/env python3
"""Times matrix products by a weight in PyTorch and in Headwater's native executor, in turn.

    python cpu/benches/compare.py [--threads N] [--rounds R] [--program PATH]

Needs torch. Each round measures every shape once with either, so that whatever else the machine does meets both alike.
Two figures per side, in GFLOP/s: the median over the rounds of each round's median, and the best single product of all.
The ratio of the bests is what the hardware allows; the medians also show how each side's threads bear company.
"""

import argparse
import os
import pathlib
import re
import statistics
import subprocess
import time

import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]


def shapes():
    """The shapes of gemm.rs, which are written down there alone."""
    table = (ROOT / "cpu/benches/gemm.rs").read_text().split("const SHAPES", 1)[1].split("];", 1)[0]
    return [tuple(map(int, found)) for found in re.findall(r"\((\d+), (\d+), (\d+)\)", table)]


def build():
    """Builds the benchmark and returns the path of its program."""
    run = subprocess.run(
        ["cargo", "bench", "-p", "headwater-cpu", "--bench", "gemm", "--no-run"],
        cwd=ROOT, check=True, text=True, stderr=subprocess.PIPE,
    )
    found = re.findall(r"Executable .*\((.*)\)", run.stderr)[-1]
    return found if os.path.isabs(found) else str(ROOT / found)


class Headwater:
    def __init__(self, program, threads):
        env = {**os.environ, "HEADWATER_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [program, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def measure(self, m, n, k, repetitions):
        self.process.stdin.write(f"{m} {n} {k} {repetitions}\n")
        self.process.stdin.flush()
        return tuple(map(float, self.process.stdout.readline().split()))


def torch_measure(m, n, k, repetitions):
    x, weight = torch.randn(m, k), torch.randn(n, k)
    seconds = []
    with torch.inference_mode():
        for _ in range(repetitions + 1):
            start = time.perf_counter()
            torch.nn.functional.linear(x, weight)
            seconds.append(time.perf_counter() - start)
    seconds = sorted(seconds[1:])
    return seconds[len(seconds) // 2], seconds[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--program", help="the built benchmark, instead of building it")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    headwater = Headwater(arguments.program or build(), arguments.threads)
    print(f"PyTorch {torch.__version__}, {arguments.threads} threads, GFLOP/s: median (best)")
    print(f"{'m x n x k':>16} {'PyTorch':>18} {'Headwater':>18} {'ratio':>14}")
    for m, n, k in shapes():
        flops = 2 * m * n * k
        repetitions = max(5, min(300, int(2e9 / flops)))
        theirs, ours = [], []
        for _ in range(arguments.rounds):
            theirs.append(torch_measure(m, n, k, repetitions))
            ours.append(headwater.measure(m, n, k, repetitions))
        rate = lambda side: (
            flops / statistics.median(median for median, _ in side) / 1e9,
            flops / min(best for _, best in side) / 1e9,
        )
        (their_median, their_best), (our_median, our_best) = rate(theirs), rate(ours)
        print(
            f"{f'{m}x{n}x{k}':>16} {their_median:9.1f} ({their_best:6.1f}) {our_median:9.1f} ({our_best:6.1f})"
            f" {our_median / their_median:6.2f} ({our_best / their_best:5.2f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
