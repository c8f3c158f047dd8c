"""What can be checked without data: python -m pytest test_consistency.py (or python test_consistency.py).

The toy is a Gaussian, N(MU, SD^2), whose score, ODE paths and consistency function are known in closed form."""

import copy
import math

import torch

from consistency import Student, begin, consistency_loss, distillation_point, guidance_at, lower, picture_distance, pixel_distance, training_point
from model import (
    BETAS, CONSISTENCY_BETAS, LATENT_BETAS, LATENT_NOISE, Denoiser, boundary, build_text_encoder, build_transformer, consistency_betas,
    consistency_scheduler, ddpm_sigmas, finer, on_latents)
from train import square_error, visible_error

MU, SD = 0.3, 0.5


def denoise(x, sigma):
    """E[x0 | x] (Tweedie)"""
    return MU + SD**2 / (SD**2 + sigma**2) * (x - MU)


def path(x, sigma, r):
    """Where the probability-flow ODE dx/dt = (x - D) / t takes x from sigma to r."""
    return MU + (x - MU) * ((SD**2 + r**2) / (SD**2 + sigma**2)) ** 0.5


def perfect(x, sigma):
    return path(x, sigma[:, None], torch.zeros(()))


def draws(n=4096, seed=0):
    g = torch.Generator().manual_seed(seed)
    return MU + SD * torch.randn(n, 8, generator=g), torch.randn(n, 8, generator=g), torch.empty(n).uniform_(-1.6, 5, generator=g).exp()


def loss(f, point, sigma, r, x, noise):
    return consistency_loss(f, f, point, lambda x_t: denoise(x_t, sigma[:, None]), x, noise, sigma, r).item()


def test_exact_solver_and_perfect_function_have_no_loss():
    x, noise, sigma = draws()
    exact = lambda d, x, n, s, r: (x + s * n, path(x + s * n, s, r))
    for stage in (1, 2, 3):
        assert loss(perfect, exact, sigma, lower(sigma, stage), x, noise) < 1e-5


def test_distillation_loss_of_the_perfect_function_vanishes_with_the_step():
    x, noise, sigma = draws()
    losses = [loss(perfect, distillation_point, sigma, sigma * (1 - 0.5**k), x, noise) for k in (1, 3, 5, 7)]
    assert all(b < a / 4 for a, b in zip(losses, losses[1:])), losses
    wrong = lambda x, sigma: perfect(x, sigma) + 0.1 * torch.sin(sigma)[:, None]
    assert loss(wrong, distillation_point, sigma, sigma * (1 - 0.5**7), x, noise) < loss(wrong, distillation_point, sigma, sigma / 2, x, noise)
    assert loss(wrong, distillation_point, sigma, sigma / 2, x, noise) > 10 * losses[1]


def test_training_estimates_the_score_without_bias():
    """Lemma 1: averaged over x given x_t, (x_t - x) / t is the ODE's slope. Regression of one on the other has slope 1."""
    x, noise, _ = draws(200_000)
    sigma = torch.tensor(0.7)
    x_t, x_r = training_point(None, x, noise, sigma, torch.tensor(0.2))
    estimate, truth = ((x_t - x_r) / 0.5).flatten(), ((x_t - denoise(x_t, sigma)) / sigma).flatten()
    slope = ((estimate * truth).mean() / truth.square().mean()).item()
    assert abs(slope - 1) < 0.01, slope


def test_noise_levels_come_closer():
    sigma = torch.tensor(ddpm_sigmas(), dtype=torch.float32)
    levels = [lower(sigma, stage) for stage in (0, 1, 2, 3, 8)]
    assert not levels[0].any()
    for a, b in zip(levels, levels[1:]):
        assert (a <= b).all() and (b < sigma).all()


def test_every_chain_ends_at_the_clean_picture():
    """And passes only through levels that are trained, or f would be anchored to nothing."""
    for k in (0, 1, 8):
        for stage in (0, 1, 2, 3):
            sigma = torch.linspace(-0.7, 5.06, 100).exp()
            for _ in range(200):
                sigma = lower(sigma, stage, k, lowest=0.49)
                assert ((sigma == 0) | (sigma >= 0.49)).all()
            assert not sigma.any(), (k, stage)


def test_scalings_are_the_schedulers():
    scheduler = consistency_scheduler(build_transformer(32, 1, 2, 32))
    for t in (0, 1, 19, 999):
        ours = boundary(torch.tensor(float(t)))
        theirs = scheduler.get_scalings_for_boundary_condition_discrete(t)
        assert all(abs(float(a) - float(b)) < 1e-7 for a, b in zip(ours, theirs))


