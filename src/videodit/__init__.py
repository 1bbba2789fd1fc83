"""Turns an image diffusion transformer into a video generator. `videodit.load().generate("a red circle moves right")` makes a video."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from videodit.shapes import Size, Text, UserError

if TYPE_CHECKING:
    from videodit.generate import load as load

__all__ = ["Size", "Text", "UserError", "load"]


def __getattr__(name: str) -> Any:
    """`load` brings torch along, so it comes when it is asked for."""
    if name == "load":
        from videodit.generate import load

        return load
    raise AttributeError(f"module 'videodit' has no attribute {name!r}")
