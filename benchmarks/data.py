"""Frames decoded a second beside plain PyAV, and clips anywhere in a film before and after `videodit prepare`.

    OMP_NUM_THREADS=1 python benchmarks/data.py [--frames 300] [--repeats 3]

In ours one process decodes and another takes the frames, so wall time counts; all ways take turns on the same file, least time of each.
`plain`: PyAV's defaults; `exact`: with the matrix and range that ours has, whose frames are asserted to be equal. The film is drawn, in
H.264 with a key frame every 250. Prepared latents are those of the bundled autoencoder.

    OMP_NUM_THREADS=1 python benchmarks/data.py --clips 1000 20000

says instead what a transformer's run on so many prepared clips holds of them (made-up latents and captions, those of the bundled model in
extent): memory of the process, the seconds until it can begin, and how long a batch of 32 is read.

torchcodec takes its turn where it can be imported; its frames are asserted to be those of `plain`. It needs FFmpeg's libraries under their
own names. Those inside PyAV's wheel do:

    python benchmarks/data.py --links FOLDER
    LD_LIBRARY_PATH=FOLDER OMP_NUM_THREADS=1 python benchmarks/data.py
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import Colorspace

from videodit import models
from videodit.data import toybox, video
from videodit.data.cache import remembered
from videodit.data.sources import Manifest
from videodit.shapes import Size
from videodit.train import pools
from videodit.train.backbone import BackboneRun, Joint
from videodit.train.latents import Latents

CLIP = Size(16, 64, 64)


def film(path: Path, frames: int, rows: int, columns: int) -> None:
    drawn = np.concatenate([toybox.render(toybox.scene(7, i), Size(30, 64, 64)) for i in range(frames // 30)])
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"g": "250", "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = rows, columns, "yuv420p"
        for picture in drawn:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(columns, rows, "yuv420p")))
        container.mux(stream.encode(None))


def plain(path: Path, **how: Any) -> np.ndarray:
    """`how`: the matrix and rounding that make frames equal to ours, where PyAV's defaults are less exact and faster."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        return np.stack([frame.reformat(format="rgb24", **how).to_ndarray() for frame in container.decode(video=0)])


def torchcodec() -> Callable[[Path], np.ndarray] | None:
    """Its fastest way to all frames of a file, on as many threads as it finds good."""
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, OSError, RuntimeError):
        return None

    def read(path: Path) -> np.ndarray:
        decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=0)
        return decoder.get_frames_in_range(0, len(decoder)).data.numpy()

    return read


def links(folder: Path) -> None:
    """FFmpeg's libraries of PyAV's wheel, where their names carry a digest, under the names that others look for."""
    folder.mkdir(parents=True)
    for library in (Path(av.__file__).parents[1] / "av.libs").iterdir():
        name, version = library.name.split("-")[0], library.name.split(".so.")[-1].split(".")[0]
        (folder / library.name).symlink_to(library)  # they look for each other by these
        if name.startswith(("libav", "libsw")):
            (folder / f"{name}.so.{version}").symlink_to(library)


def least(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: min(values[1:]) for name, values in times.items()}


# --- Many clips ---


def listed(folder: Path, count: int) -> BackboneRun:
    """A run on so many files that nothing decodes, each with words of its own."""
    (folder / "files").mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(0 if (folder / "list.jsonl").is_file() else count):
        (folder / "files" / f"{i:08d}.mp4").write_text(str(i))
        rows.append(json.dumps({"path": f"files/{i:08d}.mp4", "caption": f"a {i % 97} moves {i}"}))
    if rows:
        (folder / "list.jsonl").write_text("\n".join(rows))
    bundled, data, joint = Path("toybox"), Manifest(path=folder / "list.jsonl"), Joint(video_probability=1.0)
    return BackboneRun(output=folder / "run", autoencoder=bundled, start=bundled, data=data, joint=joint, retention=0)


