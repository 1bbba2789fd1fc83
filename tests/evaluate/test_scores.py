"""What is measured is decided before it is read, a score says all it depends on, and unlike scores are not compared."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from videodit.data import video
from videodit.evaluate import compare, extractors, scores, sets
from videodit.evaluate.extractors import Extractor
from videodit.evaluate.features import Features
from videodit.evaluate.intervals import interval
from videodit.evaluate.judges import TOYBOX
from videodit.evaluate.kernel import Subsets
from videodit.evaluate.protocol import PROTOCOLS, Estimator, Protocol
from videodit.evaluate.sets import Taken, choose, fitted
from videodit.shapes import UserError

TAKEN = Taken(count=6, frames=4, size=(16, 16))
ESTIMATOR = Estimator(resamples=5, subsets=Subsets(number=3, size=3), splits=2)


def counted(frames: int, rows: int = 16, columns: int = 16) -> np.ndarray:
    """Frame i is i times 10 bright."""
    return np.repeat(np.arange(frames, dtype=np.uint8) * 10, rows * columns * 3).reshape(frames, rows, columns, 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight videos of 9 frames, one of 2, and a picture."""
    for i in range(8):
        video.write(tmp_path / f"{i}.webp", counted(9) + i, 8)
    video.write(tmp_path / "short.webp", counted(2), 8)
    video.write(tmp_path / "picture.png", counted(1), 8)
    return tmp_path


def look(measure: str = "random-3d") -> Extractor:
    return extractors.load(measure)


def score(real: str, fake: str, verb: str = "fvd", taken: Taken = TAKEN, **more) -> dict:
    own = Protocol(real=taken, fake=taken)
    chosen = choose(real, taken), choose(fake, taken)
    found = scores.measured(verb, *chosen, more.pop("extractor", look()), own, more.pop("estimator", ESTIMATOR), **more)
    assert found is not None
    return json.loads(json.dumps(found.told))


# --- Sets ---


def test_clips_are_chosen_by_seed_and_come_from_within_their_files(folder: Path):
    clips = [dict(choose(str(folder), replace(TAKEN, seed=seed)).clips()) for seed in (0, 0, 1)]
    assert list(clips[0]) == list(range(6))
    assert all(np.array_equal(clips[0][i], clips[1][i]) for i in range(6))
    assert any(not np.array_equal(clips[0][i], clips[2][i]) for i in range(6))
    for frames in clips[0].values():
        assert (np.diff(frames[:, 0, 0, 0].astype(int)) == 10).all()
    every = dict(choose(str(folder), replace(TAKEN, every=2)).clips())
    assert all((np.diff(frames[:, 0, 0, 0].astype(int)) == 20).all() for frames in every.values())


def test_parts_of_a_set_are_the_set(folder: Path):
    chosen = choose(str(folder), replace(TAKEN, most=2, count=12))
    whole = dict(chosen.clips())
    parts = dict(chosen.clips(1, 2)) | dict(chosen.clips(0, 2))
    assert sorted(parts) == list(range(12)) and all(np.array_equal(parts[i], whole[i]) for i in whole)
    assert len({frames.tobytes() for frames in whole.values()}) == 12, "clips of a file do not overlap"


def test_the_same_clips_come_from_a_stream(tmp_path: Path):
    video.write(tmp_path / "a.mp4", counted(12, 32, 32), 8, quality=100)
    chosen = choose(str(tmp_path), Taken(count=3, frames=4, most=3))
    assert [part.starts for part in chosen.parts] == [(0, 4, 8)]
    for number, frames in chosen.clips():
        assert abs(frames.mean((1, 2, 3)) - 10 * np.arange(4 * number, 4 * number + 4)).max() < 3


