"""Two tiny PixArt pipelines in diffusers' layout, for end-to-end parity: pipelines/pixels and pipelines/epsilon.

    pip install -r requirements.txt && python make_pipelines.py && python make_pictures.py pipelines/{pixels,epsilon}

They are trained for some seconds on coloured squares: an untrained network would drive every pixel out of range, and a
comparison of saturated pictures shows nothing. Weights differ a little from machine to machine, so they are kept in git.
"""

import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, PixArtTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

HERE = Path(__file__).parent
COLOURS = {"red": (1, -1, -1), "green": (-1, 0.6, -1), "blue": (-0.8, -0.6, 1), "white": (1, 1, 1), "yellow": (1, 0.9, -1)}
LINEAR = {"num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
# Ends at a sigma of 4, not 150: a tiny network's error in epsilon is multiplied by it.
SCALED = {"num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.008, "beta_schedule": "scaled_linear"}

PIPELINES = {
    # raw pixels and x0-prediction, as the bundled model
    "pixels": {
        "prediction": "sample", "betas": LINEAR, "size": 32, "tokenizer": "files",
        "text": {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2, "hidden_act": "quick_gelu"},
        "net": {"sample_size": 32, "patch_size": 8, "in_channels": 3, "out_channels": 3, "num_layers": 2, "num_attention_heads": 2,
                "attention_head_dim": 20, "cross_attention_dim": 40, "caption_channels": 24},
        "scheduler": lambda: DPMSolverMultistepScheduler(
            **LINEAR, prediction_type="sample", algorithm_type="dpmsolver++", solver_order=2, use_karras_sigmas=True),
        "shard": "10GB",
    },
    # everything else that a checkpoint may differ in: epsilon, learned sigma, no caption projection, no biases, shards
    "epsilon": {
        "prediction": "epsilon", "betas": SCALED, "size": 16, "tokenizer": "json",
        "text": {"hidden_size": 20, "num_attention_heads": 2, "num_hidden_layers": 1, "hidden_act": "gelu"},
        "net": {"sample_size": 16, "patch_size": 2, "in_channels": 3, "out_channels": 6, "num_layers": 2, "num_attention_heads": 3,
                "attention_head_dim": 12, "cross_attention_dim": 20, "attention_bias": False},
        "scheduler": lambda: DDIMScheduler(
            **SCALED, prediction_type="epsilon", clip_sample=False, set_alpha_to_one=False, steps_offset=1, timestep_spacing="leading"),
        "shard": "100KB",
    },
}


def batch(size, count):
    """Squares of one colour on another, with their captions; one in eight has none."""
    pictures, captions = torch.empty(count, 3, size, size), []
    names = list(COLOURS)
    for i in range(count):
        a, b = (names[k] for k in torch.randperm(len(names))[:2])
        picture = torch.tensor(COLOURS[b], dtype=torch.float32)[:, None, None].repeat(1, size, size)
        y, x = torch.randint(1, size // 2, (2,))
        picture[:, y:y + size // 2, x:x + size // 2] = torch.tensor(COLOURS[a], dtype=torch.float32)[:, None, None]
        pictures[i] = picture * 0.8
        captions.append("" if i % 8 == 0 else f"a {a} square on a {b} background")
    return pictures, captions


def train(name, spec, steps=600):
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(HERE / "tokenizers" / spec["tokenizer"])
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), max_position_embeddings=tokenizer.model_max_length, intermediate_size=4 * spec["text"]["hidden_size"],
        projection_dim=spec["text"]["hidden_size"], bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, **spec["text"]))
    net = PixArtTransformer2DModel(norm_type="ada_norm_single", **spec["net"])
    noiser = DDPMScheduler(**spec["betas"])
    optimizer = torch.optim.Adam([*net.parameters(), *text.parameters()], lr=2e-3)
    for step in range(steps):
        x0, captions = batch(spec["size"], 32)
        tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        embeds = text(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
        noise, t = torch.randn_like(x0), torch.randint(0, 1000, (len(x0),))
        out = net(noiser.add_noise(x0, noise, t), encoder_hidden_states=embeds, encoder_attention_mask=tokens.attention_mask, timestep=t).sample
        loss = F.mse_loss(out[:, :3], x0 if spec["prediction"] == "sample" else noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 200 == 199:
            print(name, step + 1, f"{loss.item():.3f}")
    return tokenizer, text.eval(), net.eval()


def save(name, spec, tokenizer, text, net):
    folder = HERE / "pipelines" / name
    shutil.rmtree(folder, ignore_errors=True)
    net.save_pretrained(folder / "transformer", max_shard_size=spec["shard"])
    text.save_pretrained(folder / "text_encoder")
    shutil.copytree(HERE / "tokenizers" / spec["tokenizer"], folder / "tokenizer")
    scheduler = spec["scheduler"]()
    scheduler.save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(f"""{{
  "_class_name": "PixArtAlphaPipeline",
  "_diffusers_version": "0.42.1",
  "scheduler": ["diffusers", "{type(scheduler).__name__}"],
  "text_encoder": ["transformers", "CLIPTextModel"],
  "tokenizer": ["transformers", "CLIPTokenizer"],
  "transformer": ["diffusers", "PixArtTransformer2DModel"],
  "vae": [null, null]
}}
""")


def main():
    torch.set_num_threads(1)  # such small products only lose time to more
    for name, spec in PIPELINES.items():
        save(name, spec, *train(name, spec))


if __name__ == "__main__":
    main()
