"""Everything in one command: teacher, judge, student, a CT run from nothing, measurements, plots.

    python reproduce.py --data DIR --work RUNS                         # two CPU cores
    python reproduce.py --data DIR --work RUNS --preset gpu            # goes on from the bundled models: one large GPU, a quarter of an hour

A stopped run goes on where it was. --only names steps. For a machine that is lent for minutes at a time: --session 8 stops a
run after eight minutes (the same command goes on), and --parts DIR leaves the exported folders there as tar files of at most
15 MiB (cat them in order | tar x). --rehearse takes each step of a preset for seconds, in small batches, and leaves all of it
under RUNS: half an hour on two busy cores tells whether the hours will end well."""

import argparse
import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

HERE = Path(__file__).parent
ON = ["--ns-steps", 0, "--lr", 2e-3, "--warm-up", 40]  # of runs that go on from an exported folder
LATER = ["--lr", 2.5e-3, "--log-sigma", 1.2, 1.5]  # of the later ones; of two equal flags the last counts
DISTIL = ["--threads", 2, "--ns-steps", 0, "--warm-up", 40, "--ema", 0.998, "--save-minutes", 4]
# of several runs that differ in length and seed alone
STYLES = ["--recipe", "wide_styles", "--batch", 64, "--compile", "--threads", 2, *ON, *LATER, "--lr", 3e-3, "--warm-up", 200, "--ema", 0.999, "--decay", 0.6]
STYLES_STUDENT = ["--recipe", "wide_styles", "--batch", 64, "--compile", *DISTIL, "--lr", 7e-4, "--decay", 0.9, "--middle", 0.2, "--guidance", 1.5, 3.5, 2]
PRESETS = {
    # the settings of the bundled weights (see the model cards for how long they ran)
    "cpu": dict(
        recipe="wide",
        teacher=["--recipe", "emoji", "--fold-in", "--minutes", 105],
        broader=["--recipe", "common", "--minutes", 54, "--threads", 1, *ON, "--ema", 0.995, "--decay", 0.35, "--seed", 5],
        styles=["--recipe", "styles", "--minutes", 85, "--threads", 2, *ON, "--ema", 0.998, "--decay", 0.5, "--seed", 6],
        even=["--recipe", "even", "--minutes", 56, "--steps", 2675, "--threads", 2, *ON, *LATER, "--ema", 0.999, "--decay", 0.5, "--seed", 8],
        everyday=["--recipe", "everyday", "--minutes", 38, "--threads", 2, *ON, *LATER, "--ema", 0.998, "--decay", 0.6, "--seed", 9],
        whiter=["--recipe", "everyday", "--minutes", 72, "--threads", 2, *ON, *LATER, "--ema", 0.998, "--decay", 0.6, "--seed", 10],
        wide=["--minutes", 76, "--batch", 64, "--compile", "--threads", 2, *ON, *LATER, "--lr", 3e-3, "--warm-up", 200, "--ema", 0.999,
              "--decay", 0.6, "--seed", 11],
        wide_even=["--recipe", "wide_even", "--minutes", 68, "--batch", 64, "--compile", "--threads", 2, *ON, *LATER, "--lr", 3e-3,
                   "--warm-up", 200, "--ema", 0.999, "--decay", 0.6, "--seed", 12],
        judge=["--pictures", 300_000],
        student=["--recipe", "everyday", "--minutes", 42, *DISTIL, "--lr", 1e-3, "--decay", 0.6, "--seed", 2, "--distance", "picture"],
        again=["--recipe", "everyday", "--minutes", 52, *DISTIL, "--lr", 5e-4, "--decay", 0.9, "--seed", 3],
        wide_student=["--minutes", 30, "--batch", 64, "--compile", *DISTIL, "--lr", 7e-4, "--decay", 0.9, "--seed", 4],
        even_student=["--recipe", "wide_even", "--minutes", 26, "--batch", 64, "--compile", *DISTIL, "--lr", 7e-4, "--decay", 0.9, "--middle", 0.4,
                      "--seed", 5],
        ramp_student=["--recipe", "wide_even", "--minutes", 75, "--batch", 64, "--compile", *DISTIL, "--lr", 7e-4, "--decay", 0.9, "--middle", 0.4,
                      "--guidance", 1, 4, 4, "--seed", 6],
        interval_student=["--recipe", "wide_even", "--minutes", 17, "--batch", 64, "--compile", *DISTIL, "--lr", 5e-4, "--decay", 1, "--ema", 0.99,
                          "--middle", 0.2, "--guidance", 1.5, 3.5, 2, "--seed", 7],
        wide_styles=["--minutes", 66, "--seed", 13, *STYLES],
        styles_student=["--minutes", 34, "--seed", 8, *STYLES_STUDENT],
        styles_again=["--minutes", 26, "--seed", 10, *STYLES_STUDENT],
        longer=["--minutes", 60, "--seed", 14, *STYLES],
        longer_student=["--minutes", 40, "--seed", 11, *STYLES_STUDENT],
        once_more=["--minutes", 75, "--seed", 15, *STYLES],
        once_more_student=["--minutes", 38, "--seed", 12, *STYLES_STUDENT],
        ct=["--recipe", "shapes", "--minutes", 23, "--threads", 1, "--width", 128, "--layers", 4, "--ns-steps", 0, "--lr", 6e-3,
            "--lowest", -1.6, "--decay", 0.5, "--save-minutes", 2],
    ),
    # goes on from the bundled pair: every style, what two cores cannot do
    "gpu": dict(
        recipe="full",
        full=["--patch", 4, "--batch", 512, "--workers", 15, "--minutes", 7, "--decay", 0.6, "--ema", 0.999, "--lr", 3e-3, "--log-sigma", 1.2, 1.5,
              "--save-minutes", 2, "--seed", 31],
        judge=["--pictures", 400_000, "--batch", 256, "--workers", 15],
        full_student=["--batch", 256, "--workers", 15, "--minutes", 4, "--lr", 7e-4, "--decay", 0.9, "--ema", 0.998, "--middle", 0.2,
                      "--guidance", 1.5, 3.5, 2, "--save-minutes", 2, "--seed", 32],
        ct=["--recipe", "shapes", "--batch", 256, "--workers", 15, "--minutes", 3, "--lr", 3e-3, "--lowest", -1.6],
    ),
}
# a teacher's run goes on from where the last one ended, a student's belongs to the teacher of its time
RUNS = dict(teacher="teacher", broader="teacher", styles="teacher", even="teacher", everyday="teacher", student="student",
            whiter="teacher", again="student", wide="teacher", wide_student="student", wide_even="teacher", even_student="student",
            ramp_student="student", interval_student="student", wide_styles="teacher", styles_student="student",
            styles_again="student", longer="teacher", longer_student="student", once_more="teacher", once_more_student="student",
            full="teacher", full_student="student")
