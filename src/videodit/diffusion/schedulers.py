"""Every scheduler of diffusers that walks from noise to data, as a sampler; imported when one is named."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from videodit.diffusion.guidance import Field
from videodit.diffusion.objectives import Diffusion
from videodit.diffusion.samplers import SAMPLERS, Draw, Grid, Sampler, Seen, unseen, velocity
from videodit.shapes import UserError

NEAREST, LAST = 0.999, 0.001  # solvers of flows start and some end: of 1 and 0 they would take logarithms
UNFIT = (
    "CogVideoXDPM",
    "DDIMInverse",
    "DPMSolverMultistepInverse",
    "RePaint",
    "UnCLIP",
)  # other questions than noise to data, or more to say


def sampler(name: str) -> Sampler:
    """One of SAMPLERS, or a scheduler of diffusers by the name of its class."""
    return SAMPLERS[name] if name in SAMPLERS else scheduled(name)


def scheduled(name: str) -> Sampler:
    """A sampler that asks a scheduler of diffusers for every step."""
    import diffusers

    made = getattr(diffusers, f"{name.removesuffix('Scheduler')}Scheduler", None)
    walk = None if made is None or name.removesuffix("Scheduler") in UNFIT else _walk(made)
    if made is None or walk is None:
        raise UserError(
            f"There is no sampler {name!r}: use {', '.join(SAMPLERS)}, or a scheduler of diffusers such as UniPCMultistep or DDIM, "
            "by the name of its class without 'Scheduler'."
        )

    def sampled(field: Field, noise: Grid, times: Float[Tensor, "s"], draw: Draw, seen: Seen = unseen) -> Grid:
        try:
            made().set_timesteps(len(times) - 1)
        except (ValueError, RuntimeError, IndexError, TypeError) as error:
            raise UserError(f"{name} cannot make {len(times) - 1} steps ({error}): use others, or another sampler.") from error
        return walk(made, field, noise, times, draw, seen)

    return sampled


def own_times(name: str) -> bool:
    """Whether a sampler visits times of its own, from noise alone on, whatever it is told."""
    if name in SAMPLERS:
        return False
    import diffusers

    made = getattr(diffusers, f"{name.removesuffix('Scheduler')}Scheduler", None)
    return made is not None and _walk(made) is _along_diffusion


def _walk(made: Any) -> Any:
    options = inspect.signature(made.__init__).parameters
    if made.__name__.startswith("FlowMatch"):
        return _along_flow if "sigmas" in inspect.signature(made.set_timesteps).parameters else None
    if "use_flow_sigmas" in options:
        return _by_solver
    return _along_diffusion if {"trained_betas", "prediction_type"} <= set(options) else None


def _along_flow(made: Any, field: Field, noise: Grid, times: Tensor, draw: Draw, seen: Seen) -> Grid:
    """Schedulers of flows, at our own times."""
    scheduler = made()
    scheduler.set_timesteps(sigmas=times[:-1].cpu().numpy(), device=noise.device)
    return _steps(scheduler, noise, draw, seen, lambda x, at, step: velocity(field, x, times[step].to(x.dtype)))


def _by_solver(made: Any, field: Field, noise: Grid, times: Tensor, draw: Draw, seen: Seen) -> Grid:
    """Solvers that know flows, at our own times."""
    scheduler = made(use_flow_sigmas=True, prediction_type="flow_prediction")
    scheduler.set_timesteps(len(times) - 1)
    reaches = float(scheduler.sigmas[-1]) == 0
    scheduler.sigmas = times.clamp(0 if reaches else LAST, NEAREST).float().cpu()
    scheduler.timesteps = (scheduler.sigmas[:-1] * 1000).to(noise.device)
    return _steps(scheduler, noise, draw, seen, lambda x, at, step: velocity(field, x, scheduler.sigmas[step].to(x)))


def _along_diffusion(made: Any, field: Field, noise: Grid, times: Tensor, draw: Draw, seen: Seen) -> Grid:
    """Schedulers of diffusions, at their own times: they are told the noise, on their grid."""
    scheduler = made(**{"clip_sample": False} if "clip_sample" in inspect.signature(made.__init__).parameters else {})
    scheduler.set_timesteps(len(times) - 1, device=noise.device)
    kept = scheduler.alphas_cumprod.double()

    def told(x: Tensor, at: Tensor, step: int) -> Tensor:
        own = scheduler.scale_model_input(x, at)
        low, part = int(at), float(at) - int(at)
        left = kept[low] * (1 - part) + kept[min(low + 1, len(kept) - 1)] * part
        a, s = left.sqrt().to(x), (1 - left).sqrt().to(x)
        t, line = s / (a + s), own / (a + s)
        return line + (1 - t) * velocity(field, line, t)

    a, s = Diffusion.shares(times[0])  # of the line, on which the noise comes
    return _steps(scheduler, noise * (a + s).to(noise) * scheduler.init_noise_sigma, draw, seen, told)


def _steps(scheduler: Any, x: Tensor, draw: Draw, seen: Seen, told: Any) -> Tensor:
    random = {}
    if "generator" in inspect.signature(scheduler.step).parameters:
        seeds = draw(0).flatten(1)[:, 0].float().view(torch.int32).tolist()  # each clip's own, whatever stands beside it
        random["generator"] = [torch.Generator().manual_seed(seed % 2**32) for seed in seeds]
    for step, at in enumerate(scheduler.timesteps):
        x = scheduler.step(told(x, at, step), at, x, return_dict=False, **random)[0]
        seen(step + 1, x)
    return x
