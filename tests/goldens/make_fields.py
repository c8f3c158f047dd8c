"""The fields that diffusers' classes know in their configurations: fields.json.

    pip install -r requirements.txt && python make_fields.py

Whatever else a config.json says, diffusers passes over.
"""

import inspect
import json
from pathlib import Path

import diffusers

CLASSES = ["AutoencoderKL", "AutoencoderTiny", "DiTTransformer2DModel", "PixArtTransformer2DModel", "UNet2DConditionModel", "UNet2DModel"]


def main():
    fields = {name: list(inspect.signature(getattr(diffusers, name).__init__).parameters)[1:] for name in CLASSES}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(names)}" for name, names in fields.items())
    Path(__file__).with_name("fields.json").write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()
