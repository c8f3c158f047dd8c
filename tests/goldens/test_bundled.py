"""The bundled models, as Python sees them: the listed files and no others, loaded by diffusers and transformers, and drawing the
pictures in bundled/ that the Rust tests compare with.

    pip install -r requirements.txt && python test_bundled.py
"""

import hashlib
import json
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers
from make_pictures import Pipeline, drawn
from PIL import Image

HERE = Path(__file__).parent
MODELS = HERE / "../../assets/models"
NAMES = "icons-64", "icons-64-consistency", "icons-128"
LIBRARIES = {"diffusers": diffusers, "transformers": transformers}


def test_the_files_are_those_that_were_made():
    listed = dict(line.split("  ")[::-1] for line in (MODELS / "SHA256SUMS").read_text().splitlines())
    files = [f for f in MODELS.glob("*/**/*") if f.is_file() and f.name != "README.md"]
    assert {f.relative_to(MODELS).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files} == listed
    assert {name.split("/")[0] for name in listed} == set(NAMES)


def test_diffusers_loads_all_of_them():
    for name in NAMES:
        index = json.loads((MODELS / name / "model_index.json").read_text())
        listed = {part: names for part, names in index.items() if isinstance(names, list) and names[0]}
        kinds = {part: getattr(LIBRARIES[library], kind) for part, (library, kind) in listed.items()}
        for part in ("tokenizer", "scheduler"):
            kinds.pop(part).from_pretrained(MODELS / name / part)
        for part in kinds:
            _, left_out = kinds[part].from_pretrained(MODELS / name / part, output_loading_info=True)
            assert not any(left_out.values()), left_out  # of the file or of the network


def test_diffusers_draws_the_pictures_of_the_rust_tests():
    diffusers.schedulers.scheduling_lcm.randn_tensor = drawn
    for name in NAMES:
        pipeline = Pipeline(MODELS / name)
        for case in json.loads((HERE / "bundled" / name / "cases.json").read_text()):
            listed = {k: case.pop(k) for k in ("file", "timesteps", "f64_difference")}
            picture, timesteps = pipeline(**case)
            golden = np.asarray(Image.open(HERE / "bundled" / name / listed["file"])).astype(int)
            assert timesteps == listed["timesteps"]
            assert np.abs(picture - golden).max() <= 1, f"{name}: {listed['file']}"  # one grey level: another CPU's rounding


if __name__ == "__main__":
    with torch.no_grad():
        for name, test in list(globals().items()):
            if name.startswith("test_"):
                test()
                print(name)
