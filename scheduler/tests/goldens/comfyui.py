"""Samplers and schedules that only ComfyUI has. It is not a package: what follows states its updates once more, in NumPy and as plainly as
they can be. Every array is f64. make_goldens.py writes the results.
"""

import itertools
import math

import numpy as np

X = np.array([0.9, -1.6, 0.25])


def denoised(x, sigma):
    """(guided, unguided)."""
    d = 1.5 * np.tanh(x / (1 + sigma)) + 0.2 * x / (1 + sigma**2)
    return d, 0.7 * d - 0.1 * x / (1 + sigma)


def ancestral(a, b, eta):
    up = min(b, eta * math.sqrt(b * b * (a * a - b * b) / (a * a)))
    return math.sqrt(b * b - up * up), up


def euler_ancestral_cfg_pp(x, sigmas, noise, eta=1.0):
    for a, b in itertools.pairwise(sigmas):
        d, u = denoised(x, a)
        down, up = ancestral(a, b, eta)
        x = d + (x - u) / a * down
        if up > 0:
            x = x + up * noise()
    return x


def dpmpp_2s_ancestral_cfg_pp(x, sigmas, noise, eta=1.0):
    for a, b in itertools.pairwise(sigmas):
        d, u = denoised(x, a)
        down, up = ancestral(a, b, eta)
        if down == 0:
            x = d
        else:
            s = math.sqrt(a * down)
            x_2 = s / a * (x + d - u) + (1 - s / a) * d
            d_2, _ = denoised(x_2, s)
            x = down / a * (x + d - u) + (1 - down / a) * d_2
        if up > 0:
            x = x + up * noise()
    return x


def dpmpp_2m_cfg_pp(x, sigmas, noise):
    old = None
    for i, (a, b) in enumerate(itertools.pairwise(sigmas)):
        d, u = denoised(x, a)
        mix = -b / a * u
        if old is not None and b > 0:
            r = math.log(sigmas[i - 1] / a) / math.log(a / b)
            mix = mix + (1 - b / a) / (2 * r) * (d - old)
        x, old = d + mix + b / a * x, u
    return x


def res_multistep_cfg_pp(x, sigmas, noise):
    old = None
    for i, (a, b) in enumerate(itertools.pairwise(sigmas)):
        d, u = denoised(x, a)
        if b == 0 or old is None:
            x = d + (x - u) / a * b
        else:
            h, before = math.log(a / b), math.log(sigmas[i - 1] / a)
            phi_1 = (1 - math.exp(-h)) / h
            phi_2 = (1 - phi_1) / h
            c_2 = -before / h
            x = math.exp(-h) * (x + d - u) + h * ((phi_1 - phi_2 / c_2) * u + phi_2 / c_2 * old)
        old = u
    return x


def gradient_estimation_cfg_pp(x, sigmas, noise):
    old = None
    for a, b in itertools.pairwise(sigmas):
        d, u = denoised(x, a)
        slope = (x - u) / a
        x = d + slope * b
        if old is not None and b > 0:
            x = x + (slope - old) * (b - a)
        old = slope
    return x


def ipndm_v(x, sigmas, noise):
    slopes = []
    for i, (a, b) in enumerate(itertools.pairwise(sigmas)):
        d, _ = denoised(x, a)
        slopes.insert(0, (x - d) / a)
        h = [sigmas[i + 1 - k] - sigmas[i - k] for k in range(min(i + 1, 4))]
        t1 = t2 = 0.0
        w = [1.0, 0.0, 0.0, 0.0]
        if len(h) > 1:
            w = [1 + h[0] / h[1] / 2, -h[0] / h[1] / 2, 0.0, 0.0]
        if len(h) > 2:
            t1 = (1 - h[0] / (3 * (h[0] + h[1])) * (h[0] * (h[0] + h[1])) / (h[1] * (h[1] + h[2]))) / 2
            w = [w[0] + t1, w[1] - (1 + h[1] / h[2]) * t1, t1 * h[1] / h[2], 0.0]
        if len(h) > 3:
            t2 = (1 - h[0] / (3 * (h[0] + h[1]))) / 2 + (1 - h[0] / (2 * (h[0] + h[1]))) * h[0] / (6 * (h[0] + h[1] + h[2]))
            t2 *= h[0] * (h[0] + h[1]) * (h[0] + h[1] + h[2]) / (h[1] * (h[1] + h[2]) * (h[1] + h[2] + h[3]))
            q = h[1] * (h[1] + h[2]) / (h[2] * (h[2] + h[3]))
            w = [w[0] + t2, w[1] - (1 + h[1] / h[2] + q) * t2, w[2] + (h[1] / h[2] + q * (1 + h[2] / h[3])) * t2, -t2 * q * h[1] / h[2]]
        x = d if b == 0 else x + (b - a) * sum(wi * s for wi, s in zip(w, slopes))
    return x


