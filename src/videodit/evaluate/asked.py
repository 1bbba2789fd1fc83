"""What can be asked for by name, known before anything is loaded."""

from __future__ import annotations

from typing import Literal, get_args

Prompts = Literal["held-out", "seen", "two"]
Task = Literal["t2v", "t2i", "i2v", "interpolate", "predict", "suffix", "complete", "extend"]
Kernel = Literal["area", "bicubic", "bilinear", "lanczos"]
Named = Literal["own", "stylegan-v", "ucf101-zero-shot"]  # protocols of scores
PROMPTS: tuple[Prompts, ...] = get_args(Prompts)
TASKS: tuple[Task, ...] = get_args(Task)
KERNELS: tuple[Kernel, ...] = get_args(Kernel)
NAMED: tuple[Named, ...] = get_args(Named)
DRAWS = 1000  # for intervals of what costs nothing to compute again: means over clips
DRAWN = "toybox"  # in place of files: held-out scenes of the toybox
