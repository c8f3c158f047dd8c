"""What f32-only corners of diffusers compute, in f64, so that a golden is exact."""

import math

import torch


def get_timestep_embedding(timesteps, embedding_dim, flip_sin_to_cos=False, downscale_freq_shift=1, scale=1, max_period=10000):
    """diffusers.models.embeddings.get_timestep_embedding, without its casts to f32."""
    half = embedding_dim // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float64) / (half - downscale_freq_shift))
    angles = scale * timesteps.double()[:, None] * frequencies
    parts = [angles.cos(), angles.sin()] if flip_sin_to_cos else [angles.sin(), angles.cos()]
    return torch.cat(parts, dim=-1)


class exact:
    """While it is entered, diffusers embeds timesteps in f64."""

    def __enter__(self):
        import diffusers.models.embeddings as embeddings

        self.module, self.own = embeddings, embeddings.get_timestep_embedding
        embeddings.get_timestep_embedding = get_timestep_embedding

    def __exit__(self, *_):
        self.module.get_timestep_embedding = self.own


def f32_error(exact, rounded):
    """The largest error of PyTorch's own f32 result, relative to the largest exact value."""
    return float((rounded.double() - exact).abs().max() / exact.abs().max())
