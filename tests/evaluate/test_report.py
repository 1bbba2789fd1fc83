"""A report holds what it was given, whole, and nothing from outside."""

import base64
import json
import os
import re
import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from videodit.cli import main
from videodit.data import video
from videodit.evaluate import report
from videodit.evaluate.plots import MOST, plot, thinned, ticks
from videodit.shapes import UserError


def run(folder: Path, name: str, rate: float = 1e-3, steps: int = 50) -> Path:
    """A run's folder as training leaves it."""
    path = folder / name
    (path / "samples" / "step-00000050").mkdir(parents=True)
    (path / "run.toml").write_text(f"seed = 0\nsize = [1, 64, {round(64e3 * rate)}]\n[optimizer]\nlearning_rate = {rate}\n")
    lines = [json.dumps({"step": n, "time": 1.0, "loss": 1 / n, "norm": 2.0}) for n in range(1, steps + 1)]
    (path / "log.jsonl").write_text("\n".join([*lines, '{"step": 51, "lo']))
    video.write(path / "samples" / "step-00000050" / "a circle.mp4", np.full((4, 32, 32, 3), 90, np.uint8), 8)
    (path / "held.json").write_text(json.dumps({"count": 3, "model": {"all": 0.5}, "clips": [1, 2]}))
    return path


def test_a_page_holds_settings_scores_curves_and_the_very_videos(tmp_path):
    first, second = run(tmp_path, "one"), run(tmp_path, "two", rate=2e-3)
    page = report.page("both", report.columns([first, second]))
    assert "optimizer.learning_rate" in page and "0.002" in page and "<td>seed</td>" not in page, "only what differs"
    assert "[1, 64, 64]" in page and "[1, 64, 128]" in page, "lists too"
    assert page.count("<polyline") == 4, "loss and norm, a line for each run"
    assert "model.all" in page and "<td>0.5</td>" in page
    inside = [base64.b64decode(found) for found in re.findall(r'src="data:video/mp4;base64,([^"]+)"', page)]
    assert inside == [next(path.glob("samples/*/*.mp4")).read_bytes() for path in (first, second)]
    assert not re.findall(r'(?:src|href)="(?!data:)', page) and "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_the_latest_samples_are_shown(tmp_path):
    path = run(tmp_path, "one")
    later = path / "samples" / "step-00000100"
    later.mkdir()
    video.write(later / "b.mp4", np.zeros((4, 32, 32, 3), np.uint8), 8)
    assert list(report.looked_at(path).videos) == ["b"]


def test_of_many_videos_it_is_said_how_many_are_left_out(tmp_path):
    for number in range(report.MOST + 2):
        (tmp_path / f"{number:03d}.gif").write_bytes(b"GIF")
    page = report.page("many", report.columns([tmp_path]))
    assert page.count("<img ") == report.MOST and f"The first {report.MOST} of {report.MOST + 2} names." in page
    assert "names.</p>" not in report.page("one", report.columns([tmp_path / "000.gif"]))


def test_what_a_page_cannot_hold_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "LARGEST", 1000)
    for number, size in enumerate((400, 500, 200, 10)):
        (tmp_path / f"{number}.gif").write_bytes(bytes(size))
    page = report.page("large", report.columns([tmp_path]))
    assert page.count("<img ") == 2 and "The first 2 of 4 names." in page
    (tmp_path / "0.gif").write_bytes(bytes(2000))
    for paths in ([tmp_path], [tmp_path / "0.gif"]):
        with pytest.raises(UserError, match="and a page holds"):
            report.page("larger", report.columns(paths))


