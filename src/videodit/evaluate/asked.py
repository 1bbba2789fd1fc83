"""What can be asked for by name, known before anything is loaded."""

from __future__ import annotations

from typing import Literal, get_args

Prompts = Literal["held-out", "seen", "two"]
Task = Literal["t2v", "t2i", "i2v", "interpolate", "predict", "extend"]
Kernel = Literal["area", "bicubic", "bilinear", "lanczos"]
PROMPTS: tuple[Prompts, ...] = get_args(Prompts)
TASKS: tuple[Task, ...] = get_args(Task)
KERNELS: tuple[Kernel, ...] = get_args(Kernel)
DRAWN = "toybox"  # in place of files: held-out scenes of the toybox
