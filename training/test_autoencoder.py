"""What can be checked without data: python -m pytest test_autoencoder.py (or python test_autoencoder.py)."""

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, PixArtTransformer2DModel
from transformers import CLIPTextModel

import latents
import run
from autoencoder import Both, build_autoencoder, gradients, optimizers, standardise, trained, without_unused
from data import read_latents, to_input
from evaluator import Evaluator
from export import write
from model import Denoiser, build_text_encoder, build_transformer, on_latents
from muon import Muon
from quality import nearest, small as at_32
from sample import enlarge, generate, load
from seams import seams

TOKENIZER = Path(__file__).parent / "../assets/models/icons-64/tokenizer"


def small():
    torch.manual_seed(0)
    return build_autoencoder((8, 8, 16, 16), 3).eval()


def test_patches_that_show_are_measured():
    noise = np.random.default_rng(0).normal(128, 20, (4, 64, 64, 3))
    assert abs(seams(noise.astype(np.uint8)) - 1) < 0.05
    patches = np.random.default_rng(1).normal(0, 40, (4, 8, 1, 8, 1, 3)).repeat(8, 2).repeat(8, 4).reshape(4, 64, 64, 3)
    assert seams((noise + patches).clip(0, 255).astype(np.uint8)) > 1.5


def test_a_step_whose_gradient_is_no_number_is_left_out_and_a_run_of_many_ends():
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 1)
    optimizers = [torch.optim.AdamW(net.parameters(), lr=0.1)]
    with tempfile.TemporaryDirectory() as folder:
        a = SimpleNamespace(out=folder, pictures=None, minutes=1, steps=0, session=float("inf"), warm_up=1, decay=1, ema=0.9)
        r = run.Run(a, net, optimizers, [])
        update = lambda factor: r.update(factor * net(torch.ones(1, 3)).square().mean(), 1)
        update(1.0)
        before = [p.clone() for p in net.parameters()]
        for _ in range(19):
            update(float("nan"))
        assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before)) and len(r.losses) == 1
        update(1.0)
        assert not torch.equal(net.weight, before[0]) and net.weight.isfinite().all()
        ended = None
        try:
            for _ in range(20):
                update(float("inf"))
        except SystemExit as e:
            ended = e
        assert "no numbers" in str(ended)


