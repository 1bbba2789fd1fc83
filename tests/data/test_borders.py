"""Black borders: what stands between them is the clip that was drawn there, and what is dark has none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import films
from videodit.cli.main import main
from videodit.data import borders, cuts, toybox, video
from videodit.data.item import Crop, Item
from videodit.data.quarantine import Place, Quarantine
from videodit.data.sources import Folder, Manifest, items
from videodit.data.video import Unreadable
from videodit.shapes import Size

PLACES = {
    "letterbox": Crop(48, 64, 16, 0),
    "pillarbox": Crop(48, 64, 0, 40),
    "windowbox": Crop(48, 64, 12, 20),
    "one side": Crop(48, 64, 0, 8),
}


def scene(count: int = 12, rows: int = 48, columns: int = 64) -> np.ndarray:
    """Waves that wander, bright and dark."""
    t, y, x = np.mgrid[:count, :rows, :columns].astype(np.float32)
    return np.stack([130 + 100 * np.sin(y / 9 + t / 3) * np.cos(x / (7 + c) - t / 4) for c in range(3)], -1).astype(np.uint8)


def bordered(frames: np.ndarray, place: Crop) -> np.ndarray:
    """Drawn into a black frame; on the right and below as much border as on the left and above, but on `one side`."""
    rows, columns = place.rows + 2 * place.top, place.columns + (place.left if place == PLACES["one side"] else 2 * place.left)
    whole = np.zeros((len(frames), rows, columns, 3), np.uint8)
    whole[:, place.top : place.top + place.rows, place.left : place.left + place.columns] = frames
    return whole


def looked(frames: np.ndarray) -> Crop | None:
    return borders.found([borders.edges(frame) for at, frame in enumerate(frames) if at in borders.places(len(frames))])


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
@pytest.mark.parametrize("crf", ["1", "30"])
def test_what_stands_between_borders_is_found_and_read(tmp_path: Path, place: Crop, crf: str) -> None:
    """However it was compressed; from a film that lost next to nothing it comes back as the clip itself does."""
    frames = scene()
    path = films.film(tmp_path / "a.mp4", bordered(frames, place), options={"crf": crf})
    (item,) = items(source := Folder(path=tmp_path))
    assert cuts.look(item, source).crop == place
    read, _ = video.read(item._replace(crop=place))
    assert np.array_equal(read, video.read(path)[0][:, place.top :, place.left :][:, : place.rows, : place.columns])
    if crf == "1":
        alone, _ = video.read(films.film(tmp_path / "b.mp4", frames, options={"crf": crf}))
        assert read.shape == alone.shape and np.abs(read.astype(int) - alone).mean() < 1.5


def test_noise_over_borders_hides_none() -> None:
    rng = np.random.default_rng(0)
    for place in PLACES.values():
        frames = bordered(scene(40, place.rows, place.columns), place) + rng.normal(0, 4, (40, 1, 1, 1))
        noisy = np.clip(frames + rng.normal(0, 4, frames.shape), 0, 255).astype(np.uint8)
        assert looked(noisy) == place


def test_blurred_edges_go_with_their_border() -> None:
    frames = bordered(scene(), PLACES["letterbox"])
    frames[:, 15], frames[:, 64] = frames[:, 16] // 8, frames[:, 63] // 8
    assert looked(frames) == PLACES["letterbox"]


@pytest.mark.parametrize("size", [Size(16, 64, 64), Size(8, 48, 96)])
def test_the_toybox_has_no_borders(size: Size) -> None:
    """Things before black, that stand, wander and grow."""
    scenes = [toybox.scene(5, i) for i in range(120)]
    assert sum(what.background == "black" for what in scenes) > 10
    assert [looked(toybox.render(what, size)) for what in scenes] == [None] * len(scenes)
    assert looked(toybox.render(scenes[0], size)[:1]) is None


def test_what_is_dark_or_fades_has_no_borders() -> None:
    bright, fade = scene(20), np.linspace(0, 1, 20)[:, None, None, None]
    assert looked((bright * fade).astype(np.uint8)) is None and looked((bright * fade[::-1]).astype(np.uint8)) is None
    night = np.linspace(0, 90, 48)[None, :, None, None] * np.ones((20, 1, 64, 3))  # brighter towards the ground
    assert looked(night.astype(np.uint8)) is None and looked(np.zeros((5, 48, 64, 3), np.uint8)) is None
    rising = bordered(bright, PLACES["letterbox"])
    rising[-1, :16, 30:34] = 200  # a rocket, once
    assert looked(rising) == Crop(64, 64, 0, 0)
    sweeping = np.zeros((20, 48, 64, 3), np.uint8)
    for i, frame in enumerate(sweeping):
        frame[16:32, 2 * i : 2 * i + 20] = 255
    assert looked(sweeping) is None


def test_of_much_black_none_is_cut_off() -> None:
    small, large = (bordered(scene(4, side, 100), Crop(side, 100, (100 - side) // 2, 0)) for side in (20, 40))
    assert looked(small) is None and looked(large) == Crop(40, 100, 30, 0)


def test_a_fixed_list_crops_and_is_audited_as_it_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, place = tmp_path / "in", PLACES["letterbox"]
    folder.mkdir()
    films.film(folder / "boxed.mp4", bordered(scene(), place), options={"crf": "1"})
    films.film(folder / "plain.mp4", scene(), options={"crf": "1"})
    for name in ("boxed", "plain"):
        (folder / f"{name}.txt").write_text("waves")
    shape, listed = ["--frames", "4", "--size", "24x32", "--json"], tmp_path / "good.jsonl"

    def rows(source: Path, *more: str) -> list[tuple[str, list[int]]]:
        assert main(["audit", str(source), *shape, *more]) == 0
        return [(row["crop"], row["size"]) for row in json.loads(capsys.readouterr().out)["files"]]

    assert rows(folder, "--fix", str(listed)) == [("48x64+16+0", [80, 64]), ("", [48, 64])]
    assert [json.loads(line).get("crop") for line in listed.read_text().splitlines()] == ["48x64+16+0", None]
    assert rows(listed) == [("48x64+16+0", [48, 64]), ("", [48, 64])]
    source, size = Manifest(path=listed), Size(4, 24, 32)
    boxed, plain = (
        np.concatenate(list(cuts.clips(item, cuts.cut(cuts.look(item, source), size, source), size, source))) for item in items(source)
    )
    assert np.abs(boxed.astype(int) - plain).mean() < 1.5


def test_a_crop_that_does_not_fit_is_a_fault_of_that_part_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = films.film(tmp_path / "a.mp4", scene())
    with pytest.raises(Unreadable, match=r"its list crops it to 48x64\+1\+0, and its frames are 48x64"):
        video.read(Item(path, crop=Crop(48, 64, 1, 0)))
    lines = [{"path": "a.mp4", "caption": "x", "crop": text} for text in ("48x64+1+0", "24x64+0+0", "24x64+24+0", "0x64+0+0", 7)]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert main(["audit", str(tmp_path / "list.jsonl"), "--frames", "4", "--size", "16x16", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["files"]
    assert sorted(row["why"] for row in rows) == ["", "", "bad entry", "bad entry", "unreadable"]  # two halves are no duplicates
    assert any("entry 4 of list.jsonl: crop takes ROWSxCOLUMNS+TOP+LEFT such as 360x640+60+0, not 0x64+0+0" in row["said"] for row in rows)


def test_places_of_whole_frames_are_called_as_before(tmp_path: Path) -> None:
    whole, part = Place("ab" * 32, 1.0, None), Place("ab" * 32, 1.0, None, Crop(1, 2, 3, 4))
    assert whole.key == {"start": 1.0, "end": None} and part.key == whole.key | {"crop": "1x2+3+4"}
    Quarantine(tmp_path / "q.jsonl", 60).add(part, Path("a.mp4"), "broken")
    assert Quarantine(tmp_path / "q.jsonl", 60).reasons == {part: "broken"}
