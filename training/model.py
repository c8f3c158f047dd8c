"""The networks, and what they are trained to predict.

A PixArt transformer (Chen et al. 2023, "PixArt-alpha") works on raw pixels: patches of 8x8 make a 64x64 picture a sequence of
64 tokens. Its text comes from a small CLIP text model that is trained along with it.
"""

import ctypes
import sys

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, EDMEulerScheduler, LCMScheduler, PixArtTransformer2DModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

SIZE = 64
TOKENS = 32  # longest caption, begin and end marks included
BETAS = 0.0001, 0.02  # first and last, linear between them (Ho et al. 2020)
# A consistency model with two or four steps adds noise again at timesteps 499, or 759, 499 and 259. With the betas above they are sigma
# 3.4, or 19, 3.4 and 1.0, where what is drawn has long been decided; falling betas that end as high make them 45, or 120, 45 and 9.8.
CONSISTENCY_BETAS = 0.02, 0.0003
# Much noise hides in latents what 1 / 0.6 of it hides in pixels (README, "On latents"): 27, or 83, 27 and 6.6, are as 45, or 140, 45 and 10.
LATENT_BETAS, LATENT_NOISE = (0.016, 0.0043), 0.6


def build_transformer(width=256, layers=6, heads=4, caption_channels=256, patch=8, size=SIZE, channels=3):
    """PixArtTransformer2DModel, started so that each block is close to the identity and the first prediction is zero. A place means the
    same whatever the patches are: its unit is an eighth of the picture."""
    net = PixArtTransformer2DModel(
        sample_size=size, in_channels=channels, out_channels=channels, patch_size=patch, num_layers=layers, num_attention_heads=heads,
        attention_head_dim=width // heads, cross_attention_dim=width, caption_channels=caption_channels,
        norm_type="ada_norm_single", norm_elementwise_affine=False, use_additional_conditions=False,
        interpolation_scale=size / patch / 8,
    )
    nn.init.zeros_(net.adaln_single.linear.weight)
    nn.init.zeros_(net.adaln_single.linear.bias)
    nn.init.zeros_(net.proj_out.weight)
    nn.init.zeros_(net.proj_out.bias)
    conv = net.pos_embed.proj  # a patch embedding is a linear layer: initialise it as one, not as a convolution
    nn.init.xavier_uniform_(conv.weight.data.view(conv.weight.shape[0], -1))
    nn.init.zeros_(conv.bias)
    for block in net.transformer_blocks:
        nn.init.zeros_(block.scale_shift_table)
        block.scale_shift_table.data[[2, 5]] = 1.0  # the two gates start open, the projections behind them small
        # the text must be heard from the start: its branch begins larger than the other two
        for last, gain in ((block.attn1.to_out[0], 0.2), (block.attn2.to_out[0], 1.0), (block.ff.net[2], 0.2)):
            nn.init.normal_(last.weight, std=gain / (width * layers) ** 0.5)
            nn.init.zeros_(last.bias)
    return net


def sizes(transformer):
    """What build_transformer made it with, for the checkpoint."""
    c = transformer.config
    return dict(width=c.num_attention_heads * c.attention_head_dim, layers=c.num_layers, patch=c.patch_size, size=c.sample_size, channels=c.in_channels)


def finer(coarse, patch):
    """The transformer for smaller patches, as a start for training: each is read as if the larger one held copies of it, and drawn as the
    mean of what would be drawn there. Where the picture is such a pattern and places do not matter, both draw the same."""
    c = coarse.config
    k, rest = divmod(c.patch_size, patch)
    if rest:
        raise ValueError(f"patches of {patch} pixels do not fill one of {c.patch_size}")
    net = build_transformer(c.num_attention_heads * c.attention_head_dim, c.num_layers, c.num_attention_heads, c.caption_channels, patch)
    weights = dict(coarse.state_dict())
    of = lambda name, *shape: weights[name].reshape(shape)
    weights["pos_embed.proj.weight"] = of("pos_embed.proj.weight", -1, 3, k, patch, k, patch).sum((2, 4))
    weights["proj_out.weight"] = of("proj_out.weight", k, patch, k, patch, 3, -1).mean((0, 2)).flatten(0, 2)
    weights["proj_out.bias"] = of("proj_out.bias", k, patch, k, patch, 3).mean((0, 2)).flatten()
    net.load_state_dict(weights)
    return net