@torch.no_grad()
def test_standardised_latents_draw_the_same():
    net = small()
    pictures = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
    before = net.encode(to_input(pictures)).latent_dist
    drawn = net.decode(before.mean).sample
    standardise(net, pictures)
    after = net.encode(to_input(pictures)).latent_dist
    torch.testing.assert_close(after.mean.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(after.mean.std((0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(net.decode(after.mean).sample, drawn, atol=1e-4, rtol=1e-4)
    spread = before.mean.std((0, 2, 3))[:, None, None]
    torch.testing.assert_close(after.std, before.std / spread, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_latents_that_nothing_is_drawn_from_are_left_out():
    net = small()
    pictures = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    torch.nn.init.normal_(net.post_quant_conv.bias)
    assert without_unused(net) is net
    net.post_quant_conv.weight[:, 1] *= 1e-3
    net.quant_conv.bias[4] = 7  # a spread of 33
    fewer, x = without_unused(net), to_input(pictures)
    before, after = net.encode(x).latent_dist, fewer.encode(x).latent_dist
    torch.testing.assert_close(after.mean, before.mean[:, [0, 2]], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(after.std, before.std[:, [0, 2]], atol=1e-5, rtol=1e-4)
    # zeros are added around what the first convolution sees, so only the outermost latents are drawn otherwise
    drawn = net.decoder.conv_in(net.post_quant_conv(before.mean * torch.tensor([1, 0, 1])[:, None, None]))
    again = fewer.decoder.conv_in(fewer.post_quant_conv(after.mean))
    torch.testing.assert_close(again[..., 1:-1, 1:-1], drawn[..., 1:-1, 1:-1], atol=1e-4, rtol=1e-4)


def test_generator_and_discriminator_each_learn_from_their_own_loss():
    both = Both(small())
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    a = SimpleNamespace(noise=0.1, half=0.1, divergence=1e-3, adversary=0.1)
    (difference, half, divergence, fool, tell), slopes = gradients(a, both, x, 0, False, True)
    assert tell > 1.5 and difference > 0 and half > 0 and divergence > 0
    without = gradients(a, both, x, 0, False, False)[1]
    count = len(list(both.autoencoder.parameters()))
    assert all(g is None for g in without[count:]) and all(g is not None for g in slopes)
    # the discriminator's pull at the last layer is a tenth of the other losses' that reach it by whole pictures
    last = [p is both.autoencoder.decoder.conv_out.weight for p in both.parameters()].index(True)
    a.half = a.adversary = 0.0
    whole = gradients(a, both, x, 0, False, False)[1][last]
    torch.testing.assert_close((slopes[last] - without[last]).norm(), 0.1 * whole.norm(), rtol=0.01, atol=0)


def test_a_decoder_that_is_trained_alone_leaves_latents_as_they_are():
    both = Both(small(), decoder_alone=True)
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    before, drawn = both.encode(x)[0], both.decode(both.encode(x)[0])
    a = SimpleNamespace(noise=0.1, half=0.1, divergence=1e-3, adversary=0.1)
    _, slopes = gradients(a, both, x, 0, False, True)
    for p, g in zip(trained(both), slopes, strict=True):
        p.grad = g
    for o in optimizers(both, 1e-2, 5):
        o.step()
    assert torch.equal(both.encode(x)[0], before) and not torch.allclose(both.decode(before), drawn)
    unmoved = {name.split(".")[0] for name, p in both.autoencoder.named_parameters() if not p.requires_grad}
    assert unmoved == {"encoder", "quant_conv"}


def test_muon_moves_a_convolution_as_the_matrix_it_is():
    torch.manual_seed(0)
    weights, gradient = torch.randn(6, 4, 3, 3), torch.randn(6, 4, 3, 3)
    shapes = [(6, 4, 3, 3), (6, 36)]
    moved = [torch.nn.Parameter(weights.reshape(s).clone()) for s in shapes]
    for p in moved:
        p.grad = gradient.reshape(p.shape).clone()
        Muon([p], lr=0.1).step()
    torch.testing.assert_close(moved[0].flatten(1), moved[1])


def test_a_transformer_on_latents_begins_with_the_blocks_of_one_on_pixels():
    pixels = build_transformer(32, 2, 2, 16)
    latents = on_latents(pixels, patch=2, size=16, channels=8)
    assert latents(torch.randn(1, 8, 16, 16), torch.randn(1, 5, 16), torch.tensor([300])).sample.shape == (1, 8, 16, 16)
    torch.testing.assert_close(latents.pos_embed.pos_embed, pixels.pos_embed.pos_embed)
    told, new = pixels.state_dict(), latents.state_dict()
    other = {name for name in new if not torch.equal(new[name].flatten()[:1], told[name].flatten()[:1]) or new[name].shape != told[name].shape}
    assert other == {"pos_embed.proj.weight", "proj_out.weight", "proj_out.bias"}, other


class Numbers:
    """In place of a Mix: the pictures and captions are its random numbers."""

    def seed(self, *seed):
        self.rng = np.random.default_rng(seed)

    def sample(self):
        picture = self.rng.integers(0, 256, (8, 8, 3), np.uint8)
        return picture, str(picture[0, 0, 0])


def test_latents_are_the_same_after_a_stop():
    make = lambda pictures: np.moveaxis(pictures, 3, 1)[:, :2].astype(np.float16)
    parts = lambda first: latents.Parts(Numbers(), 3, first, 4)
    size, latents.PART = latents.PART, 5
    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as stopped:
        latents.write(whole, "", parts, 20, make)
        latents.write(stopped, "", parts, 20, make)
        path = Path(stopped) / "captions.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:12]))  # in the midst of the third part
        np.load(Path(stopped) / "latents.npy", mmap_mode="r+")[10:] = 0
        latents.write(stopped, "", parts, 20, make)
        (a, captions), (b, others) = read_latents(whole), read_latents(stopped)
        assert captions == others and len(set(captions)) > 10
        assert np.array_equal(a, b) and [str(int(v)) for v in a[:, 0, 0, 0]] == captions
    latents.PART = size


def test_a_drawing_is_as_near_at_either_size():
    a, b = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    double = lambda p: p.repeat(2, 0).repeat(2, 1)
    apart = nearest([a], at_32([b]))
    assert apart > 0.05 and nearest([a], at_32([b, a])) < 1e-3
    np.testing.assert_allclose(nearest([double(a)], at_32([b])), apart, rtol=1e-4)
    assert enlarge([a], 128)[0].shape == (128, 128, 3) and enlarge([a], 64)[0] is a


def test_the_judge_of_larger_pictures_has_one_layer_more():
    with torch.no_grad():
        judges = [Evaluator(5, size).eval() for size in (64, 128)]
        assert [judge.cnn(torch.zeros(1, 3, judge.size, judge.size)).shape for judge in judges] == [(1, 64)] * 2
        grids = [judge.cnn[:-3](torch.zeros(1, 3, judge.size, judge.size)).shape for judge in judges]
    assert grids[0] == grids[1] == (1, 256, 4, 4)


@torch.no_grad()
def test_folders_of_teacher_and_student_load_without_a_key_too_many_or_too_few():
    torch.manual_seed(0)
    vocab = len(json.loads((TOKENIZER / "vocab.json").read_text()))
    transformer = build_transformer(32, 1, 2, 32, 2, 4, 8)
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.3)
    model = Denoiser(transformer, build_text_encoder(vocab, 32, 1, 2))
    for consistency in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            (folder / "NOTICE.md").write_text("whose drawings these are")
            build_autoencoder((8, 8, 16, 16), 8).half().save_pretrained(folder / "latents/vae")
            write(model, TOKENIZER, folder, folder / "model", consistency=consistency, autoencoder=folder / "latents")
            for kind, name in ((AutoencoderKL, "vae"), (PixArtTransformer2DModel, "transformer"), (CLIPTextModel, "text_encoder")):
                loading = kind.from_pretrained(folder / "model", subfolder=name, output_loading_info=True)[1]
                assert not any(loading.values()), (name, loading)
            *parts, defaults = load(folder / "model")
            assert defaults["height"] == defaults["width"] == 32
            # latents are clipped by none of the schedulers that may be made from this one's config; some of them clip unless they are told not to
            for other in (type(parts[3]), DDIMScheduler, DDPMScheduler):
                assert other.from_config(parts[3].config).config.get("clip_sample", False) is False, other
            assert generate(*parts, ["a red heart", "a key"], 2, 1.0).shape == (2, 32, 32, 3)


if __name__ == "__main__":
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print(name)
