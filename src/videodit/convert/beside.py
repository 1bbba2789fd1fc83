"""What stands beside a transformer in a pipeline, and makes a model whole: autoencoder, what tells it, objective and schedule."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from videodit import autoencoder, models
from videodit.autoencoder import DPVAE, DPVAESettings, PerFrame
from videodit.backbone import DiT, DualTransformer, SingleTransformer, Transformer
from videodit.convert import sources
from videodit.convert.from_image import LAVITA
from videodit.convert.sources import Source
from videodit.data.labels import Labels, LabelSettings
from videodit.data.text_sd3 import SD3Text, SD3TextSettings
from videodit.diffusion.guidance import Guidance
from videodit.diffusion.objectives import Diffusion, Flow, Objective
from videodit.diffusion.times import Times
from videodit.models import Sampling
from videodit.shapes import UserError

GROUP = 4  # frames of a group of pictures
PREDICTIONS = {"epsilon": "noise", "v_prediction": "v"}
BETAS = {"linear": "linear", "scaled_linear": "scaled-linear", "squaredcos_cap_v2": "cosine"}
SD3_SAMPLING = Sampling(steps=28, guidance=Guidance(scale=7.0))  # the defaults of diffusers' pipelines
DIT_SAMPLING = Sampling(sampler="ddim", steps=50, guidance=Guidance(scale=4.0))


@dataclass(frozen=True, kw_only=True)
class Beside:
    autoencoder: PerFrame
    image: Path  # the folder that it came from
    text: SD3Text | Labels
    objective: Objective = field(default_factory=Flow)
    times: Times = field(default_factory=Times)
    sampling: Sampling


def beside(
    path: Path, source: Source, video: DualTransformer | SingleTransformer, given: Path | None = None, time: int | None = None
) -> Beside | None:
    """Of a pipeline's folder, or of a transformer with the autoencoder that was `given` to it; None: it stands alone.

    `time`: frames of a group; with 1, and for LAVITA's layouts where nothing is said, frames are encoded one by one.
    """
    whole = not path.is_file() and sources.pipeline_in(path) is not None
    if whole and given is not None:
        raise UserError(f"{path} has an autoencoder of its own: leave --autoencoder out, or give the transformer's folder alone.")
    folder = path / "vae" if whole else given
    if folder is None:
        return None
    if isinstance(source.settings, Transformer) and not whole:
        raise UserError("SD3's transformer needs its text encoders too: give the folder of the whole pipeline, without --autoencoder.")
    image = models.load_autoencoder(folder)
    lavita = video.settings.layout in LAVITA or (isinstance(source.settings, DiT) and source.settings.layout != "spatial")
    group = time or (1 if lavita else GROUP)
    if isinstance(image, DPVAE):
        raise UserError(f"{folder} is a video autoencoder, and the image model's is wanted: give an AutoencoderKL as diffusers saves it.")
    encoder = PerFrame(image.image) if group == 1 else autoencoder.inflate(image.image, DPVAESettings(time=group))
    if encoder.channels != source.settings.channels:
        raise UserError(f"The transformer takes latents of {source.settings.channels} channels, the autoencoder makes {encoder.channels}.")
    schedule = sources.load_json(path / "scheduler" / "scheduler_config.json") if whole else {}
    if isinstance(source.settings, Transformer):
        if schedule.get("use_dynamic_shifting"):
            raise UserError("A schedule whose shift follows the extent is not read: give one without use_dynamic_shifting.")
        times = Times(shift=_number(schedule, "shift", 1.0))
        return Beside(autoencoder=encoder.eval(), image=folder, text=_text(path, source.settings), times=times, sampling=SD3_SAMPLING)
    assert isinstance(video.settings, DiT)
    return Beside(
        autoencoder=encoder.eval(),
        image=folder,
        text=_labels(path if whole else None, video.settings),
        objective=diffusion(schedule, variance=video.settings.variance),
        sampling=DIT_SAMPLING if video.settings.labels else Sampling(sampler="ddim", steps=50, guidance=Guidance(scale=1.0)),
    )


def _text(path: Path, settings: Transformer) -> SD3Text:
    text = SD3Text.of_pipeline(path, SD3TextSettings(width=settings.text))
    blank = text([""])
    assert blank.sequence is not None and blank.pooled is not None
    found, wanted = (blank.sequence.shape[-1], blank.pooled.shape[-1]), (settings.text, settings.pooled)
    if found != wanted:
        raise UserError(
            f"The text encoders make {found[0]} channels a token and {found[1]} in all, the transformer takes {wanted[0]} and {wanted[1]}."
        )
    return text


def _labels(pipeline: Path | None, settings: DiT) -> Labels:
    """The labels by the names that the pipeline has for them, else by their numbers; none where the transformer takes none."""
    index = pipeline / "model_index.json" if pipeline and settings.labels else None
    named = sources.load_json(index).get("id2label") if index else None
    if named is None:
        return Labels(LabelSettings(names=tuple(map(str, range(settings.labels)))))
    try:
        names = tuple(str(named[str(i)]) for i in range(settings.labels))
    except (KeyError, TypeError):
        raise UserError(f"id2label in {index} does not name {settings.labels} labels: copy it again.") from None
    often = Counter(names)
    return Labels(LabelSettings(names=tuple(name if often[name] == 1 else f"{name} ({i})" for i, name in enumerate(names))))


def diffusion(schedule: Mapping[str, Any], *, variance: bool) -> Diffusion:
    """The objective that a scheduler of diffusers samples from; without one, DiT's."""
    predicted, growth = schedule.get("prediction_type", "epsilon"), schedule.get("beta_schedule", "linear")
    if schedule.get("rescale_betas_zero_snr"):
        raise UserError("A schedule whose betas are rescaled to end in noise alone is not read: give one without rescale_betas_zero_snr.")
    if str(predicted) not in PREDICTIONS or str(growth) not in BETAS or schedule.get("trained_betas") is not None:
        raise UserError(
            f"A schedule of {growth} betas that predicts {predicted} is not read: "
            f"only {', '.join(BETAS)} without trained betas, which predict {' or '.join(PREDICTIONS)}."
        )
    return Diffusion(
        prediction=PREDICTIONS[predicted],  # pyright: ignore[reportArgumentType]
        variance=variance,
        betas=BETAS[growth],  # pyright: ignore[reportArgumentType]
        first=_number(schedule, "beta_start", 1e-4),
        last=_number(schedule, "beta_end", 0.02),
        steps=int(_number(schedule, "num_train_timesteps", 1000.0)),
    )


def _number(schedule: Mapping[str, Any], name: str, default: float) -> float:
    found = schedule.get(name, default)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise UserError(f"The schedule says {name} = {found}, which is no number: copy its scheduler_config.json again.")
    return float(found)


def schedule(objective: Diffusion) -> dict[str, Any]:
    """The configuration of a scheduler of diffusers for an objective."""
    predictions, betas = ({ours: theirs for theirs, ours in table.items()} for table in (PREDICTIONS, BETAS))
    return {
        "prediction_type": predictions[objective.prediction],
        "beta_schedule": betas[objective.betas],
        "beta_start": objective.first,
        "beta_end": objective.last,
        "num_train_timesteps": objective.steps,
        "clip_sample": False,
    }
