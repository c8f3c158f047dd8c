"""Make pictures of many jobs on a Ray cluster: actors that each drive one `headwater worker`.

    python examples/ray/generate.py jobs.jsonl out --headwater target/release/headwater --workers 2

jobs.jsonl has what `headwater worker` reads, a job a line: {"id": "a1", "prompt": "a red heart"}. Pictures go to `out/pictures`, a folder that all
nodes must see, and a table with the result of every job to `out/table`, as Parquet. What comes after `--` goes to the workers.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pyarrow as pa
import ray
import ray.data
from ray.data.checkpoint import CheckpointConfig

SCHEMA = pa.schema(
    [
        ("id", pa.string()), ("status", pa.string()), ("file", pa.string()), ("seed", pa.uint64()), ("seconds", pa.float64()),
        ("sha256", pa.string()), ("error", pa.string()),
    ]
)

# How often an actor starts its worker anew for one batch, before it says of a job that its device failed at it.
TRIES = 3


class Ended(RuntimeError):
    """The worker ended before it had answered all."""


class Headwater:
    """A worker for as long as the actor lives, so that models are loaded once. A batch of jobs goes in, as many results come out."""

    def __init__(self, program: str, folder: str, flags: list[str]):
        # No two processes write to one file of results: each actor that ever lived has a name. Pictures of all are in one folder, by their ids.
        name = f"ray-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.command = [program, "worker", "-", "--output", folder, "--name", name, "--json", "--heartbeat", "0", *flags]
        self.process = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        jobs = {row["id"]: row["job"] for row in batch.to_pylist()}
        rows = {}
        for left in reversed(range(TRIES)):
            try:
                for result in self._answers([job for name, job in jobs.items() if name not in rows]):
                    if not result["retry"] or not left:
                        rows[result["id"]] = row(result)
            except Ended:
                if not left:
                    # Ray puts the batch to another actor.
                    raise
            if len(rows) == len(jobs):
                return pa.Table.from_pylist(list(rows.values()), SCHEMA)
            # A device that failed may be in no state for more. A new process passes over what this one has done.
            self.process.kill()
            self.process.wait()
        raise Ended("the worker answered for other jobs than it was given")

    def _answers(self, jobs: list[str]):
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        # On a thread of its own: a pipe holds 64 KB, so answers must be read before all jobs are written.
        threading.Thread(target=write, args=(self.process.stdin, jobs), daemon=True).start()
        left = len(jobs)
        while left:
            line = self.process.stdout.readline()
            if not line:
                raise Ended(f"headwater ended with code {self.process.wait()}")
            result = json.loads(line)
            if result["type"] == "result":
                left -= 1
                yield result


def write(pipe, jobs: list[str]) -> None:
    try:
        pipe.write("".join(job + "\n" for job in jobs))
        pipe.flush()
    except BrokenPipeError:
        # Whoever reads comes upon the end, too.
        pass


def row(result: dict) -> dict:
    image = result["images"][0] if result["images"] else {}
    named = ["id", "status", "file", "seed", "seconds", "error"]
    return {name: result[name] for name in named} | {"sha256": image.get("sha256")}


def read_jobs(path: str) -> list[dict]:
    """A row a job: its id and its line. Lines that make no job are named and left out."""
    jobs = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        try:
            name = str(json.loads(line)["id"])
        except (ValueError, KeyError, TypeError):
            print(f"{path}:{number}: no JSON object with an id", file=sys.stderr)
            continue
        if name in jobs:
            print(f"{path}:{number}: an earlier line has its id, {name}", file=sys.stderr)
            continue
        jobs[name] = {"id": name, "job": line.strip()}
    return list(jobs.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog="What comes after -- are flags of headwater worker.")
    parser.add_argument("jobs")
    parser.add_argument("output")
    parser.add_argument("--headwater", default="headwater", help="the program, at the same path on every node")
    parser.add_argument("--workers", type=int, default=2, help="actors: one for a GPU, or one for a node")
    parser.add_argument("--gpus", type=float, default=0, help="of an actor, as Ray counts them")
    parser.add_argument("--cpus", type=float, default=1, help="of an actor")
    parser.add_argument("--batch", type=int, default=64, help="jobs of a batch, which is put to another actor when one dies")
    words = sys.argv[1:]
    at = words.index("--") if "--" in words else len(words)
    args, flags = parser.parse_args(words[:at]), words[at + 1 :]
    output = Path(args.output).absolute()
    (output / "pictures").mkdir(parents=True, exist_ok=True)
    jobs = read_jobs(args.jobs)
    # A path is from here; a name is looked for on each node.
    program = str(Path(args.headwater).absolute()) if os.sep in args.headwater else args.headwater
    ray.init(ignore_reinit_error=True)
    context = ray.data.DataContext.get_current()
    # What is in the table is known by its id to a run that comes after one that was killed.
    context.checkpoint_config = CheckpointConfig("id", str(output / "checkpoint"), delete_checkpoint_on_success=False)
    # Nothing is wrong with a batch whose actor failed.
    context.actor_task_retry_on_errors = True
    blocks = max(1, -(-len(jobs) // args.batch))
    results = ray.data.from_items(jobs, override_num_blocks=blocks).map_batches(
        Headwater,
        fn_constructor_args=(program, str(output / "pictures"), flags),
        batch_format="pyarrow",
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=args.workers),
        num_cpus=args.cpus,
        num_gpus=args.gpus,
    )
    results.write_parquet(str(output / "table"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