STEPS = ["teacher", "judge", "student", "ct", "quality", "plots"]


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
    p.add_argument("--models", default=HERE / "../assets/models")
    p.add_argument("--preset", choices=PRESETS, default="cpu")
    p.add_argument("--only", nargs="*", choices=STEPS, default=STEPS)
    p.add_argument("--rehearse", action="store_true")
    p.add_argument("--session", type=float)
    p.add_argument("--parts")
    a = p.parse_args()
    preset, data, work = PRESETS[a.preset], Path(a.data).resolve(), Path(a.work).resolve()
    models, results = (work / "models", work) if a.rehearse else (Path(a.models).resolve(), HERE)
    recipe = ["--recipe", preset["recipe"], "--data", data]
    short = ["--minutes", 0.3, "--batch", 8, "--workers", 1] if a.rehearse else []
    limits = short + ([] if a.session is None else ["--session", a.session])
    fewer = ["--pictures", 2000, "--batch", 100, "--workers", 1] if a.rehearse else []
    teacher, student = models / "icons-64", models / "icons-64-consistency"

    def export(name, folder, *options):
        run("export.py", work / name / "checkpoint.pt", "--tokenizer", work / name / "tokenizer", "--data", data, "--out", folder, *options)
        if a.parts:
            pack(folder, Path(a.parts))

    if "judge" in a.only and not (work / "judge.pt").exists():
        run("evaluator.py", *recipe, "--out", work / "judge.pt", *preset["judge"], *fewer)
    before = None  # the last student and its teacher
    if "teacher" not in preset:  # the preset goes on from the bundled pair
        before = work / "start"
        for model in (teacher, student):
            bundled = (HERE / "../assets/models" / model.name).resolve()
            if not (before / model.name).exists():
                shutil.copytree(bundled, before / model.name)
                if model != bundled:
                    shutil.copytree(bundled, model, dirs_exist_ok=True)
    for name, kind in RUNS.items():
        if name not in preset or kind not in a.only:
            continue
        if kind == "teacher":
            start, folder, options = ["train.py"] + (["--init", teacher] if name != "teacher" else []), teacher, []
        else:
            start, folder, options = ["consistency.py", "--teacher", teacher], student, ["--consistency"]
            start += ["--before", before / teacher.name, before / student.name] if before else []
        complete = run(*start, *recipe, "--out", work / name, *preset[name], *limits, may_stop=True)
        export(name, folder, *options)
        if not complete:
            sys.exit(f"the run {name} has not had all its minutes: run the same command again")
        if kind == "student":
            before = work / name / "pair"
            for model in (teacher, student):
                shutil.copytree(model, before / model.name, dirs_exist_ok=True)
    if "ct" in a.only:
        run("consistency.py", "--mode", "ct", "--data", data, "--out", work / "ct", *preset["ct"], *short)
        export("ct", work / "ct-model", "--consistency")
        prompts = "a red heart", "a green circle", "an orange square", "a yellow heart", "a purple square", "a brown circle", "a blue heart", "a blue circle"
        run("sample.py", work / "ct-model", *prompts, "--steps", 1, 2, 4, "--seed", 3, "--out", results / "samples-ct.png")
    if "quality" in a.only:
        for captions, file in (preset["recipe"], "quality.json"), ("everyday", "quality-everyday.json"):
            run("quality.py", "--data", data, "--recipe", captions, "--evaluator", work / "judge.pt", "--teacher", teacher, "--student", student,
                "--count", 24 if a.rehearse else 300, "--out", results / file)
    if "plots" in a.only:
        logs = lambda kind: [work / name / "log.csv" for name, k in RUNS.items() if name in preset and k == kind]
        run("plot.py", *logs("teacher"), "--out", results / "loss.png")
        run("plot.py", *logs("student"), work / "ct/log.csv", "--out", results / "loss-consistency.png")
        run("sample.py", teacher, "--out", results / "samples.png")
        run("sample.py", student, "--steps", 1, 2, 4, "--out", results / "samples-consistency.png")
        things = "cat rose rocket mushroom heart fish house frog butterfly guitar pizza rabbit".split()
        styles = "", ", 3d style", ", flat vector style", ", noto emoji style", ", black and white icon", ", silhouette icon", ", pixel art"
        run("sample.py", teacher, *(f"a {thing}{style}" for style in styles for thing in things), "--columns", len(things), "--out", results / "samples-styles.png")


if __name__ == "__main__":
    main()
