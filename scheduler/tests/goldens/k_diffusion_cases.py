"""Tables and trajectories of k-diffusion; make_goldens.py writes them."""

import importlib.util
import inspect
import pathlib
import sys
import types

import torch

from model import Draws, Path, X, denoised_of, exact, numbers


def sampling():
    """k_diffusion/sampling.py without the package around it, whose other modules need much that sampling does not."""
    root = pathlib.Path(importlib.util.find_spec("k_diffusion").submodule_search_locations[0])
    package = types.ModuleType("k")
    package.__path__ = [str(root)]
    utils = types.ModuleType("k.utils")
    utils.append_dims = lambda x, dims: x[(...,) + (None,) * (dims - x.ndim)]
    package.utils = utils
    sys.modules.update({"k": package, "k.utils": utils})
    spec = importlib.util.spec_from_file_location("k.sampling", root / "sampling.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cases():
    k = sampling()

    def tables():
        for n in [1, 2, 5, 20]:
            yield "karras", [n, 0.002, 80.0, 7.0], k.get_sigmas_karras(n, 0.002, 80.0)
            yield "exponential", [n, 0.03, 14.6], k.get_sigmas_exponential(n, 0.03, 14.6)
            yield "polyexponential", [n, 0.03, 14.6, 2.0], k.get_sigmas_polyexponential(n, 0.03, 14.6, 2.0)
            yield "vp", [n, 19.9, 0.1, 1e-3], k.get_sigmas_vp(n)

    for name, arguments, sigmas in tables():
        yield {"table": name, "arguments": arguments, "sigmas": numbers(sigmas)}

    def sigma_lists():
        for n in [1, 2, 5, 12]:
            yield k.get_sigmas_karras(n, 0.02, 14.6).double()
        yield k.get_sigmas_exponential(7, 0.03, 80.0).double()[:-1]

    for name in SAMPLERS:
        function = getattr(k, "sample_" + name)
        for options in SAMPLERS[name]:
            for sigmas in sigma_lists():
                if len(sigmas) == 2 and name in ("dpmpp_2m_sde", "dpmpp_3m_sde"):
                    continue  # they read a variable that a single step never sets
                draws = Path() if name == "dpmpp_sde" else Draws()
                arguments = dict(options)
                if "noise_sampler" in inspect.signature(function).parameters:
                    arguments["noise_sampler"] = draws
                evaluations = []

                def model(x, sigma):
                    evaluations.append(float(sigma))
                    return denoised_of(x, sigma.reshape(-1, 1, 1, 1))

                randn_like, torch.randn_like = torch.randn_like, lambda x: draws()
                x = function(model, X * sigmas[0], sigmas, disable=True, **arguments)
                torch.randn_like = randn_like
                yield {"sampler": name, "options": options, "sigmas": numbers(sigmas), "evaluations": evaluations,
                       "result": numbers(x)}


SAMPLERS = {
    "euler": [{}, {"s_churn": 40.0, "s_tmin": 0.05, "s_noise": 1.003}],
    "euler_ancestral": [{}, {"eta": 0.5}, {"eta": 0.7, "s_noise": 1.1}],
    "heun": [{}, {"s_churn": 3.0}, {"s_churn": 40.0, "s_tmin": 0.05, "s_noise": 1.003}],
    "dpm_2": [{}, {"s_churn": 40.0, "s_tmin": 0.05, "s_noise": 1.003}],
    "dpm_2_ancestral": [{}, {"eta": 0.5}],
    "lms": [{}],
    "dpmpp_2s_ancestral": [{}, {"eta": 0.5}, {"eta": 0.0}],
    "dpmpp_sde": [{}, {"eta": 0.5}, {"eta": 0.0}],
    "dpmpp_2m": [{}],
    "dpmpp_2m_sde": [{}, {"solver_type": "heun"}, {"eta": 0.5}, {"eta": 0.0}],
    "dpmpp_3m_sde": [{}, {"eta": 0.5}, {"eta": 0.0, "s_noise": 1.1}],
}


def fast_cases():
    k = sampling()
    for n in [1, 2, 3, 4, 5, 6, 11]:
        evaluations = []

        def model(x, sigma):
            evaluations.append(float(sigma))
            return denoised_of(x, sigma.reshape(-1, 1, 1, 1))

        with exact(k, None):
            x = k.sample_dpm_fast(model, X * 14.6, 0.02, 14.6, n, disable=True)
        # Only the ends of the list and its length count.
        sigmas = [14.6 * (0.02 / 14.6) ** (i / n) for i in range(n)] + [0.02]
        yield {"sampler": "dpm_fast", "options": {}, "sigmas": sigmas, "evaluations": evaluations, "result": numbers(x)}


def adaptive_cases():
    k = sampling()
    for low, high in [(0.02, 14.6), (0.1, 80.0)]:
        for options in [{}, {"rtol": 0.005, "atol": 0.001}, {"rtol": 1e-4, "atol": 1e-4}]:
            evaluations = []

            def model(x, sigma):
                evaluations.append(float(sigma))
                return denoised_of(x, sigma.reshape(-1, 1, 1, 1))

            with exact(k, None):
                x, info = k.sample_dpm_adaptive(model, X * high, low, high, disable=True, return_info=True, **options)
            yield {"sampler": "dpm_adaptive", "options": options, "sigmas": [high, low], "accepted": info["n_accept"],
                   "rejected": info["n_reject"], "result": numbers(x)}
