"""Pictures of things for the sprites: a colour font's, or a folder's. They are opened by Pillow alone, when first drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from videodit.data.drawing import Array
from videodit.data.things import THINGS
from videodit.shapes import UserError

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")  # where Debian and its kin put it
POINTS = 109  # the one size that the font's bitmaps have
SIDE, INNER = 128, 112  # of the finest level, and of what the longer side of a thing fills of it: one radius is INNER / 2
LEVELS = 5

Picture = tuple[Array, ...]  # levels of SIDE, SIDE / 2, ...: h w 4, colours multiplied by how much is covered, all in 0..1
Pictures = Callable[[str], Picture]  # noun -> picture


def pictures(source: Path) -> Pictures:
    """The pictures of a font, or of a folder that holds a NOUN.png for each noun."""
    return _opened(str(source)) if source.is_dir() else _opened(str(source.resolve()))


def levels(rgba: UInt8[np.ndarray, "h w 4"]) -> Picture:
    """What is covered of a picture, centred and shrunk by halves."""
    image = Image.fromarray(rgba)
    box = image.getchannel("A").getbbox()
    if box is None:
        raise UserError("A picture of a thing covers no pixel: give one with an alpha channel that shows it.")
    image = image.crop(box)
    scale = INNER / max(image.size)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BICUBIC)
    square = Image.new("RGBA", (SIDE, SIDE))
    square.paste(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
    finest = np.asarray(square, np.float32) / 255
    found = [np.concatenate([finest[..., :3] * finest[..., 3:], finest[..., 3:]], -1)]
    for _ in range(LEVELS - 1):
        x = found[-1]
        found.append(x.reshape(len(x) // 2, 2, len(x) // 2, 2, 4).mean((1, 3), dtype=np.float32))
    return tuple(found)


def sample(picture: Picture, x: Array, y: Array, scale: Array) -> Array:
    """The picture at places (f h w) in radii from its centre, for pixels of which a radius has `scale` (f 1 1): f h w 4."""
    texels = INNER / 2 / np.maximum(scale.ravel(), 1e-3)
    fine = np.clip(np.log2(np.maximum(texels, 1e-3)) - 0.5, 0, len(picture) - 1)  # half a level finer than a pixel: sharper
    out = np.zeros((*x.shape, 4), np.float32)
    for level, part in enumerate(picture):
        weight = np.clip(1 - abs(fine - level), 0, 1).astype(np.float32)
        some = np.flatnonzero(weight)
        if len(some):
            out[some] += weight[some, None, None, None] * _bilinear(part, x[some], y[some], INNER / 2 / 2**level)
    return out


def _bilinear(part: Array, x: Array, y: Array, radius: float) -> Array:
    """Between the four nearest texels; outside there is nothing, and the picture's own rim is empty."""
    side = len(part)
    column, row = (np.clip(way * radius + side / 2 - 0.5, 0, side - 1.001).astype(np.float32) for way in (x, y))
    left, top = column.astype(np.int32), row.astype(np.int32)
    right, down = (column - left)[..., None], (row - top)[..., None]
    flat, corner = part.reshape(-1, 4), top * side + left
    above = flat[corner] * (1 - right) + flat[corner + 1] * right
    below = flat[corner + side] * (1 - right) + flat[corner + side + 1] * right
    return above * (1 - down) + below * down


def digest(source: Path) -> str:
    """What decides the pictures."""
    content = hashlib.sha256()
    for file in sorted(source.glob("*.png")) if source.is_dir() else [source]:
        if not file.is_file():
            _font(file)  # says what is missing
        content.update(file.name.encode() + file.read_bytes())
    return content.hexdigest()


def family(source: Path) -> str:
    """What a font calls itself; a folder is called by its name."""
    return source.name if source.is_dir() else str(_font(source).getname()[0])


@lru_cache(maxsize=4)
def _opened(source: str) -> Pictures:
    path = Path(source)
    draw = _in_folder if path.is_dir() else _in_font
    opened: Any = path if path.is_dir() else _font(path)

    @cache
    def picture(noun: str) -> Picture:
        return levels(draw(opened, noun))

    return picture


def _font(path: Path) -> ImageFont.FreeTypeFont:
    try:
        return ImageFont.truetype(str(path), POINTS)
    except OSError:
        raise UserError(
            f"There is no colour font at {path}: install Debian's fonts-noto-color-emoji, or name the file of another."
        ) from None


def _in_font(font: ImageFont.FreeTypeFont, noun: str) -> NDArray[np.uint8]:
    image = Image.new("RGBA", (2 * POINTS, 2 * POINTS))
    ImageDraw.Draw(image).text((POINTS // 4, POINTS // 4), THINGS[noun], font=font, embedded_color=True)
    return np.array(image)


def _in_folder(folder: Path, noun: str) -> NDArray[np.uint8]:
    file = folder / f"{noun}.png"
    if not file.is_file():
        raise UserError(f"There is no {file}: a folder of pictures for the sprites holds one for each thing.")
    with Image.open(file) as image:
        return np.array(image.convert("RGBA"))