def test_one_step_of_the_scheduler_is_the_student():
    """Latents as far out as they may be: nothing clips them."""
    for patch, size, channels, spread in ((8, 64, 3, 0.02), (2, 16, 8, 0.5)):
        torch.manual_seed(0)
        transformer = build_transformer(32, 1, 2, 32, patch, size, channels)
        torch.nn.init.normal_(transformer.proj_out.weight, std=spread)
        model = Denoiser(transformer, build_text_encoder(64, 32, 1, 2), betas=consistency_betas(transformer))
        ids, mask = torch.tensor([[62, 5, 63]]), torch.ones(1, 3, dtype=torch.long)
        scheduler = consistency_scheduler(transformer)
        scheduler.set_timesteps(1)
        x, t = torch.randn(1, channels, size, size), scheduler.timesteps[0]
        sigma = model.log_sigmas[t].exp()[None]
        with torch.no_grad():
            text = model.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            theirs = scheduler.step(model.net(x, t[None], text, mask), t, x).prev_sample
            ours = Student(model)(x * (1 + sigma**2).sqrt(), sigma, ids, mask)
        assert (theirs.abs().max() > 1) == (channels == 8)
        assert (ours - theirs).abs().max() < 1e-4


def test_noise_that_is_added_to_latents_again_hides_as_much_as_on_pixels():
    pixels, latents = ddpm_sigmas(*CONSISTENCY_BETAS), ddpm_sigmas(*LATENT_BETAS) / LATENT_NOISE
    for timestep in (259, 499, 759):
        assert abs(math.log(latents[timestep] / pixels[timestep])) < 0.15, timestep
    assert abs(latents[-1] * LATENT_NOISE / pixels[-1] - 1) < 0.01


def test_a_student_begins_as_its_teacher_in_another_schedule():
    torch.manual_seed(0)
    teacher = Denoiser(build_transformer(64, 2, 2, 32), build_text_encoder(64, 32, 1, 2)).requires_grad_(False)
    for p in (teacher.transformer.proj_out.weight, teacher.transformer.adaln_single.linear.weight):
        torch.nn.init.normal_(p, std=0.1)
    student = Denoiser(copy.deepcopy(teacher.transformer), teacher.text_encoder, betas=CONSISTENCY_BETAS)
    begin(student, teacher, [])
    assert student.timestep(torch.tensor([3.4])) < 300 < teacher.timestep(torch.tensor([3.4]))
    sigma = torch.tensor([0.2, 1.0, 3.6, 13.0, 47.0, 150.0])
    torch.testing.assert_close(student.sigma(student.timestep(sigma)), sigma)
    ids, mask, x = torch.tensor([[62, 5, 63]]).expand(6, -1), torch.ones(6, 3, dtype=torch.long), sigma[:, None, None, None] * torch.randn(6, 3, 64, 64)
    with torch.no_grad():
        theirs, ours = teacher(x, sigma, ids, mask), student(x, sigma, ids, mask)
        other = teacher(x, 2 * sigma, ids, mask)
    assert (ours - theirs).std() < 0.2 * (other - theirs).std()


def test_guidance_is_what_was_asked_for_at_three_levels_and_linear_in_log_sigma_between():
    most = float(ddpm_sigmas(*CONSISTENCY_BETAS)[-1])
    sigma = torch.tensor([0.1, 1.0, 12**0.5, 12.0, (12 * most) ** 0.5, most, 1e4])
    torch.testing.assert_close(guidance_at(sigma, 1.0, 4.0, 2.0), torch.tensor([1.0, 1.0, 2.5, 4.0, 3.0, 2.0, 2.0]))
    torch.testing.assert_close(guidance_at(sigma, 3.0, 3.0, 3.0), torch.full((7,), 3.0))
    of_latents = torch.tensor([0.1, 0.5, 6.0, 150.0])
    torch.testing.assert_close(guidance_at(of_latents, 1.0, 4.0, 2.0, unit=0.5, most=150.0), torch.tensor([1.0, 1.0, 4.0, 2.0]))


