"""Image weights to video weights."""

from videodit.convert.deeper import deepen
from videodit.convert.from_image import inflate

__all__ = ["deepen", "inflate"]
