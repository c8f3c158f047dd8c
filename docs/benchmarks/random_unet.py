"""A checkpoint to measure time with: a UNet of Stable Diffusion 1.5's blocks at 0.4 of its channels (135 million random weights) for latents of 32 x 32,
beside the other parts of the tiny golden pipeline: python random_unet.py FOLDER. What it draws means nothing.
"""

import shutil
import sys
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

PARTS = Path(__file__).parents[2] / "tests/goldens/pipelines/stable_diffusion"


def main():
    folder = Path(sys.argv[1])
    for part in ["model_index.json", "scheduler", "text_encoder", "tokenizer", "vae"]:
        copy = shutil.copytree if (PARTS / part).is_dir() else shutil.copy
        folder.mkdir(parents=True, exist_ok=True)
        copy(PARTS / part, folder / part)
    torch.manual_seed(0)
    unet = UNet2DConditionModel(sample_size=32, block_out_channels=(128, 256, 512, 512), cross_attention_dim=24, attention_head_dim=8)
    print(f"{sum(weight.numel() for weight in unet.parameters()) / 1e6:.0f} million weights")
    unet.save_pretrained(folder / "unet")


if __name__ == "__main__":
    main()
