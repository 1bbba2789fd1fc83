"""What a clip was made of, written into it, and read back from clips of strangers: nothing in a record is believed before it is checked."""

from __future__ import annotations

import dataclasses
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from videodit import adapters, folders, kernels, models
from videodit.data import video
from videodit.request import INPUTS, Request, scaled
from videodit.shapes import UserError

WORDS = ("prompt", "negative", "before", "task", "by", "sampler", "keep", "upscale")
NUMBERS = ("fps", "guidance", "shift", "strength", "softened")
WHOLE = ("seed", "number", "frames", "rows", "columns", "steps")
LISTS = ("then", "lora")


def record(request: Request, name: str, suffix: str = ".mp4") -> str:
    """What a clip was made of and where, as JSON: files by name and digest, models by their digests. `suffix`: of the clip's file."""
    asked = {key: value for key, value in dataclasses.asdict(request).items() if value not in (None, "", (), {})}
    inputs = {key: models.digest(path) for key in INPUTS if (path := getattr(request, key)) is not None}
    asked |= {key: Path(asked[key]).name for key in inputs}
    if request.lora:
        loras = [scaled(text) for text in request.lora]
        asked["lora"] = [f"{path.name}={scale}" for path, scale in loras]
        inputs |= {key: models.digest(path) for key, path in _adapters(request).items()}
    if request.upscale:
        asked["upscale"], inputs["upscale"] = Path(request.upscale).name, model_digest(request.upscale)
    where = machine(pictures=suffix.lower() in (".png", ".webp") or any(key in inputs for key in INPUTS))
    return json.dumps(
        {"videodit": asked, "model": {"name": Path(name).name, "digest": model_digest(name)}, "inputs": inputs, "machine": where}
    )


def _adapters(request: Request) -> dict[str, Path]:
    """The files of adapters by what a record calls them; of one name there may be several, as training calls all of its own lora."""
    found: dict[str, Path] = {}
    for path, _ in map(scaled, request.lora):
        key = f"lora {path.name}"
        found[key if key not in found else f"{key} {len(found) + 1}"] = adapters.file_of(path)
    return found


def machine(*, pictures: bool = True) -> dict[str, Any]:
    """What equal bytes depend on; `pictures`: whether Pillow reads, resizes or writes any."""
    names = ("videodit", "torch", "diffusers", "numpy", "av", *(["pillow"] if pictures else []))  # schedulers, the autoencoder; noise
    return versions(*names) | {"threads": torch.get_num_threads(), "cpu": torch.backends.cpu.get_cpu_capability(), "kernels": _kernels()}


def _kernels() -> dict[str, str]:
    """Whether oneDNN is on, and whether its operator is there for requests that ask for it."""
    mkldnn = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    return {"mkldnn": "on" if mkldnn else "off", "onednn": "there" if kernels.available() else "missing"}


def versions(*names: str) -> dict[str, str]:
    """Of packages, by their names."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from its sources
            found[name] = "not installed"
    return found


def model_digest(name: str) -> str:
    """Of what model.toml says, which holds the digests of all files."""
    return models.digest(folders.locate(name) / "model.toml")


def read_record(path: Path) -> dict[str, Any]:
    """The record that a clip carries, with every value of the kind it has to be."""
    try:
        found = json.loads(video.read_note(path))
        asked, model, inputs, where = (found[key] for key in ("videodit", "model", "inputs", "machine"))
        wrong = [key for key, value in asked.items() if not _fits(key, value)]
        if wrong:
            raise UserError(
                f"The record in {path} asks for {wrong[0][:40]!r} = {str(asked[wrong[0]])[:40]!r}, which cannot be: make it anew."
            )
        assert isinstance(model["name"], str) and isinstance(where, dict)
        assert all(isinstance(word, str) for pair in inputs.items() for word in pair)
        return found
    except (ValueError, KeyError, AssertionError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path} does not say how it was made: --like takes a clip that this program wrote.") from None


def _fits(key: str, value: Any) -> bool:
    if key in WORDS or key in INPUTS:
        return isinstance(value, str)
    if key in LISTS:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if key == "kernels":
        return kernels.is_record(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return (key in WHOLE and whole and 0 <= value < 2**63) or (key in NUMBERS and (whole or isinstance(value, float)))


def model_of(found: dict[str, Any], path: Path) -> str:
    """The model's folder: the bundled one, or one of its name here or beside the clip. A clip leads to no other place."""
    return _folder(found["model"]["name"], path, "was made", "--model", found["model"].get("digest"))


def second_of(found: dict[str, Any], path: Path) -> str:
    """That of the model that made the clip larger; empty if none did."""
    name = found["videodit"].get("upscale")
    return "" if name is None else _folder(name, path, "was made larger", "--upscale", found["inputs"].get("upscale"))


def _folder(name: str, path: Path, how: str, option: str, digest: str | None) -> str:
    """The place of that name whose model is the one of this digest, or else the first."""
    name = Path(name).name
    there = [str(place) for place in (Path(name).absolute(), path.absolute().parent / name) if (place / "model.toml").is_file()]
    places = ["toybox", *there] if name == "toybox" else there
    if places:
        return next((place for place in places if model_digest(place) == digest), places[0])
    raise UserError(f"{path} {how} by the model {name[:60]!r}, which is not here: give its folder by {option}.")


def asked_by(found: dict[str, Any], path: Path) -> Request:
    """The request that a record holds, but for the second model; its files are looked for by name, here and beside the clip."""
    asked = {key: value for key, value in found["videodit"].items() if key != "upscale"}
    for key in INPUTS:
        if key in asked:
            asked[key] = _beside(Path(asked[key]).name, path)
    asked |= {key: tuple(asked[key]) for key in LISTS if key in asked}
    if "lora" in asked:
        asked["lora"] = tuple(f"{_beside(name.name, path)}={scale}" for name, scale in map(scaled, asked["lora"]))
    return Request(**asked)


def _beside(name: str, path: Path) -> Path:
    return Path(name) if Path(name).exists() else path.parent / name


def _flat(where: dict[str, Any]) -> dict[str, Any]:
    which = where.get("kernels")
    parts = {f"kernels.{key}": value for key, value in which.items()} if isinstance(which, dict) else {}
    return {key: value for key, value in where.items() if key != "kernels"} | parts


def differences(found: dict[str, Any], request: Request, name: str) -> list[str]:
    """What is not as it was when a clip was made, as far as its record goes."""
    now, before = _flat(machine()), _flat(found["machine"])
    others = [f"{key} was {str(before[key])[:40]!r}, is {value!r}" for key, value in now.items() if before.get(key, value) != value]
    if (was := found["model"].get("digest")) != model_digest(name):
        others.append(f"the model was {str(was)[:12]!r}, is {model_digest(name)[:12]!r}")
    if found["videodit"].get("kernels", {}) != request.kernels:
        others.append("its kernels are not those of its record")
    inputs, loras = dict(found["inputs"]), _adapters(request)
    if request.upscale and (was := inputs.pop("upscale", "")) != (digest := model_digest(request.upscale)):
        others.append(f"the model of --upscale was {was[:12]!r}, is {digest[:12]!r}")
    for key, kept in inputs.items():
        path = loras.get(key) or (getattr(request, key) if key in INPUTS else None)
        if path is None or not path.is_file() or models.digest(path) != kept:
            others.append(f"--{key[:40]} is not the file that was used")
    return others