def test_animations_are_frames_that_the_page_shows(tmp_path):
    """Else they would play by themselves; one frame is a picture, and what cannot be read is left to the browser."""
    frames = np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3)
    for name in ("a.webp", "b.gif", "c.mp4"):
        video.write(tmp_path / name, frames, 8)
    video.write(tmp_path / "d.webp", frames[:1], 8)
    (tmp_path / "e.gif").write_bytes(b"GIF")
    page = report.page("all", report.columns([tmp_path]))
    films = re.findall(r"<span class=film data-fps=(?:8|7\.84314)>(.*?)</span>", page)  # a .gif counts in hundredths of a second
    pictures = [re.findall(r'<img src="data:image/png;base64,([^"]+)" alt=""( hidden)?>', film) for film in films]
    assert [len(film) for film in pictures] == [4, 4] and page.count("<video ") == 1 and page.count("<img ") == 4 + 4 + 2
    for film in pictures:
        assert [bool(hidden) for _, hidden in film] == [False, True, True, True]
    shown = [np.asarray(Image.open(BytesIO(base64.b64decode(picture)))) for picture, _ in pictures[0]]
    assert (np.stack(shown) == frames).all()


@pytest.mark.skipif(shutil.which("node") is None, reason="what runs a page's script is not here")
def test_all_videos_of_a_page_stand_at_one_moment(tmp_path):
    """The page's own script, moved by its slider and by its clock, over a video of half a second and films of one and of half."""
    video.write(tmp_path / "a.webp", np.zeros((2, 8, 8, 3), np.uint8), 8)
    script = report.page("all", report.columns([tmp_path])).partition("<script>")[2].partition("</script>")[0]
    around = """
const film = (frames, fps) => ({ children: Array.from({ length: frames }, () => ({ hidden: true })), dataset: { fps: String(fps) } })
const parts = { play: {}, time: { value: 0 }, speed: { value: 1 } }, films = [film(8, 8), film(4, 8)]
const held = [{ duration: 0.5, readyState: 1, currentTime: 0 }]
let ticking = null
globalThis.document = { querySelectorAll: what => what === "video" ? held : films, getElementById: name => parts[name] }
globalThis.requestAnimationFrame = then => { ticking = then }
globalThis.setTimeout = then => then()
const shown = () => [held[0].currentTime, ...films.map(f => f.children.map(c => c.hidden ? "" : 1).indexOf(1))]
const seen = []
new Function(process.argv[1])()
for (const value of [0, 300, 600, 1000]) { parts.time.value = value; parts.time.oninput(); seen.push(shown()) }
parts.time.value = 0; parts.time.oninput(); ticking(1000); ticking(1260); seen.push(shown())
parts.play.onclick(); ticking(1400); ticking(1800); seen.push(shown())
console.log(JSON.stringify(seen))
"""
    done = subprocess.run(["node", "-e", around, script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[0, 0, 0], [0.3, 2, 2], [0.499, 4, 3], [0.499, 7, 3], [0.26, 2, 2], [0.26, 2, 2]]


def test_videos_of_one_stem_are_all_shown(tmp_path):
    for name in ("a.gif", "a.webp", "b.gif"):
        (tmp_path / name).write_bytes(name.encode())
    assert list(report.looked_at(tmp_path).videos) == ["a.gif", "a.webp", "b"]


def test_scores_of_one_name_are_all_shown(tmp_path):
    (tmp_path / "scores").mkdir()
    for name, value in (("fvd.json", 1.5), ("scores/fvd.json", 2.5), ("scores/fid.json", 3.5)):
        (tmp_path / name).write_text(json.dumps({"value": value}))
    assert report.looked_at(tmp_path).scores == {"fvd": {"value": 1.5}, "scores/fvd": {"value": 2.5}, "fid": {"value": 3.5}}


def test_figures_are_shown_with_their_intervals(tmp_path):
    held = {"value": 0.5, "interval": [0.25, 0.75], "floor": 0.125, "model": {"all": 0.5, "shape": 1.0}}
    held["figures"] = {"model.all": {"value": 0.5, "interval": [0.25, 0.75], "floor": None}, "else": {"value": 2.0, "interval": None}}
    (tmp_path / "a.json").write_text(json.dumps(held))
    found = report.scores(tmp_path / "a.json")
    assert found == {
        "value": "0.5 (0.25 to 0.75)",
        "floor": 0.125,
        "model.all": "0.5 (0.25 to 0.75)",
        "model.shape": 1.0,
        "figures.else.value": 2.0,
    }
    assert "<td>0.5 (0.25 to 0.75)</td>" in report.page("a", report.columns([tmp_path / "a.json"]))
    for strange in ([], {"value": [1, 2]}, 5, {"model.all": 3}, {"model.all": {"interval": ["a", "b"]}}):
        (tmp_path / "b.json").write_text(json.dumps({**held, "interval": 7, "figures": strange}))
        assert report.scores(tmp_path / "b.json")["model.all"] == 0.5


def test_what_is_no_text_is_shown_as_far_as_it_can_be(tmp_path):
    """A block that a crash tore, a name of other bytes, a title that is a word of the page."""
    path = run(tmp_path, os.fsdecode(b"r\xff"))
    with (path / "log.jsonl").open("ab") as log:
        log.write(b'\n\xff\xfe\n{"step": 99, "loss": 0.5}\n')
    shown = report.columns([path])
    assert shown[0].curves["loss"][-1] == (99.0, 0.5)
    report.written(tmp_path / "page.html", page := report.page("@body", shown))
    assert "<title>@body</title>" in page and (tmp_path / "page.html").stat().st_size > 1000


def test_rates_of_the_judge_are_not_by_time():
    assert report._family("judged [all]") == "judged" and report._family("loss [t 0.00-0.25]") == "loss by t"


def test_runs_of_one_name_stay_apart(tmp_path):
    paths = [run(tmp_path / folder, "same") for folder in ("a", "b")]
    assert [shown.name for shown in report.columns(paths)] == [str(path) for path in paths]


def test_strange_names_stay_text(tmp_path):
    page = report.page("<script>alert(1)</script>", [report.Shown("<b>", scores={"x": {"<i>": "<u>"}})])
    assert not re.findall(r"<script>alert|<b>|<i>|<u>", page)


def test_a_line_of_many_points_keeps_its_mean_and_its_ends():
    points = [(float(x), float(x % 7)) for x in range(10_000)]
    thin = thinned(points)
    assert len(thin) == MOST
    np.testing.assert_allclose(np.mean([y for _, y in thin]), np.mean([y for _, y in points]), atol=0.02)
    assert thinned(points[:MOST]) == points[:MOST]


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 12.0), (0.0101, 0.0107), (1e5, 9e5)])
def test_ticks_are_few_round_and_inside(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 6 and all(low <= value <= high for value in found)
    np.testing.assert_allclose(np.diff(found), found[1] - found[0])
    assert f"{(found[1] - found[0]):.0e}"[0] in "125"


def test_what_is_not_finite_is_left_out():
    drawn = plot("loss", {"a": [(1.0, float("nan")), (2.0, 1.0), (3.0, 2.0)]})
    assert "nan" not in drawn and len(re.findall(r'points="([^"]+)"', drawn)[0].split()) == 2
    assert plot("loss", {"a": [(1.0, float("inf"))]}) == ""


def test_what_cannot_be_shown_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.json").write_text("{")
    for name, words in (("absent", "There is no"), ("empty", "nothing to show"), ("broken.json", "not a score file")):
        with pytest.raises(UserError, match=words):
            report.looked_at(tmp_path / name)


def test_what_else_stands_in_a_folder_is_no_score(tmp_path):
    path = run(tmp_path, "one")
    known = report.looked_at(path)
    (path / "notes.json").write_text("mine")
    assert report.looked_at(path) == known and known.scores


def test_the_command_writes_one_page(tmp_path, capsys):
    path = run(tmp_path, "one")
    assert main.main(["evaluate", "report", str(path), "-o", str(tmp_path / "r.html"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(tmp_path / "r.html"), "curves": 2, "scores": 1, "videos": 1}
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
    assert main.main(["evaluate", "report", str(path), "-o", str(tmp_path / "no" / "r.html")]) == 2
    assert main.main(["evaluate", "report", str(path), "-o", str(tmp_path / "r.txt")]) == 2
