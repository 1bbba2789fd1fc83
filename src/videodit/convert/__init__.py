"""Image weights to video weights."""

from videodit.convert.from_image import inflate

__all__ = ["inflate"]
