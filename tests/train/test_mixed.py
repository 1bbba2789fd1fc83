"""Files of many extents in one run: clips of one extent, or of any in one sequence, learn as each would alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from videodit import models
from videodit.backbone import PRESETS, DualTransformer
from videodit.backbone.flops import cost
from videodit.data import toybox, video
from videodit.data.buckets import Bucketed, Buckets, Packed
from videodit.data.packing import imbalance
from videodit.data.sources import Folder
from videodit.diffusion.tasks import Tasks
from videodit.diffusion.times import Times
from videodit.parallel import Parallel
from videodit.shapes import Size, UserError, latent_size
from videodit.train import mixed, planning, pools, prepare, recipes
from videodit.train.backbone import BackboneRun, Joint, job
from videodit.train.latents import Batch
from videodit.train.mixed import Deals, Pack

pytestmark = pytest.mark.usefixtures("unchecked")
TABLE: dict[str, Any] = {"resolutions": (12, 24), "aspects": (0.5, 1.0, 2.0), "lengths": (1, 4, 8), "tokens": 64}
FILES = [Size(9, 32, 32), Size(5, 48, 96), Size(20, 40, 24), Size(4, 16, 48), Size(3, 64, 64)]  # the last is too short for a clip
PICTURES = [Size(1, 48, 48), Size(1, 40, 96)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos and pictures of other extents, each with its words."""
    here = tmp_path_factory.mktemp("mine")
    for i, size in enumerate(FILES + PICTURES):
        drawn = toybox.clip(7, i, size) if size.frames > 1 else toybox.picture(7, i, size)
        path = here / f"{i}{'.mp4' if size.frames > 1 else '.png'}"
        if size.frames > 1:
            video.write(path, drawn.video, 8)
        else:
            Image.fromarray(drawn.video[0]).save(path)
        path.with_suffix(".txt").write_text(f"number {'abcdefg'[i]} {'again ' * i}\n", encoding="utf-8")
    return here


