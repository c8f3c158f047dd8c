"""Everything in one command: autoencoder, latents, teacher, judge, student, measurements, plots.

    python reproduce.py --data DIR128 --work RUNS                     # two CPU cores: a day
    python reproduce.py --data DIR128 --work RUNS --preset gpu        # one large GPU
    python reproduce.py --data DIR64 --work RUNS64 --preset pixels    # models of 64x64 pixels
    python reproduce.py --data DIR128 --work RUNS --init RUNS64/models/icons-64      # begins with their weights

A stopped run goes on where it was. --only names steps. For a machine that is lent for minutes at a time: --session 8 stops a
run after eight minutes (the same command goes on), and --parts DIR leaves the exported folders there as tar files of at most
15 MiB (cat them in order | tar x). --rehearse takes a few steps of each run of a preset, in small batches, and leaves all of it
under RUNS: some minutes on two cores tell whether the hours will end well."""

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from presets import PRESETS, RUNS

HERE = Path(__file__).parent
STEPS = ["autoencoder", "latents", "teacher", "judge", "student", "ct", "quality", "plots"]
# a few steps with the drawings of one style; one thread, since two wait for each other where other programs use the same cores
REHEARSAL = dict(
    runs=["--pictures", 48, "--batch", 8, "--workers", 1, "--warm-up", 2, "--no-compile", "--threads", 1, "--recipe", "emoji"],
    autoencoder=["--pictures", 32],
    latents=["--count", 500, "--threads", 1, "--recipe", "emoji"],
    teacher=["--steps", 4],
    student=["--fit", 20],
    judge=["--pictures", 800, "--batch", 32, "--workers", 1, "--threads", 1, "--recipe", "emoji"],
    quality=["--count", 24, "--draws", 1, "--reference", 100, "--teacher-steps", 4, "--student-steps", 1, "--recipe", "emoji"],
    sheet=["--count", 8],
)
THINGS = "cat rose rocket mushroom heart fish house frog butterfly guitar pizza rabbit".split()
IN_STYLES = "", ", 3d style", ", flat vector style", ", noto emoji style", ", black and white icon", ", silhouette icon", ", pixel art"
SHAPES = "a red heart", "a green circle", "an orange square", "a yellow heart", "a purple square", "a brown circle", "a blue heart", "a blue circle"


def run(script, *arguments, may_stop=False):
    """-> whether it is complete"""
    command = [sys.executable, script, *map(str, arguments)]
    print("+", *command[1:], flush=True)
    code = subprocess.run(command, cwd=HERE).returncode
    if code not in ((0, 3) if may_stop else (0,)):
        sys.exit(f"{script} failed with exit code {code}")
    return code == 0


