"""Where models and run files are: by path, or those that come with the package by name; known before anything is loaded.

And how a folder is written, whole or not at all.
"""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from videodit.shapes import UserError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def bundled() -> Path:
    """The folder of the model that comes with the package."""
    return Path(str(files("videodit") / "weights" / "toybox"))


def locate(name: str | Path) -> Path:
    """A model folder by path, or the bundled one by its name."""
    path = bundled() if str(name) == "toybox" else Path(name)
    if not path.is_dir():
        kind = "is a file" if path.exists() else "does not exist"
        raise UserError(f"The model {name} {kind}: give a folder with a model.toml in it, or 'toybox' for the bundled model.")
    if not (path / "model.toml").is_file():
        pickles = sorted(p.name for p in path.iterdir() if p.suffix in PICKLES)
        if pickles:
            raise UserError(f"{path} holds a pickle ({pickles[0]}), which can run code: only safetensors are read; have it saved as those.")
        if (path / "model_index.json").is_file():
            raise UserError(f"{path} is a pipeline of diffusers: `videodit convert {path} OUT` makes a model of it.")
        raise UserError(f"There is no model.toml in {path}: give the folder that training left in OUTPUT/model.")
    return path


@contextmanager
def written(folder: Path) -> Iterator[Path]:
    """A folder that appears whole or not at all."""
    aside = folder.with_name(f".writing-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def runs() -> dict[str, Path]:
    """The run files that come with the package, by name: toybox_tiny, papers/video."""
    inside = Path(str(files("videodit")))
    folder = inside / "runs" if (inside / "runs").is_dir() else inside.parents[1] / "runs"
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.toml"))}


def run_file(name: str | Path) -> Path:
    """A run file by path, or one of the package's by its name."""
    path, known = Path(name), runs()
    if str(name) in known and not path.is_file():
        return known[str(name)]
    if path.exists():
        return path
    own = path.with_suffix("").as_posix().removeprefix("runs/")
    near = [own] if own in known else difflib.get_close_matches(own, known, 1)
    hint = f"; the package has one of its own by the name {near[0]}." if near else ", or a name that `videodit config` lists."
    raise UserError(f"There is no file {name}: give the path of a TOML file{hint}")
