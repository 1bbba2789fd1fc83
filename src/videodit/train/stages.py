"""A run file of several stages, such as a low resolution and then a high one: each goes on, with some settings changed, from the weights
that the one before left. A stage is a run like any other, in a folder of its own, so it is stopped, taken up and looked at like one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from videodit import config
from videodit.shapes import UserError
from videodit.train import checkpoint
from videodit.train.decoder import DecoderRun
from videodit.train.step import Run

Kind = TypeVar("Kind", bound=Run)
MARK = ".finished"  # beside the model of a stage that others follow: what trained it


def stages(settings: Kind, *, ahead: bool = False) -> list[Kind]:
    """The runs of a run file in their order; one alone where nothing follows. `ahead`: as they can be looked at before any is trained,
    all from what the first one starts from."""
    if not settings.then:
        return [settings]
    if isinstance(settings, DecoderRun):
        raise UserError("then goes on from the weights of a run, and of kind=decoder they are a part of a model: leave then out.")
    if not settings.output.name:
        raise UserError(f"Folders of stages stand beside output, and {settings.output} has no name: choose another.")
    outputs = [settings.output.with_name(f"{settings.output.name}-{number}") for number in range(1, 1 + len(settings.then))]
    found = [replace(settings, then=(), output=outputs[0])]
    for number, (changes, output) in enumerate(zip(settings.then, [*outputs[1:], settings.output], strict=True)):
        begun: Any = found[0]
        start = begun.start if ahead and begun.start not in (None, "none") else found[-1].output / "model"
        places = [f"{name}={json.dumps(str(path), ensure_ascii=False)}" for name, path in (("start", start), ("output", output))]
        before, name = config.write(found[-1]), f"then[{number}]"
        plain = config.parse(type(settings), before, places, name=name)
        after = config.parse(type(settings), before, [*places, *changes], name=name)
        if other := [key for key, value in _whole(after).items() if value != _whole(plain)[key]]:
            raise UserError(f"{name} changes {' and '.join(other)}, which are of the whole run: leave them out.")
        found.append(after)
    return found


def _whole(settings: Any) -> dict[str, Any]:
    """What is said once for all stages."""
    same = {name: getattr(settings, name) for name in ("output", "start", "then", "device")}
    return same | {"parallel.offload": settings.parallel.offload}


def done(runs: Sequence[Run]) -> int:
    """How many stages are over; the last one is always taken up."""
    count = next((number for number, run in enumerate(runs[:-1]) if not _finished(run)), len(runs) - 1)
    for later in runs[count + 1 :]:
        if checkpoint.found(later.output / "checkpoints"):
            raise UserError(
                f"{later.output} has checkpoints, and {runs[count].output}, which comes before it, was not trained to its end as the run "
                f"file says now: set it as it was, or choose another output."
            )
    return count


def _finished(run: Any) -> bool:
    """Whether its model is there and was trained by the settings of now, wherever it stands."""
    try:
        was: Any = config.read(type(run), run.output / MARK)
    except UserError:
        return False
    return replace(was, start=run.start).digest == run.digest and was.steps == run.steps and (run.output / "model").is_dir()


def begin(run: Run) -> None:
    """Its model is not there, or not the one that it will be."""
    (run.output / MARK).unlink(missing_ok=True)


def finish(run: Run) -> None:
    (run.output / MARK).write_text(config.write(run), encoding="utf-8")