def on_latents(pixels, patch, size, channels):
    """The transformer on latents, as a start for training, of one on pixels that has as many patches: all but what reads and writes them. To
    translate that by least squares was better at low noise alone and worse where it matters (README, "On latents")."""
    c = pixels.config
    net = build_transformer(c.num_attention_heads * c.attention_head_dim, c.num_layers, c.num_attention_heads, c.caption_channels, patch, size, channels)
    new = net.state_dict()
    net.load_state_dict({name: p for name, p in pixels.state_dict().items() if p.shape == new[name].shape}, strict=False)
    return net


def build_text_encoder(vocab, hidden=256, layers=3, heads=4):
    """CLIPTextModel with the special tokens at the end of the vocabulary, as in CLIP.

    CLIP's own initialisation makes embeddings (0.02) drown in what the layers add to them (about 0.2), so that all words look
    alike. Here the embeddings are large and the layers add little at first: the text starts out as its list of words."""
    net = CLIPTextModel(CLIPTextConfig(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=4 * hidden, projection_dim=hidden, num_hidden_layers=layers,
        num_attention_heads=heads, max_position_embeddings=TOKENS, hidden_act="quick_gelu",
        bos_token_id=vocab - 2, eos_token_id=vocab - 1, pad_token_id=vocab - 1,
    ))
    nn.init.normal_(net.get_input_embeddings().weight, std=0.5)
    for name, p in net.named_parameters():
        if name.endswith(("out_proj.weight", "fc2.weight")):
            p.data *= 0.2
    return net


def device_and_precision(bf16=None):
    """-> ("cuda" or "cpu", whether in bf16: unless told, where it is worth it; without units for it a CPU takes ten times as long as with f32)"""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if bf16 is None:
        bf16 = device == "cuda" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device, bf16