def er_sde(x, sigmas, noise):
    from scipy.integrate import quad

    def phi(u):
        return u * (math.exp(u**0.3) + 10)

    old = old_difference = None
    for i, (a, b) in enumerate(itertools.pairwise(sigmas)):
        d, _ = denoised(x, a)
        if b == 0:
            return d
        r = phi(b) / phi(a)
        x = r * x + (1 - r) * d
        difference = None
        if old is not None:
            difference = (d - old) / (a - sigmas[i - 1])
            x = x + (b - a + phi(b) * quad(lambda u: 1 / phi(u), b, a)[0]) * difference
            if old_difference is not None:
                second = (difference - old_difference) / ((a - sigmas[i - 2]) / 2)
                x = x + ((b - a) ** 2 / 2 + phi(b) * quad(lambda u: (u - a) / phi(u), b, a)[0]) * second
        x = x + math.sqrt(b * b - (a * r) ** 2) * noise()
        old, old_difference = d, difference
    return x


SAMPLERS = {
    "euler_cfg_pp": lambda *a: euler_ancestral_cfg_pp(*a, eta=0.0), "euler_ancestral_cfg_pp": euler_ancestral_cfg_pp,
    "dpmpp_2s_ancestral_cfg_pp": dpmpp_2s_ancestral_cfg_pp, "dpmpp_2m_cfg_pp": dpmpp_2m_cfg_pp,
    "res_multistep_cfg_pp": res_multistep_cfg_pp, "gradient_estimation_cfg_pp": gradient_estimation_cfg_pp,
    "ipndm_v": ipndm_v, "er_sde": er_sde,
}


def linear_quadratic(n, threshold=0.025):
    if n == 1:
        return [1.0, 0.0]
    k = n // 2
    q = (k - threshold * n) / (k * (n - k) ** 2)
    slope = threshold / k - 2 * (k - threshold * n) / (n - k) ** 2
    gone = [i * threshold / k for i in range(k)] + [q * i * i + slope * i + q * k * k for i in range(k, n)] + [1.0]
    return [1 - g for g in gone]


def laplace(n, low, high):
    log_sigma = [-0.5 * np.sign(0.5 - x) * math.log(1 - 2 * abs(0.5 - x) + 1e-5) for x in np.linspace(0, 1, n)]
    return [float(np.clip(math.exp(v), low, high)) for v in log_sigma] + [0.0]


def cases(draws_of):
    for n in [1, 2, 5, 8]:
        yield {"table": "linear_quadratic", "arguments": [n, 0.002, 80.0], "sigmas": [80.0 * s for s in linear_quadratic(n)]}
        yield {"table": "laplace", "arguments": [n, 0.002, 80.0], "sigmas": laplace(n, 0.002, 80.0)}
    for name, sampler in SAMPLERS.items():
        for n in [1, 2, 3, 5, 12]:
            sigmas = [14.6 * (0.03 / 14.6) ** ((i / max(n - 1, 1)) ** 0.8) for i in range(n)] + [0.0]
            draws = draws_of()
            x = sampler(X * sigmas[0], sigmas, lambda: draws().numpy().reshape(3))
            yield {"sampler": name, "sigmas": sigmas, "result": x.tolist()}