@torch.no_grad()
def test_smaller_patches_begin_with_what_larger_ones_know():
    torch.manual_seed(0)
    coarse = build_transformer(32, 2, 2, 16).eval()
    for p in coarse.parameters():
        p.copy_(0.3 * torch.randn_like(p))
    fine = finer(coarse, 4).eval()
    assert fine.pos_embed.pos_embed.shape[1] == 4 * coarse.pos_embed.pos_embed.shape[1]
    torch.testing.assert_close(fine.pos_embed.pos_embed.view(8, 2, 8, 2, 32)[:, 0, :, 0], coarse.pos_embed.pos_embed.view(8, 8, 32))
    fine.pos_embed.pos_embed.zero_()
    coarse.pos_embed.pos_embed.zero_()
    patches = torch.randn(1, 3, 8, 1, 4, 8, 1, 4)  # each of 8x8 is four times the same of 4x4
    rest = dict(encoder_hidden_states=torch.randn(1, 5, 16), timestep=torch.tensor([300.0]))
    drawn = [net(patches.expand(1, 3, 8, 2, 4, 8, 2, 4).reshape(1, 3, 64, 64), **rest).sample.view(patches.shape[:3] + (2, 4, 8, 2, 4)) for net in (coarse, fine)]
    mean = drawn[0].mean((3, 6), keepdim=True).expand_as(drawn[1])
    assert mean.std() > 0.1
    torch.testing.assert_close(drawn[1], mean, rtol=1e-4, atol=1e-4)


def test_what_an_earlier_student_learnt_is_added_to_a_teacher_of_smaller_patches():
    torch.manual_seed(0)
    text = build_text_encoder(64, 32, 1, 2)
    before = [Denoiser(build_transformer(64, 2, 2, 32), text, betas=betas) for betas in (BETAS, CONSISTENCY_BETAS)]
    for p in (p for m in before for p in m.transformer.parameters()):
        torch.nn.init.normal_(p, std=0.1)
    teacher = Denoiser(finer(before[0].transformer, 4), text).requires_grad_(False)
    student = Denoiser(copy.deepcopy(teacher.transformer), text, betas=CONSISTENCY_BETAS)
    begin(student, teacher, before)
    goal, told = finer(before[1].transformer, 4).state_dict(), student.transformer.state_dict()
    time = [name for name in goal if "timestep_embedder" in name]
    assert len(time) == 4
    for name in goal.keys() - time:
        torch.testing.assert_close(told[name], goal[name], rtol=1e-4, atol=1e-6)


def test_what_an_earlier_student_on_pixels_learnt_is_added_to_the_blocks_of_a_teacher_on_latents():
    torch.manual_seed(0)
    text = build_text_encoder(64, 32, 1, 2)
    before = [Denoiser(build_transformer(64, 2, 2, 32), text, betas=betas) for betas in (BETAS, CONSISTENCY_BETAS)]
    for p in (p for m in before for p in m.transformer.parameters()):
        torch.nn.init.normal_(p, std=0.1)
    teacher = Denoiser(on_latents(before[0].transformer, 2, 16, 8), text).requires_grad_(False)
    student = Denoiser(copy.deepcopy(teacher.transformer), text, betas=LATENT_BETAS)
    begin(student, teacher, before)
    goal, began, told = (m.transformer.state_dict() for m in (before[1], teacher, student))
    for name in (name for name in goal if "timestep_embedder" not in name):
        torch.testing.assert_close(told[name], (goal if goal[name].shape == told[name].shape else began)[name], rtol=1e-4, atol=1e-6)


def test_what_is_wrong_over_a_whole_patch_counts_for_more():
    flat, chequered = torch.ones(2, 3, 64, 64), torch.ones(2, 3, 64, 64)
    chequered[..., ::2] = -1
    torch.testing.assert_close(square_error(flat), torch.full((2,), (1 + 2 + 4 + 8 + 16) / 5))
    torch.testing.assert_close(square_error(chequered), torch.full((2,), 1 / 5))


def test_too_white_is_white():
    goal = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, 0.98, 0.5, 0.5])
    guess = torch.tensor([1.2, 1.0, 0.9, -1.2, -0.9, 1.2, 1.2, 0.4])
    torch.testing.assert_close(visible_error(guess, goal), torch.tensor([0.0, 0.0, -0.1, 0.0, 0.1, 0.22, 0.7, -0.1]))
    torch.testing.assert_close(visible_error(guess, goal, 0.03), torch.tensor([0.0, 0.0, -0.1, 0.0, 0.1, 0.0, 0.7, -0.1]))


def test_the_two_distances_have_one_scale_and_weigh_a_faint_pattern_differently():
    even = torch.full((1, 3, 64, 64), 0.5)
    assert 0.9 < (pixel_distance(even) / picture_distance(even)).item() < 1
    edge = torch.zeros(1, 3, 64, 64)
    edge[..., 32] = 1
    faint = torch.full_like(edge, 0.05)
    more = lambda distance: (distance(edge + faint) / distance(edge)).item()
    assert more(picture_distance) < 1.15 and more(pixel_distance) > 2


if __name__ == "__main__":
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print(name)