def held(folder: Path, count: int) -> dict[str, float]:
    """What a process that reads them holds beside what it did before, in bytes, and takes, in seconds."""
    settings = listed(folder, count)
    model, size = models.load("toybox"), settings.size
    grid = (1, model.autoencoder.channels, *model.autoencoder.latents(size))
    pools._of_file = lambda settings, item, *rest: {"latents": torch.randn(grid).half()}
    before, start = memory(), time.perf_counter()
    data = Latents(settings, model.autoencoder, model.text, "text")  # type: ignore[arg-type]
    ready = time.perf_counter() - start
    gc.collect()
    held, taken = memory() - before, []
    for step in range(60):
        start = time.perf_counter()
        data.batch(step)
        taken.append(time.perf_counter() - start)
    return {"held": held, "after": memory() - before, "ready": ready, "batch": statistics.median(taken[10:])}


def memory() -> int:
    """Of this process, without what the system could drop."""
    return int(re.findall(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024


def many(counts: list[int], folder: Path) -> None:
    for count in counts:
        for _ in ("made", "read"):  # each by a process of its own
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                found = pool.submit(held, folder / str(count), count).result()
        each = {name: found[name] / count for name in ("held", "after")}
        print(
            f"{count} clips: {found['held'] / 2**20:.1f} MiB, {each['held']:.0f} bytes a clip ({each['after']:.0f} after 60 batches); "
            f"ready after {found['ready']:.1f} s; {1000 * found['batch']:.1f} ms a batch",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--links", type=Path, metavar="FOLDER", help="make links to PyAV's libraries there, and stop")
    parser.add_argument("--clips", type=int, nargs="+", metavar="N", help="hold so many prepared clips, and stop")
    given = parser.parse_args()
    if given.links:
        return links(given.links)
    if given.clips:
        with tempfile.TemporaryDirectory() as folder:
            return many(given.clips, Path(folder))
    other = torchcodec()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        for rows, columns in ((360, 640), (720, 1280)):
            film(path, given.frames, rows, columns)
            matrix = Colorspace.ITU709 if rows > 576 else Colorspace.ITU601
            same = {"src_colorspace": matrix, "dst_colorspace": matrix, "src_color_range": "MPEG", "dst_color_range": "JPEG"}
            exact = partial(plain, path, interpolation="BILINEAR", **same)
            assert np.array_equal(video.read(path)[0], exact())
            ways: dict[str, Callable[[], object]] = {"plain": partial(plain, path), "exact": exact, "ours": partial(video.read, path)}
            if other is not None:
                assert np.array_equal(other(path), plain(path))
                ways["torchcodec"] = partial(other, path)
            found = least(ways, given.repeats)
            rates = {name: given.frames / seconds for name, seconds in found.items()}
            ratios = ", ".join(f"{name} {rate:.0f} (ours {rates['ours'] / rate:.2f})" for name, rate in rates.items())
            print(f"{rows}x{columns}, frames a second: {ratios}", flush=True)
        anywhere(path, Path(folder) / "cache", given.frames, given.repeats)


@torch.no_grad()
def anywhere(path: Path, cache: Path, frames: int, repeats: int) -> None:
    """A clip at the end of the longest group of pictures: decoded, decoded and encoded, and read as it was prepared."""
    autoencoder = models.load_autoencoder(Path("toybox"))
    start = min(frames, 250) - CLIP.frames - 1

    def decoded() -> np.ndarray:
        return video.fitted(video.read(path, start=start, frames=CLIP.frames)[0], CLIP.rows, CLIP.columns)

    def encoded() -> dict[str, torch.Tensor]:
        pixels = torch.from_numpy(decoded()).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        return {"latents": autoencoder.encode(pixels).mode().half()}

    def prepared() -> dict[str, torch.Tensor]:
        return remembered(cache, {"start": start}, encoded)

    prepared()
    found = least({"decoded": decoded, "encoded": encoded, "prepared": prepared}, repeats)
    for name, seconds in found.items():
        print(f"{name}: {1000 * seconds:.2f} ms a clip, prepared is {seconds / found['prepared']:.0f} times as fast")


if __name__ == "__main__":
    main()