def keep_memory():
    """glibc gives a large block back to the system when it is freed, and gets it anew, page by page, when the next step needs it:
    a quarter of the time of a step with many tokens. This process keeps what it has had."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:  # other C libraries have none, and do not need it
        trim_threshold, mmap_max = -1, -4  # malloc.h
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, -1)


class Denoiser(nn.Module):
    """D(x0 + sigma n; sigma, text) -> x0, in one of two forms.

    "sample": the network itself predicts x0 from the variance-preserving input x / sqrt(1 + sigma^2) and the timestep of a
    discrete DDPM schedule (Li & He 2025, "Back to basics: let denoising generative models denoise").
    "edm": the preconditioning of Karras et al. 2022, table 1, as diffusers' EDM schedulers apply it.
    """

    def __init__(self, transformer, text_encoder, prediction="sample", sigma_data=0.5, betas=BETAS):
        super().__init__()
        self.transformer, self.text_encoder = transformer, text_encoder
        self.prediction, self.sigma_data = prediction, sigma_data
        log_sigmas = torch.tensor(np.log(ddpm_sigmas(*betas)), dtype=torch.float32)
        self.register_buffer("log_sigmas", log_sigmas, persistent=False)

    def timestep(self, sigma):
        """Position of sigma in the DDPM schedule, linear in log sigma between the integer timesteps (fractional, 0..999)."""
        s = sigma.log().clamp(self.log_sigmas[0], self.log_sigmas[-1])
        low = (torch.searchsorted(self.log_sigmas, s, right=True) - 1).clamp(0, len(self.log_sigmas) - 2)
        a, b = self.log_sigmas[low], self.log_sigmas[low + 1]
        return low + (s - a) / (b - a)

    def sigma(self, timestep):
        """The inverse of timestep()."""
        low = timestep.long().clamp(max=len(self.log_sigmas) - 2)
        return torch.lerp(self.log_sigmas[low], self.log_sigmas[low + 1], timestep - low).exp()

    def time_embedding(self, sigma):
        e = self.transformer.adaln_single.emb
        return e.timestep_embedder(e.time_proj(self.timestep(sigma)))

    def fit_time_embedding(self, sigma, goal, iterations=1000):
        """Makes the time embedding give `goal` at the noise levels, as nearly as it can: least squares by L-BFGS in double precision.
        A network gets another schedule by it: the same embedding for the same noise, at other timesteps."""
        e = self.transformer.adaln_single.emb
        x, goal = e.time_proj(self.timestep(sigma)).double(), goal.detach().double()
        fitted = e.timestep_embedder.double().requires_grad_(True)
        optimizer = torch.optim.LBFGS(
            fitted.parameters(), max_iter=iterations, history_size=20, line_search_fn="strong_wolfe", tolerance_grad=0, tolerance_change=0)

        def closure():
            optimizer.zero_grad()
            loss = (fitted(x) - goal).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
        optimizer.zero_grad()
        fitted.float()

    def encode(self, ids, mask):
        return self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state

    def forward(self, noisy, sigma, ids, mask, text=None):
        text = self.encode(ids, mask) if text is None else text
        s = sigma[:, None, None, None]
        if self.prediction == "sample":
            return self.net(noisy / (1 + s**2).sqrt(), self.timestep(sigma), text, mask)
        total = s**2 + self.sigma_data**2
        out = self.net(noisy / total.sqrt(), sigma.log() / 4, text, mask)
        return self.sigma_data**2 / total * noisy + s * self.sigma_data / total.sqrt() * out

    def net(self, x, t, text, mask):
        return self.transformer(x, encoder_hidden_states=text, timestep=t, encoder_attention_mask=mask).sample.float()

    def loss_weight(self, sigma):
        """The weight of |D - x0|^2 that makes all noise levels count alike.

        sample: v-prediction's loss, |v - v'|^2 = (1 + 1/sigma^2) |x - x'|^2 in the VP frame (Salimans & Ho 2022, appendix D),
        capped at SNR 100 because what is left to predict there is below one grey level.
        edm: 1 / c_out^2 (Karras et al. 2022, table 1).
        """
        if self.prediction == "sample":
            return 1 + sigma.clamp(min=0.1) ** -2
        return sigma**-2 + self.sigma_data**-2


def scheduler(transformer, prediction="sample"):
    """The diffusers scheduler whose config is shipped. Pixels end at -1 and 1, latents nowhere, which it has to say: DDIM and DDPM, which may
    be made from the same config, clip both otherwise."""
    if prediction == "edm":
        return EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5, prediction_type="epsilon")
    made = DPMSolverMultistepScheduler(
        num_train_timesteps=1000, beta_schedule="linear", beta_start=BETAS[0], beta_end=BETAS[1], prediction_type="sample",
        algorithm_type="dpmsolver++", solver_order=2, lower_order_final=True, timestep_spacing="trailing", final_sigmas_type="zero",
    )
    if not on_pixels(transformer):
        made.register_to_config(clip_sample=False)
    return made


def on_pixels(transformer):
    return transformer.config.in_channels == 3


def consistency_betas(transformer):
    return CONSISTENCY_BETAS if on_pixels(transformer) else LATENT_BETAS


def consistency_scheduler(transformer):
    """The same for a consistency model: from the highest timestep, denoise and add noise again, as often as there are steps. Pixels end at
    -1 and 1, latents nowhere."""
    first, last = consistency_betas(transformer)
    return LCMScheduler(
        num_train_timesteps=1000, beta_schedule="linear", beta_start=first, beta_end=last, prediction_type="sample",
        original_inference_steps=50, timestep_scaling=10.0, clip_sample=on_pixels(transformer), set_alpha_to_one=True,
    )


def boundary(timestep, scaling=10.0, sigma_data=0.5):
    """LCMScheduler's (c_skip, c_out) (Luo et al. 2023, "Latent consistency models", appendix D): the identity at timestep 0. Its sigma_data
    is 0.5 whatever the data; from timestep 1 on c_skip is below 0.0025, so that latents, whose spread is 1, need no other."""
    t = timestep * scaling
    return sigma_data**2 / (t**2 + sigma_data**2), t / (t**2 + sigma_data**2).sqrt()


def ddpm_sigmas(first=BETAS[0], last=BETAS[1]):
    """sigma of timesteps 0..999: sqrt((1 - abar) / abar), from 0.01 to 157 with BETAS, from 0.14 to 165 with CONSISTENCY_BETAS and LATENT_BETAS."""
    abar = np.cumprod(1 - np.linspace(first, last, 1000))
    return np.sqrt((1 - abar) / abar)