def test_a_list_says_which_part_of_a_file_and_its_words(folder: Path):
    lines = [{"path": f"{i}.webp", "start": 0.25, "end": 0.875, "caption": f"film {i}"} for i in range(3)]
    (folder / "list.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    chosen = choose(str(folder / "list.jsonl"), replace(TAKEN, count=3))
    for _, frames in chosen.clips():
        assert frames[0, 0, 0, 0] >= 20 and frames[-1, 0, 0, 0] < 70 + 8
    assert sorted(chosen.captions) == ["film 0", "film 1", "film 2"]
    with pytest.raises(UserError, match="has no words"):
        _ = choose(str(folder), TAKEN).captions


def test_too_few_clips_are_an_error_that_counts(folder: Path):
    with pytest.raises(UserError, match=r"has 8 clips of 4 frames in 10 files, at most 1 of each, and 9 are asked for"):
        choose(str(folder), replace(TAKEN, count=9))
    with pytest.raises(UserError, match=r"has 0 clips of 10 frames \(4, every 3\)"):
        choose(str(folder), replace(TAKEN, every=3))


def test_frames_are_resized_by_the_kernel_that_is_stated():
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    area = fitted(frames, Taken(size=(16, 16), resize="area"))
    middle = frames[:, :, 8:40].reshape(2, 16, 2, 16, 2, 3).astype(float).mean((2, 4))
    assert abs(area - middle).max() <= 0.5
    kinds = [fitted(frames, Taken(size=(16, 16), resize=kind)) for kind in ("area", "bicubic", "bilinear", "lanczos")]
    assert all(kind.shape == (2, 16, 16, 3) for kind in kinds)
    assert len({kind.tobytes() for kind in kinds}) == 4
    theirs = np.stack([np.asarray(Image.fromarray(frame).resize((24, 16), Image.Resampling.BICUBIC)) for frame in frames])[:, :, 4:20]
    assert abs(kinds[1].astype(int) - theirs).max() <= 1, "antialiased bicubic is Pillow's"
    assert fitted(frames, Taken()) is frames


# --- Scores ---


def test_a_score_carries_its_card(folder: Path):
    found = score("toybox", str(folder))
    card = found["card"]
    assert found["measure"] == card["measure"] == "frechet[random-3d]", "only I3D makes a FVD"
    assert found["interval"][0] < found["interval"][1] and found["floor"] > 0
    assert len(card["extractor"]["digest"]) == len(card["real_digest"]) == len(found["fake_digest"]) == 64
    assert card["fake"] == {"count": 6, "frames": 4, "every": 1, "most": 1, "size": [16, 16], "resize": "bicubic", "seed": 0}
    assert card["crop"] and {"torch", "videodit", "av"} <= set(card["versions"]) and card["estimator"]["resamples"] == 5
    assert found == score("toybox", str(folder)), "the same command gives the same figures"


def test_equal_sets_have_no_distance():
    assert abs(score("toybox", "toybox")["value"]) < 1e-9
    assert score("toybox", "toybox", verb="kid")["measure"] == "kernel[random-3d]"
    assert score("toybox", "toybox", verb="motion", extractor=look("flow"))["measure"] == "motion"


def test_sets_of_unlike_extent_are_not_measured(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    large = tmp_path_factory.mktemp("large")
    for i in range(6):
        video.write(large / f"{i}.webp", counted(9, 32, 24) + i, 8)
    free = replace(TAKEN, size=None)
    with pytest.raises(UserError, match=r"is 16x16 and .*large0 32x24, and extent changes every score: give both one extent by --size"):
        score(str(folder), str(large), taken=free)
    assert score(str(folder), str(large))["card"]["extent"] == [16, 16]
    assert score(str(large), str(large), taken=free)["card"]["extent"] == [32, 24]


def test_scenes_are_drawn_as_a_clip_is_long(folder: Path):
    for wrong in (replace(TAKEN, every=3), replace(TAKEN, most=2)):
        with pytest.raises(UserError, match="--every and --most, or those of a protocol"):
            choose("toybox", wrong)


def test_scenes_that_are_drawn_otherwise_are_another_set(monkeypatch: pytest.MonkeyPatch):
    before = choose("toybox", TAKEN).digest
    drawn = replace(TOYBOX, world=replace(TOYBOX.world, content=lambda: "another"))
    monkeypatch.setattr(sets, "TOYBOX", drawn)
    assert choose("toybox", TAKEN).digest != before


def test_parts_of_an_inception_score_that_hold_no_kept_clip_have_no_interval():
    logits = torch.randn(16, 1, 5)
    seen = Features.of(torch.arange(16), logits, logits, splits=8, limit=4)
    value, _, interval, _ = scores.DISTANCES["inception"](seen, seen, Estimator(kept=4, splits=8, resamples=2))
    assert value >= 1 and interval is None
    assert scores.DISTANCES["inception"](seen, seen, Estimator(kept=4, splits=2, resamples=2))[2] is not None


def test_the_floor_of_an_inception_score_is_the_lower_of_two_real_halves():
    logits = 3 * torch.randn(12, 2, 5, generator=torch.Generator().manual_seed(0))
    seen = Features.of(torch.arange(12), logits, logits, splits=4)
    halves = [Features.of(torch.arange(6), part, part, splits=2).answers for part in (logits[::2], logits[1::2])]
    floor = scores.DISTANCES["inception"](seen, seen, Estimator(splits=4, resamples=0))[1]
    assert floor == pytest.approx(min(half.score for half in halves if half))
    few = Features.of(torch.arange(1), logits[:1], logits[:1], splits=1)
    assert scores.DISTANCES["inception"](few, few, Estimator(splits=1, resamples=0))[1] is None
    alike = Features.of(torch.arange(12), logits[:1].expand(12, -1, -1), logits[:1].expand(12, -1, -1), splits=1)
    value, floor, *_ = scores.DISTANCES["inception"](alike, alike, Estimator(splits=1, resamples=0))
    assert value == pytest.approx(floor)


def test_an_inception_score_needs_a_classifier():
    with pytest.raises(UserError, match="random-3d names no classes"):
        score("toybox", "toybox", verb="is")

    def answers(clips: torch.Tensor) -> extractors.Looked:
        logits = 50.0 * torch.eye(3)[clips[:, 0, 0, 0, 0].long() % 3][:, None]
        return extractors.Looked(logits, logits)

    found = score("toybox", "toybox", verb="is", extractor=Extractor(seen=look().seen, look=answers))
    assert 1 < found["value"] <= 3 and found["more"]["real_score"] == found["value"] and 1 <= found["floor"] <= 3

    def by_frame(clips: torch.Tensor) -> extractors.Looked:
        logits = answers(clips).logits
        assert logits is not None
        return extractors.Looked(logits.expand(-1, 4, -1), logits.expand(-1, 4, -1))

    estimator = replace(ESTIMATOR, splits=TAKEN.count)  # each split is one clip, whose frames are all alike
    alone = score("toybox", "toybox", verb="is", extractor=Extractor(seen=look().seen, look=by_frame), estimator=estimator)
    assert alone["value"] == pytest.approx(1) and alone["interval"] == pytest.approx((1, 1))


def test_an_interrupted_measurement_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scores, "BATCH", 2)
    monkeypatch.setattr(scores, "SAVED", 1)
    straight, seen = score("toybox", str(folder)), []
    whole = look()

    def failing(clips: torch.Tensor) -> extractors.Looked:
        seen.append(len(clips))
        if len(seen) == 5:
            raise KeyboardInterrupt
        return whole.look(clips)

    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        score("toybox", str(folder), extractor=replace(whole, look=failing), state=state)
    assert sorted(path.name for path in state.iterdir()) == ["fake-0-of-1.safetensors", "real-0-of-1.safetensors"]
    assert score("toybox", str(folder), extractor=replace(whole, look=failing), state=state) == straight
    assert seen == [2] * 7, "only the two that were being looked at are looked at again"
    with pytest.raises(UserError, match="state of another set"):
        score("toybox", str(folder), state=state, taken=replace(TAKEN, frames=3))


def test_processes_share_a_measurement(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    alone = score("toybox", str(folder))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    own = Protocol(real=TAKEN, fake=TAKEN)
    chosen = choose("toybox", TAKEN), choose(str(folder), TAKEN)
    with pytest.raises(UserError, match="by --state"):
        scores.measured("fvd", *chosen, look(), own, ESTIMATOR)
    assert scores.measured("fvd", *chosen, look(), own, ESTIMATOR, state=tmp_path / "state") is None
    monkeypatch.setenv("RANK", "0")
    together = score("toybox", str(folder), state=tmp_path / "state")
    assert together["value"] == pytest.approx(alone["value"], rel=1e-9)
    assert together["card"] == alone["card"] and together["interval"] == pytest.approx(alone["interval"], rel=1e-9)


# --- Comparing ---


def test_alike_scores_are_compared_and_unlike_ones_are_not(folder: Path):
    one = score("toybox", str(folder))
    other = copy.deepcopy(one)
    other["value"] += 1.0
    found = compare.compared(one, other)
    assert found["difference"] == pytest.approx(1.0) and found["measure"] == "frechet[random-3d]"
    other["card"]["fake"]["size"] = [32, 32]
    with pytest.raises(UserError, match=r"fake\.size is \[16, 16\] in one and \[32, 32\] in the other"):
        compare.compared(one, other)
    assert compare.compared(one, other, ["fake.size"])["despite"] == ["fake.size"]
    assert compare.compared(one, other, ["fake"])["values"][1] == other["value"]
    del other["card"]["crop"]
    with pytest.raises(UserError, match=r"crop is .* and null in the other"):
        compare.compared(one, other, ["fake"])


def test_every_field_of_a_card_is_compared(folder: Path):
    one = score("toybox", str(folder))

    def changes(table: dict, above: str = ""):
        for name, value in table.items():
            if isinstance(value, dict):
                yield from changes(value, f"{above}{name}.")
            else:
                before, table[name] = value, "another"
                yield f"{above}{name}"
                table[name] = before

    other = copy.deepcopy(one)
    names = []
    for name in changes(other["card"]):
        names.append(name)
        with pytest.raises(UserError, match=rf": {name} is "):
            compare.compared(one, other)
    assert len(names) > 25 and {"extractor.digest", "real.every", "estimator.subsets.seed", "versions.torch", "real_digest"} <= set(names)


GOOD = {"card": {}, "value": 2.0, "interval": [1.0, 3.0], "floor": None, "measure": "x"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("{", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("\udcff", "it is not JSON"),
        ("[]", "it has no card"),
        ("{}", "it has no card"),
        ({**GOOD, "card": 1}, "its card is no table"),
        ({**GOOD, "measure": 1}, "its measure no text"),
        ({**GOOD, "value": float("nan")}, "value is no finite number"),
        ('{"value": 1e999}', "value is no finite number"),
        ({**GOOD, "value": 10**400}, "value is no finite number"),
        ({**GOOD, "card": {"real": {"every": float("inf")}}}, "card.real.every is no finite number"),
        ({**GOOD, "value": True}, "its value or its floor is no number"),
        ({**GOOD, "floor": "low"}, "its value or its floor is no number"),
        ({**GOOD, "interval": [1]}, "its interval is not two numbers"),
        ({**GOOD, "interval": [3, 1]}, "its value is not in its interval"),
        ({**GOOD, "figures": []}, "its figures are no table"),
        ({**GOOD, "figures": {"a": {"value": 1}}}, "a has no value, interval or floor"),
        ({**GOOD, "figures": {"a": {"value": 1, "interval": [2, 3], "floor": None}}}, "a: its value is not in its interval"),
    ],
)
def test_files_that_are_no_scores_are_named(tmp_path: Path, text: str | dict, said: str):
    path = tmp_path / "a.json"
    path.write_text(text if isinstance(text, str) else json.dumps(text), errors="surrogateescape")
    with pytest.raises(UserError) as error:
        compare.read(path)
    assert "is no score" in str(error.value) and said in str(error.value)


def test_a_score_is_read_and_one_that_is_not_there_is_named(tmp_path: Path):
    (tmp_path / "a.json").write_text(json.dumps(GOOD))
    assert compare.read(tmp_path / "a.json") == GOOD
    with pytest.raises(UserError, match="There is no file"):
        compare.read(tmp_path / "b.json")


def test_every_figure_of_a_score_is_compared_and_whether_intervals_overlap_is_said():
    def several(shift: float) -> dict:
        figures = {
            "all": {"value": 2.0 + shift, "interval": [1.0 + shift, 3.0 + shift], "floor": 0.5},
            "b": {"value": 1.0, "interval": None, "floor": None},
        }
        return {**GOOD, **figures["all"], "figures": figures}

    found = compare.compared(several(0), several(1.5))
    assert found["difference"] == 1.5 and found["overlap"] and found["figures"]["all"]["overlap"]
    assert found["figures"]["b"] == {"values": [1.0, 1.0], "intervals": [None, None], "difference": 0.0, "overlap": None, "floor": None}
    assert compare.compared(several(0), several(2.5))["overlap"] is False
    other = several(0)  # of frames that are all equal there is no PSNR: what stands first is another figure
    del other["figures"]["all"]
    assert compare.compared(several(0), {**other, "value": 1.0})["difference"] == 0.0


def test_a_field_that_no_card_has_may_not_differ():
    cards = [{**GOOD, "card": {"fake": {"size": [8, 8]}, "crop": "middle"}} for _ in range(2)]
    assert compare.compared(cards[0], cards[1], ["fake"])["despite"] == ["fake"]
    for field, said in (("fake.sise", "did you mean fake.size?"), ("fak", "did you mean fake?"), ("", "a refusal names fields")):
        with pytest.raises(UserError, match=f"no card has that field; {said.replace('?', '.')}"):
            compare.compared(cards[0], cards[1], ["fake", field])


def test_an_interval_does_not_go_below_what_a_distance_can_be(folder: Path):
    for count in (2, 4):
        found = score("toybox", str(folder), taken=replace(TAKEN, count=count))
        low, high = found["interval"]
        assert 0 <= low <= found["value"] <= high and (found["floor"] is None) == (count == 2)
    found = interval(0.1, (torch.zeros(3, 1, 1),) * 2, lambda one, other: float(torch.rand(())), ESTIMATOR, least=0.0)
    assert found and found[0] == 0


def test_subsets_that_are_too_large_are_said_after_the_first_clips(folder: Path):
    whole, seen = look(), []

    def looking(clips: torch.Tensor) -> extractors.Looked:
        seen.append(len(clips))
        return whole.look(clips)

    with pytest.raises(UserError, match=r"Subsets of 500 cannot be drawn from \d+ rows: use --subset-size of 2 to"):
        score(
            "toybox", "toybox", verb="kvd", extractor=replace(whole, look=looking), estimator=replace(ESTIMATOR, subsets=Subsets(size=500))
        )
    assert len(seen) == 1


def test_a_named_protocol_that_is_changed_is_ones_own():
    published = PROTOCOLS["stylegan-v"]
    assert (published.real.count, published.real.frames, published.real.every, published.fake.every) == (2048, 16, 3, 1)
    assert published.changed(count=None) is published is published.changed(count=2048, every=3, size=(256, 256), seed=0)
    changed = published.changed(count=128, every=2)
    assert changed.name == "own" and (changed.real.every, changed.fake.every) == (2, 1)
    assert changed.real.count == changed.fake.count == 128 and changed.real.size == (256, 256)