def run(world: tiny.World, output: Path, folder: Path, kind: str = "packed", **changes: Any) -> BackboneRun:
    made = tiny.runs(world, output, steps=3)["video"]
    sizes = {"packed": Packed, "buckets": Bucketed}[kind](**TABLE)
    return replace(made, **{"data": Folder(path=folder), "sizes": sizes, "start": world.video_model, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs beside each other find the same entries."""
    return tmp_path_factory.mktemp("shared")


def test_each_file_gets_about_its_own_extent(world: tiny.World, shared: Path, folder: Path) -> None:
    settings = run(world, shared, folder)
    found = pools.pools(settings, models.load_autoencoder(settings.autoencoder), "text", [True, False])
    of = {kind: Counter(tuple(x.shape[1:]) for x in tiny.latents(pool)) for kind, pool in found.items()}
    assert len(of[True]) >= 3 and {shape[0] for shape in of[True]} == {1, 2} and {shape[0] for shape in of[False]} == {1}
    assert sorted({i for one in found[True].whose for i in one}) == [0, 1, 2, 3]  # 3 frames are too few
    whole = pools.merged(found, 0.75)
    assert whole.weights is not None and whole.weights[: len(found[False].latents)].sum() == pytest.approx(0.25)
    assert [whole.captions[i[0]][:8] for i in whole.whose[:2]] == ["number f", "number g"]


def test_an_entry_is_that_of_a_run_of_its_size(world: tiny.World, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents are kept by the same key, whatever the run deals."""
    same: dict[str, Any] = {"joint": Joint(video_probability=1.0), "size": Size(4, 64, 32)}  # which none of the files has
    packed, encoded, plain = run(world, tmp_path, folder, **same), [], pools._of_file
    monkeypatch.setattr(pools, "_of_file", lambda settings, item, *rest: (encoded.append(item.path.name), plain(settings, item, *rest))[1])
    prepare.prepare(packed)
    assert encoded == ["0.mp4", "1.mp4", "2.mp4", "3.mp4"]
    encoded.clear()
    assert prepare.prepare(run(world, tmp_path, folder, "buckets", **same)).new == 0 and encoded == []
    assert prepare.prepare(replace(packed, size=Size(8, 64, 64))).new == 0 and encoded == []
    size = packed.sizes.table(space=8, time=4, patch=2).of(FILES[0])  # type: ignore[union-attr]
    assert size == Size(8, 32, 32)
    coder = models.load_autoencoder(packed.autoencoder)
    pools.pools(replace(packed, sizes=mixed.One(), size=size), coder, "text", [True])
    assert "0.mp4" not in encoded and encoded


def test_first_frames_that_stand_in_are_those_of_the_clips_each_file_is_cut_into(world: tiny.World, tmp_path: Path) -> None:
    """At one size or at its own, in any order: of a film that is still, or too short, none."""
    films = {"long": toybox.clip(7, 0, Size(20, 32, 32)).video, "short": toybox.clip(7, 1, Size(3, 32, 32)).video}
    films["still"] = np.repeat(films["long"][:1], 20, 0)
    (tmp_path / "films").mkdir()
    for name, frames in films.items():
        video.write(tmp_path / "films" / f"{name}.mp4", frames, 8)
        (tmp_path / "films" / f"{name}.txt").write_text("words")
    found: dict[str, list[Any]] = {}
    for order in ("one buckets", "buckets one"):
        for kind in order.split():
            settings = run(world, tmp_path / order[:3], tmp_path / "films", "buckets", joint=Joint(video_probability=0.5))
            settings = replace(settings, sizes=mixed.One()) if kind == "one" else settings
            both = pools.pools(settings, models.load_autoencoder(settings.autoencoder), "text", [True, False])
            assert len(both[True].latents) == len(both[False].latents) == 2
            found.setdefault(kind, []).append([x.shape for x in tiny.latents(both[False])])
            words = {pool: {both[pool].captions[i] for whose in both[pool].whose for i in whose} for pool in both}
            assert words[True] == words[False] == {"words"}
    assert found["one"][0] == found["one"][1] and found["buckets"][0] == found["buckets"][1]


@pytest.mark.parametrize("start", [True, False])
def test_a_packed_pass_is_its_clips_alone(start: bool, world: tiny.World, shared: Path, folder: Path) -> None:
    """Loss and gradients of what the run computes, against each clip by itself."""
    settings = run(world, shared, folder, words=0.0, text_dropout=0.4)
    made = job(settings if start else replace(settings, start=None, preset="toybox-tiny", text=tiny.TEXT))
    tiny.randomised(made.network)
    network = made.network["backbone"]
    for index in range(3):
        batch = made.batch(index)
        assert isinstance(batch, Pack) and len(batch.clean) > 2 and len({x.shape for x in batch.clean}) > 1
        figures: list[Any] = []
        for alone in (False, True):
            made.network.zero_grad()
            if alone:
                loss = separate(settings, made.network, network, batch)
            else:
                loss, _ = made.loss(index, batch)
            loss.backward()
            figures.append((loss.item(), [None if p.grad is None else p.grad.clone() for p in network.parameters()]))
        (one, gradients), (other, expected) = figures
        assert one == pytest.approx(other, rel=1e-5)
        for mine, wanted in zip(gradients, expected, strict=True):
            assert (mine is None) == (wanted is None)
            if mine is not None:
                assert (mine - wanted).abs().max() <= 1e-5 * max(1.0, wanted.abs().max().item())


def separate(settings: BackboneRun, learning: Any, network: DualTransformer, batch: Pack) -> torch.Tensor:
    """Every number of every clip counts alike."""
    words = batch.text if not isinstance(batch.text, list) else learning["text"](batch.text)
    total, numbers = torch.zeros(()), 0
    for i, (clean, noise) in enumerate(zip(batch.clean, batch.noise, strict=True)):
        t = batch.times[i]
        noisy = (1 - t) * clean + t * noise
        said = network(noisy[None], t[None], words.map(lambda x, i=i: x[i : i + 1]))
        total, numbers = total + (said[0] - (noise - clean)).square().sum(), numbers + clean.numel()
    return total / numbers


def test_batches_and_sequences_draw_the_same_noise_and_stay_within_the_budget(world: tiny.World, shared: Path, folder: Path) -> None:
    for kind in ("packed", "buckets"):
        made = job(run(world, shared, folder, kind))
        for index in range(6):
            batch = made.batch(index)
            tokens = sum(x[0].numel() // 4 for x in batch.clean)
            assert 0 < tokens <= TABLE["tokens"]
            again = made.batch(index)
            assert all(torch.equal(a, b) for a, b in zip(batch.noise, again.noise, strict=True))
            _, figures = made.loss(index, batch)
            assert figures["tokens"].item() == tokens and figures["operations"] > 0


@pytest.mark.parametrize("kind", ["packed", "buckets"])
def test_it_trains_and_goes_on(kind: str, world: tiny.World, shared: Path, folder: Path) -> None:
    settings = replace(run(world, shared, folder, kind, accumulate=2), output=shared / f"{kind}-whole")
    whole = recipes.train(settings)
    again = replace(settings, output=shared / f"{kind}-again")
    parts = recipes.train(replace(again, steps=2)) + recipes.train(again)
    assert [figures["loss"] for figures in whole] == [figures["loss"] for figures in parts] and len(parts) == 3
    one, other = (models.load(at.output / "model").backbone.state_dict() for at in (settings, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "tasks",
    [Tasks(none=0.0, prefix=1.0), Tasks(none=0.0, both=1.0), Tasks(none=0.0, random=0.5, suffix=0.5), Tasks(none=0.5, first=0.5)],
    ids=["prefix", "both", "groups", "first"],
)
def test_clips_of_a_bucket_are_given_what_runs_of_their_size_are(
    tasks: Tasks, world: tiny.World, shared: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of each file are those of a run of that one size, at the same places; pictures and single groups are given nothing."""
    settings = run(world, shared, folder, "buckets", tasks=tasks, text_dropout=0.0)
    coder, made = models.load_autoencoder(settings.autoencoder), job(settings)
    alone = {}
    for size in (Size(8, 32, 32), Size(8, 16, 16)):
        monkeypatch.setattr(pools, "_extents", lambda *args, size=size: lambda item, place: pools.Extent(size, size))
        pool = pools.pools(replace(settings, sizes=mixed.One(), size=size), coder, "text", [True])[True]
        alone[latent_size(size, space=8, time=4)] = pool
    told = 0
    for index in range(12):
        batch = made.batch(index)
        assert isinstance(batch, Batch)
        size, given = Size(*batch.clean.shape[2:]), batch.given
        if given is None:
            assert size.frames == 1 or tasks.none
            continue
        told += 1
        assert given.holds and size.frames > 1
        pool = alone[size]
        for i, clean in enumerate(batch.clean):
            (at,) = (j for j, one in enumerate(tiny.latents(pool)) if torch.equal(one.float(), clean))
            which = np.array([at])
            for group in range(size.frames):
                if given.mask[i, 0, group].any():
                    assert torch.equal(given.latents[i, :, group], pool.part(f"{group}-{group + 1}", which)[0, :, 0])
            for place, image in zip(given.places, given.images[i].unbind(1), strict=True):
                assert torch.equal(image, pool.part({0.0: "0", 1.75: "-1"}[place], which)[0, :, 0])
        tiny.randomised(made.network)
        loss, _ = made.loss(index, batch)
        loss.backward()
        assert torch.isfinite(loss)
    assert told >= 2 and planning.plan(settings)["pass_tokens"] <= TABLE["tokens"]


def test_an_epoch_has_every_clip_as_often_as_its_weight_says() -> None:
    sizes, table = [Size(1, 4, 4)] * 5 + [Size(2, 4, 8)] * 4, Buckets(space=1, time=1, patch=2, tokens=32)
    for packs in (True, False):
        even = Deals(sizes, [1.0] * 9, table, table.count, packs=packs, passes=1, seed=3)
        first, passes = [], 0
        while len(first) < 9:
            first += even.at(passes)
            passes += 1
        assert sorted(first) == list(range(9)) == sorted(even.epoch(5))
        late = even.at(40)
        assert even.at(0) == first[: len(even.at(0))]  # back, and on again
        assert even.at(40) == late == Deals(sizes, [1.0] * 9, table, table.count, packs=packs, passes=1, seed=3).at(40)
        assert [even.at(i) for i in range(9)] != [
            Deals(sizes, [1.0] * 9, table, table.count, packs=packs, passes=1, seed=4).at(i) for i in range(9)
        ]
        uneven = Deals(sizes, [3.0] + [1.0] * 8, table, table.count, packs=packs, passes=1, seed=3)
        drawn = Counter(clip for epoch in range(200) for clip in uneven.epoch(epoch))
        assert drawn[0] / drawn[5] == pytest.approx(3, rel=0.1) and sum(drawn.values()) == 1800


def test_passes_of_a_step_cost_alike_and_are_full() -> None:
    """Files of 144p to 720p and 1 to 129 frames, as a run deals them to the passes of its steps."""
    rng, table = np.random.default_rng(0), Buckets()
    shapes = ((144, 256), (256, 144), (240, 426), (360, 640), (480, 854), (720, 720), (720, 1280), (1280, 720))  # rows, columns
    files = [Size(int(rng.choice([1, rng.integers(16, 130)], p=[0.3, 0.7])), *shapes[rng.integers(len(shapes))]) for _ in range(2000)]
    sizes = [latent_size(size, space=8, time=4) for file in files if (size := table.of(file))]
    inside = replace(table, space=1, time=1)
    costs = {size: cost(PRESETS["sd3-medium"], size, words=154).total for size in set(sizes)}
    deals = Deals(sizes, [1.0] * len(sizes), inside, costs.__getitem__, packs=True, passes=8, seed=1)
    steps = [[deals.at(8 * step + i) for i in range(8)] for step in range(400)]
    tokens = [sum(inside.count(sizes[clip]) for clip in clips) for step in steps for clips in step]
    assert max(tokens) <= table.tokens and np.mean(tokens) / table.tokens >= 0.97
    work = [sum(costs[sizes[clip]] for clip in clips) for step in steps for clips in step]
    assert imbalance(work, [list(range(8 * i, 8 * i + 8)) for i in range(len(steps))]) <= 0.05


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"data": tiny.runs(tiny.World(*[Path()] * 4), Path(), steps=1)["video"].data}, "sizes.kind=packed is for files"),  # type: ignore[union-attr]
        ({"tasks": Tasks(first=1.0)}, "set sizes.kind=buckets"),
        ({"parallel": Parallel(sequence=2)}, "not split over processes: set parallel.sequence=1"),
        ({"times": Times(each="frame")}, "set times.each=clip"),
        ({"start": None, "preset": "latte-xl-v2-tiny"}, "is for transformers of two streams"),
        ({"sizes": Packed(**{**TABLE, "tokens": 7})}, "does not fit a sequence of 7: raise the budget"),
        ({"sizes": Packed(**{**TABLE, "resolutions": (480,)})}, "fills any of sizes.resolutions"),
    ],
)
def test_what_does_not_go_together_is_said(world: tiny.World, shared: Path, folder: Path, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        job(run(world, shared, folder, **changes)).batch(0)


def test_pictures_alone_are_dealt_and_given_nothing(world: tiny.World, shared: Path, folder: Path) -> None:
    made = job(run(world, shared, folder, "buckets", joint=Joint(video_probability=0.0)))
    for index in range(3):
        batch = made.batch(index)
        assert isinstance(batch, Batch) and batch.given is None and batch.clean.shape[2] == 1


def test_models_of_one_stream_take_batches(world: tiny.World, shared: Path, folder: Path) -> None:
    settings = run(world, shared, folder, "buckets", start=None, preset="latte-xl-v2-tiny", words=0.0)
    made = job(settings)
    losses = [made.loss(index, made.batch(index))[0] for index in range(4)]
    assert all(torch.isfinite(loss) for loss in losses)


def test_a_plan_knows(world: tiny.World, shared: Path, folder: Path) -> None:
    for kind in ("packed", "buckets"):
        found = planning.plan(run(world, shared, folder, kind))
        assert 32 < found["pass_tokens"] <= TABLE["tokens"] and any("sizes.kind" in said for said in found["assumed"])
        assert found["samples"] > 3 * 4  # three steps


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_a_plan_goes_through_packed_passes_and_pictures_behind_clips(world: tiny.World, shared: Path, folder: Path) -> None:
    def passed(settings: BackboneRun) -> list[list[tuple[int, ...]]]:
        """The extents that the network of an outline is given in each of its passes."""
        made, seen = planning.outline(settings, []), []
        made.network["backbone"].register_forward_pre_hook(lambda module, given: seen.append([tuple(x.shape[1:]) for x in given[0]]))
        for _, one in made.passes:
            assert one().ndim == 0
        return seen

    packed = run(world, shared, folder)
    with planning.Shapes():
        (of_shapes,) = passed(packed)
    (whole,) = passed(packed)
    assert whole == of_shapes and set(whole) == {(1, 4, 4), (2, 4, 4)} and sum(f * 4 for f, _, _ in whole) <= 64
    plain = replace(packed, sizes=mixed.One(), joint=Joint(video_probability=1.0), tasks=Tasks(none=0.5, prefix=0.1, first=0.1, both=0.3))
    assert [one[0][0] for one in passed(plain)] == [2, 2, 3, 4]
