"""Schedulers of diffusers that walk from noise to data, as samplers; imported when one is named. Those of REFUSED do something else."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from videodit.diffusion.guidance import Field
from videodit.diffusion.objectives import Diffusion
from videodit.diffusion.samplers import SAMPLERS, Draw, Grid, Sampler, Seen, unseen, velocity
from videodit.shapes import UserError

NEAREST, LAST = 0.999, 0.001  # solvers of flows start and some end: of 1 and 0 they would take logarithms
THERE = ("LTXEulerAncestralRF", "DDPMWuerstchen")  # which reckon with their times where the clip is, and so wait for it
LIMITS = (ValueError, RuntimeError, IndexError, TypeError, ZeroDivisionError)  # of schedulers that are asked for too many or too few steps
REFUSED = {
    **dict.fromkeys(("Amused", "BlockRefinement", "DiscreteDDIM", "EntropyBound", "VQDiffusion"), "chooses words of a codebook"),
    **dict.fromkeys(("DDIMInverse", "DPMSolverMultistepInverse"), "leads data back to noise"),
    **dict.fromkeys(("Helios", "HeliosDMD"), "makes a clip in stages whose resolution grows"),
    **dict.fromkeys(("CosineDPMSolverMultistep", "DPMSolverSDE"), "draws its noise by torchsde, for all clips at once"),
    **dict.fromkeys(("KarrasVe", "ScoreSdeVe"), "takes each step in parts, which its own pipeline calls"),
    "Piflow": "takes networks that answer with many velocities at once",
    "RFD4Proteina": "makes proteins",
    "RePaint": "fills holes of a picture",
}


def sampler(name: str) -> Sampler:
    """One of SAMPLERS, or a scheduler of diffusers by the name of its class."""
    return SAMPLERS[name] if name in SAMPLERS else scheduled(name)


def scheduled(name: str) -> Sampler:
    """A sampler that asks a scheduler of diffusers for every step."""
    import diffusers

    short = name.removesuffix("Scheduler")
    made, walk = getattr(diffusers, f"{short}Scheduler", None), WALKS.get(short)
    if made is None:
        raise UserError(
            f"There is no sampler {name!r}: use {', '.join(SAMPLERS)}, or a scheduler of diffusers such as UniPCMultistep or DDIM, "
            "by the name of its class without 'Scheduler'."
        )
    if walk is None:
        why = REFUSED.get(short, "is newer than what is known here")
        raise UserError(f"{name} is a scheduler of diffusers that {why}, so it is no sampler here: use UniPCMultistep, DDIM or another.")

    def sampled(field: Field, noise: Grid, times: Float[Tensor, "s"], draw: Draw, seen: Seen = unseen) -> Grid:
        try:
            ready = walk(made, times.cpu())
        except LIMITS as error:
            raise UserError(f"{name} cannot make {len(times) - 1} steps ({error}): use others, or another sampler.") from error
        return _walked(ready, field, noise, len(times) - 1, draw, seen)

    return sampled


def own_times(name: str) -> bool:
    """Whether a sampler visits times of its own, from noise alone on, whatever it is told."""
    return WALKS.get(name.removesuffix("Scheduler")) is _along_diffusion


class Walk(NamedTuple):
    """A scheduler that is about to step. All of it stays on the host, so that looking at it waits for nothing.

    At each look: what the scheduler calls it (`names`) and we (`times`); how large its grid is beside the line (`scale`); and the answer
    that it takes, so much of the line and so much of the velocity.
    """

    scheduler: Any
    names: Tensor
    times: Tensor
    scale: Tensor
    line: Tensor
    speed: Tensor
    begin: float  # its noise beside the line's


def _along_flow(made: Any, times: Tensor) -> Walk:
    """Schedulers of flows, at our own times; of two looks a step, the second is at its end."""
    scheduler, sigmas = made(), times.float()
    scheduler.set_timesteps(max(2, len(times) - 1))
    if scheduler.order == 2 or made.__name__.startswith("FlowMatchHeun"):
        sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
    backwards = made.__name__.startswith("MiniMax")  # its time is 1 at data, and so its velocity ours turned round
    scheduler.sigmas, scheduler.timesteps = sigmas, 1 - sigmas[:-1] if backwards else sigmas[:-1] * 1000
    return _flow(scheduler, -1.0 if backwards else 1.0)


def _by_solver(made: Any, times: Tensor) -> Walk:
    """Solvers that know flows, at our own times."""
    scheduler = made(use_flow_sigmas=True, prediction_type="flow_prediction")
    scheduler.set_timesteps(len(times) - 1)
    reaches = float(scheduler.sigmas[-1]) == 0
    scheduler.sigmas = times.clamp(0 if reaches else LAST, NEAREST).float()
    scheduler.timesteps = scheduler.sigmas[:-1] * 1000
    return _flow(scheduler, 1.0)


def _flow(scheduler: Any, sign: float) -> Walk:
    ones = torch.ones(len(scheduler.timesteps), dtype=torch.float64)
    return Walk(scheduler, scheduler.timesteps, scheduler.sigmas[:-1], ones, 0 * ones, sign * ones, 1.0)


def _along_diffusion(made: Any, times: Tensor) -> Walk:
    """Schedulers of diffusions, at their own times: they are told the noise, on their grid."""
    scheduler = made(**{"clip_sample": False} if "clip_sample" in inspect.signature(made.__init__).parameters else {})
    scheduler.set_timesteps(len(times) - 1)
    if hasattr(scheduler, "alphas_cumprod"):
        names, kept = scheduler.timesteps, scheduler.alphas_cumprod.double()
        low, part = names.long(), names.double() - names.long()
        left = kept[low] * (1 - part) + kept[(low + 1).clamp(max=len(kept) - 1)] * part
    else:  # Wuerstchen's, whose times end at 0
        names = scheduler.timesteps[:-1]
        left = scheduler._alpha_cumprod(names, names.device).double()
    a, s = left.sqrt(), (1 - left).sqrt()
    begin = float(sum(Diffusion.shares(times[0].double()))) * float(scheduler.init_noise_sigma)  # of the line, on which the noise comes
    return Walk(scheduler, names, s / (a + s), a + s, torch.ones_like(a), a / (a + s), begin)


def _by_sigma(made: Any, times: Tensor) -> Walk:
    """EDM's and consistency models', at our own times: clean + sigma noise, where the data is some of that and some of the answer."""
    consistent, t = made.__name__.startswith("CM"), times.double().clamp(max=NEAREST)
    wide: dict[str, Any] = {"num_train_timesteps": len(times), "sigma_min": 2**-13, "sigma_max": 1e4, "clip_denoised": False}
    scheduler, sigmas = made(**wide if consistent else {}), t / (1 - t)
    scheduler.set_timesteps(len(times) - 1)
    scheduler.sigmas, scheduler.timesteps = sigmas.float(), sigmas[:-1].log().float() / 4
    t, now, one = t[:-1], sigmas[:-1], torch.ones(len(times) - 1, dtype=torch.float64)
    if consistent:
        skip, out = scheduler.get_scalings_for_boundary_condition(now)
    else:
        skip, out = scheduler.precondition_outputs(one, 0 * one, now), scheduler.precondition_outputs(0 * one, one, now)
    scale = (1 + now) / (now**2 + scheduler.config.sigma_data**2).sqrt()  # of what its own network would see
    return Walk(scheduler, scheduler.timesteps, t, scale, (1 - skip * (1 + now)) / out, -t / out, float(1 + now[0]))


def _by_v(made: Any, times: Tensor) -> Walk:
    """IPNDM, at our own times: it is told a noise - s clean."""
    scheduler, t = made(), times.double().clamp(max=NEAREST)
    scheduler.set_timesteps(len(times) - 1)
    a, s = Diffusion.shares(t)
    scheduler.alphas, scheduler.betas = a.float(), s.float()
    t, a, s = t[:-1], a[:-1], s[:-1]
    return Walk(scheduler, scheduler.timesteps, t, a + s, a - s, a * (1 - t) + s * t, float(a[0] + s[0]))


def _by_angle(made: Any, times: Tensor) -> Walk:
    """SCM, at our own times: angles whose cosine and sine are a and s. The data is a times its grid less s times the answer."""
    t, (a, s), scheduler = times.double(), Diffusion.shares(times.double()), made(sigma_data=1.0)
    scheduler.set_timesteps(len(times) - 1, timesteps=torch.atan2(s, a), max_timesteps=None, intermediate_timesteps=None)
    t, a, s = t[:-1], a[:-1], s[:-1]
    return Walk(scheduler, scheduler.timesteps[:-1], t, a + s, (a * (a + s) - 1) / s, t / s, float(a[0] + s[0]))


def _walked(walk: Walk, field: Field, noise: Tensor, steps: int, draw: Draw, seen: Seen) -> Tensor:
    scheduler, asked, looks = walk.scheduler, inspect.signature(walk.scheduler.step).parameters, len(walk.names)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    there = type(scheduler).__name__.removesuffix("Scheduler") in THERE
    for held in ("timesteps", "sigmas") if there else ():
        if hasattr(scheduler, held):
            setattr(scheduler, held, getattr(scheduler, held).to(noise.device))
    more: dict[str, Any] = {}
    if "generator" in asked:
        seeds = draw(0).flatten(1)[:, 0].float().view(torch.int32).tolist()  # each clip's own, whatever stands beside it
        more["generator"] = [torch.Generator().manual_seed(seed % 2**32) for seed in seeds]
    x, before, done, times = noise * walk.begin, None, 0, walk.times.to(noise.dtype)
    for look, name in enumerate(walk.names):
        own = scheduler.scale_model_input(x, name) if hasattr(scheduler, "scale_model_input") else x
        own = own / walk.scale[look]
        answer = walk.line[look] * own + walk.speed[look] * velocity(field, own, times[look])
        others = {
            "prev_timestep": walk.names[look + 1] if look + 1 < looks else None,
            "timestep_back": walk.names[look - 1] if look else None,
            "old_pred_original_sample": before,
        }
        more |= {other: value for other, value in others.items() if other in asked}
        at = name.to(x.device) if there else name
        at = at.expand(len(x)) if hasattr(scheduler, "_alpha_cumprod") else at  # Wuerstchen's: a time for each clip
        x, *rest = scheduler.step(model_output=answer, timestep=at, sample=x, return_dict=False, **more)
        before = rest[0] if rest else None
        if (now := (look + 1) * steps // looks) > done:  # some look several times a step
            done = now
            seen(done, x)
    return x


WALKS: dict[str, Callable[[Any, Tensor], Walk]] = {
    **dict.fromkeys(("FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete", "FlowMatchLCM", "FlowMapEulerDiscrete"), _along_flow),
    **dict.fromkeys(("LTXEulerAncestralRF", "MiniMaxH3"), _along_flow),
    **dict.fromkeys(("UniPCMultistep", "DPMSolverMultistep", "DPMSolverSinglestep", "DEISMultistep", "SASolver"), _by_solver),
    **dict.fromkeys(("DDIM", "DDIMParallel", "CogVideoXDDIM", "CogVideoXDPM"), _along_diffusion),
    **dict.fromkeys(("DDPM", "DDPMParallel", "DDPMWuerstchen", "UnCLIP", "PNDM", "LCM", "TCD", "LMSDiscrete"), _along_diffusion),
    **dict.fromkeys(("EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete"), _along_diffusion),
    **dict.fromkeys(("KDPM2Discrete", "KDPM2AncestralDiscrete"), _along_diffusion),
    **dict.fromkeys(("EDMEuler", "EDMDPMSolverMultistep", "CMStochasticIterative"), _by_sigma),
    "IPNDM": _by_v,
    "SCM": _by_angle,
}