def pack(folder, parts, size=15 * 2**20):
    """The folder as NAME.tar.00, NAME.tar.01 ..."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(folder, arcname=folder.name)
    data = buffer.getvalue()
    parts.mkdir(parents=True, exist_ok=True)
    for n in range(0, len(data), size):
        (parts / f"{folder.name}.tar.{n // size:02}").write_bytes(data[n : n + size])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True)
    p.add_argument("--work", required=True, help="folder for runs, not part of the project")
    p.add_argument("--models", help="folder for what is made [default: that of the bundled models, and of pixels WORK/models]")
    p.add_argument("--init", help="folder of a teacher on pixels, with whose weights the one on latents begins; FOLDER-consistency is its student")
    p.add_argument("--preset", choices=PRESETS, default="cpu")
    p.add_argument("--only", nargs="*", choices=STEPS, default=STEPS)
    p.add_argument("--rehearse", action="store_true")
    p.add_argument("--session", type=float)
    p.add_argument("--parts")
    a = p.parse_args()
    preset, data, work, init = PRESETS[a.preset], Path(a.data).resolve(), Path(a.work).resolve(), a.init and Path(a.init).resolve()
    apart = a.rehearse or a.preset == "pixels"  # what is no part of the project
    models = Path(a.models or (work / "models" if apart else HERE / "../assets/models")).resolve()
    few = REHEARSAL if a.rehearse else dict.fromkeys(REHEARSAL, [])
    if a.rehearse:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # of what takes no --threads
    limits = few["runs"] + ([] if a.session is None else ["--session", a.session])
    latents = work / "latents" if "latents" in preset else None
    teacher = models / ("icons-128" if latents else "icons-64")
    student = models / f"{teacher.name}-consistency"
    results = work if apart else HERE / teacher.name
    results.mkdir(parents=True, exist_ok=True)
    recipe = ["--recipe", preset["recipe"], "--data", data]
    steps = [step for step in a.only if step not in ("autoencoder", "latents", "ct") or step in preset]

    def train(name, script, arguments, folder, *options):
        """A run, and the folder that is made of it, complete or not."""
        complete = run(script, *arguments, "--out", work / name, *preset[name], *limits, may_stop=True)
        tokenizer = [] if name == "autoencoder" else ["--tokenizer", work / name / "tokenizer"]
        run("export.py", work / name / "checkpoint.pt", "--data", data, "--out", folder, *tokenizer, *options)
        if a.parts:
            pack(folder, Path(a.parts))
        if not complete:
            sys.exit(f"the run {name} has not had all its time: run the same command again")

    if "autoencoder" in steps:
        train("autoencoder", "autoencoder.py", ["--data", data], work / "autoencoder-model", "--autoencoder", *few["autoencoder"])
    if "latents" in steps:
        run("latents.py", *recipe, "--autoencoder", work / "autoencoder-model", "--out", latents, *preset["latents"], *few["latents"])
    if "judge" in steps:
        run("evaluator.py", *recipe, "--out", work / "judge.pt", *preset["judge"], *few["judge"])
    before = None  # the last student and its teacher
    for name, kind in RUNS.items():
        if name not in preset or kind not in steps:
            continue
        on = ["--latents", latents] if latents else []
        if kind == "teacher":
            begins = ["--init", init] if latents and init else ["--init", teacher] if not latents and name != "teacher" else []
            start = [*begins, *(["--patch", 2] if latents else [])]
            train(name, "train.py", [*start, *on, *recipe], teacher, *few["teacher"])
        else:
            pair = ["--before", before / teacher.name, before / student.name] if before else []
            train(name, "consistency.py", ["--teacher", teacher, *pair, *on, *recipe, *few["student"]], student, "--consistency")
            before = work / name / "pair"
            for model in (teacher, student):
                shutil.copytree(model, before / model.name, dirs_exist_ok=True)
    if "ct" in steps:
        train("ct", "consistency.py", ["--mode", "ct", "--data", data], work / "ct-model", "--consistency")
        run("sample.py", work / "ct-model", *SHAPES, "--steps", 1, 2, 4, "--seed", 3, "--out", results / "samples-ct.png")
    if "quality" in steps:
        for captions, file in (preset["recipe"], "quality.json"), ("everyday", "quality-everyday.json"):
            run("quality.py", "--data", data, "--recipe", captions, "--evaluator", work / "judge.pt", "--teacher", teacher, "--student", student,
                "--count", 300, "--out", results / file, *preset.get("quality", []), *few["quality"])
    if "plots" in steps:
        logs = lambda kind: [work / name / "log.csv" for name, k in RUNS.items() if name in preset and k == kind]
        run("plot.py", *logs("teacher"), "--out", results / "loss.png")
        run("plot.py", *logs("student"), *([work / "ct/log.csv"] if "ct" in preset else []), "--out", results / "loss-consistency.png")
        run("sample.py", teacher, "--out", results / "samples.png")
        run("sample.py", student, "--steps", 1, 2, 4, "--out", results / "samples-consistency.png")
        prompts = [f"a {thing}{style}" for style in IN_STYLES for thing in THINGS]
        run("sample.py", teacher, *prompts, "--columns", len(THINGS), "--out", results / "samples-styles.png")
        if init:
            run("sheet.py", "--old", init, f"{init}-consistency", "--new", teacher, student, "--out", results / "sheet.png",
                *few["sheet"])


if __name__ == "__main__":
    main()
