"""Try generate.py with two actors on this machine, one of which is killed in the middle: no job may be lost, and none be there twice.

    python examples/ray/kill_one.py target/release/headwater [JOBS]

Each actor is killed once, and the whole program in a second round. Pictures are compared with those of one `headwater worker` alone.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet

HERE = Path(__file__).parent


def start(program: str, folder: Path) -> subprocess.Popen:
    command = [sys.executable, str(HERE / "generate.py"), "jobs.jsonl", "out", "--headwater", program, "--batch", "8", "--cpus", "0.5"]
    # A session of its own, so that nothing of it survives when it is killed.
    return subprocess.Popen([*command, "--", "--device", "cpu", "--threads", "1"], cwd=folder, start_new_session=True)


def workers(folder: Path) -> list[tuple[int, int]]:
    """Processes of `headwater worker` that write into this folder, each with its parent, which is the actor."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
            parent = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, ValueError):
            continue
        if b"worker" in command and str(folder).encode() in b" ".join(command):
            found.append((int(process.name), parent))
    return found


def finished(folder: Path) -> int:
    return len(list((folder / "out" / "pictures").glob("*.png")))


def wait_until(what, run: subprocess.Popen) -> None:
    until = time.monotonic() + 600
    while not what():
        assert run.poll() is None, f"it ended with code {run.returncode}"
        assert time.monotonic() < until, "nothing happens"
        time.sleep(0.05)


def check(folder: Path, jobs: list[dict]) -> None:
    table = pyarrow.parquet.read_table(folder / "out" / "table").to_pylist()
    assert sorted(row["id"] for row in table) == sorted(job["id"] for job in jobs), f"{len(table)} rows of {len(jobs)} jobs"
    alone = {}
    for line in next((folder / "alone").glob("results-*.jsonl")).read_text().splitlines():
        result = json.loads(line)
        alone[result["id"]] = result["images"][0]["sha256"]
    for row in table:
        contents = (folder / "out" / "pictures" / row["file"]).read_bytes()
        assert row["status"] == "done" and hashlib.sha256(contents).hexdigest() == row["sha256"] == alone[row["id"]], row
    names = sorted(path.name for path in (folder / "out" / "pictures").iterdir() if not path.name.startswith("results-"))
    assert names == sorted(row["file"] for row in table), "files that no row names"


def main() -> int:
    program = str(Path(sys.argv[1]).absolute())
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 120
    things = ["a red heart", "a blue fish", "a yellow star", "a green tree"]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        jobs = [{"id": f"job-{n}", "prompt": f"{things[n % 4]}", "steps": 4} for n in range(count)]
        (folder / "jobs.jsonl").write_text("".join(json.dumps(job) + "\n" for job in jobs))
        subprocess.run([program, "worker", "jobs.jsonl", "-o", "alone", "--device", "cpu", "-q"], cwd=folder, check=True)

        run = start(program, folder)
        wait_until(lambda: len(workers(folder)) == 2 and finished(folder) >= count // 8, run)
        process, actor = workers(folder)[0]
        os.kill(actor, signal.SIGKILL)
        print(f"killed an actor when {finished(folder)} of {count} pictures were there")
        wait_until(lambda: finished(folder) >= count // 3, run)
        process, actor = workers(folder)[-1]
        os.kill(process, signal.SIGKILL)
        print(f"killed a worker when {finished(folder)} were there")
        wait_until(lambda: finished(folder) >= count // 2, run)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        print(f"killed the whole run when {finished(folder)} were there")
        while workers(folder):
            # Their input has ended, so they finish what they were given.
            time.sleep(0.05)
        run = start(program, folder)
        assert run.wait() == 0
        check(folder, jobs)
        print(f"{count} jobs, {count} rows, {count} pictures, all as one worker alone makes them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
