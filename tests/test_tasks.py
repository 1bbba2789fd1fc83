"""Given frames, longer videos and edits, on a tiny model that is told of them by time."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

import tiny
import videodit
from tiny import apart, told
from videodit import models
from videodit.autoencoder import DPVAESettings
from videodit.diffusion import rolling
from videodit.diffusion.noise import Prior, noise
from videodit.diffusion.objectives import Diffusion
from videodit.diffusion.times import Times
from videodit.edit import encoded
from videodit.extend import at_once, cascade, drift, extended, faded, infilled, rolled, seams
from videodit.fitting import fitting
from videodit.generate import Generator
from videodit.request import Request
from videodit.shapes import Size, UserError

pytestmark = pytest.mark.usefixtures("unchecked")
PROMPT = "a red circle moves right"
FRAMES, ROWS, COLUMNS = tiny.CLIP
VIDEO = np.random.default_rng(0).integers(0, 256, (24, ROWS, COLUMNS, 3), np.uint8)


@pytest.fixture(scope="module")
def generator() -> Generator:
    return told()


@pytest.mark.parametrize("how", ["noise", "channels", "time"])
def test_given_groups_are_bit_equal_after_sampling(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = told(how), tiny.caught(monkeypatch)
    model.generate(PROMPT, given=dict(enumerate(VIDEO[:4])))
    alone = encoded(model, VIDEO[:4])
    assert torch.equal(seen[0][:, :, :1], alone) and seen[0].shape[2] == 2


def test_nothing_given_is_text_to_video_bit_for_bit(generator: Generator) -> None:
    assert np.array_equal(generator.generate(PROMPT, seed=3, given={}), generator.generate(PROMPT, seed=3))
    assert apart(generator.generate(PROMPT, seed=3, given={0: VIDEO[0]}), generator.generate(PROMPT, seed=3)) > 2


def test_pictures_at_other_places_make_other_videos(generator: Generator) -> None:
    first, last = (generator.generate(PROMPT, seed=3, given={at: VIDEO[0]}) for at in (0, FRAMES - 1))
    assert apart(first, last) > 2 and apart(first, generator.generate(PROMPT, seed=3, given={0: VIDEO[1]})) > 2


def test_a_first_picture_is_a_hint_and_a_last_one_stands_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the model takes hints; a branch at zero hears nothing."""
    model, seen = told(hints=True), []
    assert np.array_equal(model.generate(PROMPT, seed=3, given={0: VIDEO[0]}), model.generate(PROMPT, seed=3))
    tiny.randomised(model.model.backbone.hints)
    first, last = (model.generate(PROMPT, seed=3, given={at: VIDEO[0]}) for at in (0, FRAMES - 1))
    assert apart(first, model.generate(PROMPT, seed=3)) > 2 and np.array_equal(last, told().generate(PROMPT, seed=3, given={7: VIDEO[0]}))
    plain = model.model.backbone.forward
    monkeypatch.setattr(model.model.backbone, "forward", lambda *told, **more: (seen.append((told, more)), plain(*told, **more))[1])
    model.generate(PROMPT, seed=3, given={0: VIDEO[0], FRAMES - 1: VIDEO[1]})
    (noisy, _, _, mask), more = seen[0]
    pixels = torch.from_numpy(VIDEO[:1]).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    with torch.no_grad():
        key = model.model.autoencoder.encode_image(pixels).mode()[:, :, 0]
    assert torch.equal(more["hint"][:1, 1:, 0], key) and more["when"] == [0, 1, 1.75] and noisy.shape[2] == 3
    assert mask[0, 0, :, 0, 0].tolist() == [0, 0, 1] and more["hint"][0, 0, :, 0, 0].tolist() == [1, 0, 0]


def test_a_batch_of_four_is_four_singles(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    givens, latents = [{0: VIDEO[i]} for i in range(4)], tiny.caught(monkeypatch)
    whole = generator.generate([PROMPT] * 4, seed=3, given=givens)
    for i in range(4):
        assert apart(generator.generate(PROMPT, seed=3, given=givens[i], first=i), whole[i]) <= 1
    torch.testing.assert_close(latents[0], torch.cat(latents[1:]), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({8: VIDEO[0]}, "Frames 8 to 8 are given of a video of 8: use 0 to 7"),
        ({0: VIDEO[0, :16]}, "Frame 0 is 16x32, the video 32x32"),
        ([{0: VIDEO[0]}] * 2, "2 clips are given frames, and 1 are asked for"),
    ],
)
def test_what_cannot_be_given_is_said(generator: Generator, given: object, match: str) -> None:
    with pytest.raises(UserError, match=match):
        generator.generate(PROMPT, given=given)


def test_clips_of_a_call_are_given_the_same_frames_and_a_model_that_was_not_trained_for_it_refuses(
    world: tiny.World, generator: Generator
) -> None:
    with pytest.raises(UserError, match="given the same frames"):
        generator.generate([PROMPT] * 2, given=[{0: VIDEO[0]}, {7: VIDEO[0]}])
    with pytest.raises(UserError, match="was not trained to go on from given frames"):
        videodit.load(world.video_model).generate(PROMPT, given={0: VIDEO[0]})


def test_what_goes_on_from_frames_is_refused_before_any_are_made(world: tiny.World, monkeypatch: pytest.MonkeyPatch) -> None:
    model = videodit.load(world.video_model)
    monkeypatch.setattr(Generator, "generate", lambda *given, **named: pytest.fail("a clip is made first"))
    for act in (lambda: next(extended(model, PROMPT, 16)), lambda: cascade(model, PROMPT, 7)):
        with pytest.raises(UserError, match="was not trained to go on from given frames"):
            act()


def test_negative_prompts_samplers_and_previews(generator: Generator) -> None:
    plain = generator.generate(PROMPT, seed=3)
    assert apart(generator.generate(PROMPT, seed=3, negative="a blue star"), plain) > 1
    for name in ("heun", "ancestral", "UniPCMultistep"):
        assert apart(generator.generate(PROMPT, seed=3, sampler=name), plain) > 1
    shown: list[tuple[int, np.ndarray]] = []
    same = generator.generate(PROMPT, seed=3, preview=lambda step, look: shown.append((step, look())))
    assert np.array_equal(same, plain) and [step for step, _ in shown] == [1, 2, 3] and shown[0][1].shape == (1, *plain.shape)
    assert np.array_equal(shown[-1][1][0], plain)  # the last step ends at what it expects


def test_sampling_with_another_shift_or_noise_than_was_trained_warns_and_names_both() -> None:
    model = told(prior=Prior(kind="shared", share=0.5))
    with pytest.warns(UserWarning, match="times shifted by 1 and samples with 3"):
        model.generate(PROMPT, shift=3.0)
    with pytest.warns(
        UserWarning, match="trained on noise with kind=shared, share=0.5 and samples from noise with kind=independent, share=0.0"
    ):
        model.generate(PROMPT, prior=Prior())
    with pytest.warns(UserWarning, match=r"noise with middle=false, lows=0.0 and samples from noise with middle=true, lows=0.25\."):
        model.generate(PROMPT, prior=Prior(kind="shared", share=0.5, middle=True, lows=0.25))
    with pytest.warns(UserWarning) as said:
        model.generate(PROMPT, shift=3.0, sampler="DDIM")
    assert [str(one.message).split(",")[0] for one in said] == ["DDIM visits times of its own"]
    with pytest.raises(UserError, match="A shift of 0 is out of range"):
        model.generate(PROMPT, shift=0.0)


@pytest.mark.parametrize("prediction", ["noise", "v"])
def test_a_diffusion_generates_as_a_flow_does(prediction: str) -> None:
    model = told(objective=Diffusion(prediction=prediction))
    for sampler in ("euler", "ancestral", "DDIM"):
        frames = model.generate(PROMPT, seed=3, sampler=sampler, given={0: VIDEO[0]})
        assert frames.shape == (*tiny.CLIP, 3) and frames.std() > 1


# --- Longer videos ---


def test_a_step_adds_noise_that_no_frame_begins_with_nor_another_chunk_adds(generator: Generator) -> None:
    like = torch.zeros(1, 1, 2, 4, 4)
    begins = [noise(0, [0], (1, 2, 4, 4), start=at) for at in range(0, 40, 2)]
    added = [generator.fresh(0, 0, like, step, at) for step in range(4) for at in (0, 2, 4)]
    drawn = torch.cat([*begins, *added], dim=2)[0, 0].flatten(1)
    assert len({tuple(frame.tolist()) for frame in drawn}) == len(drawn)


def test_noise_that_is_added_later_is_as_alike_as_the_first() -> None:
    """Between frames as the prior says, between steps not at all; and the same wherever a window begins, but for a middle of its own."""
    like = torch.zeros(1, 8, 4, 32, 32)
    for prior in (
        Prior(kind="shared", share=0.5),
        Prior(kind="shared", share=0.5, middle=True),
        Prior(kind="progressive", share=0.7),
    ):
        first, other = (told(prior=prior).fresh(0, 0, like, step, at=2) for step in (0, 1))
        if not prior.middle:
            torch.testing.assert_close(told(prior=prior).fresh(0, 0, like, 0)[:, :, 2:], first[:, :, :2])
        ties = torch.corrcoef(torch.cat([first, other], dim=2)[0].transpose(0, 1).flatten(1)).double()
        torch.testing.assert_close(ties[:4, :4], prior.covariance(4), rtol=0, atol=0.05)
        assert ties[:4, 4:].abs().max() < 0.05


def test_an_extended_video_goes_on_from_what_is_there(generator: Generator) -> None:
    parts = list(extended(generator, PROMPT, 26, video=VIDEO[:12], known=4, seed=2))
    whole = np.concatenate(parts)
    assert (
        whole.shape == (26, ROWS, COLUMNS, 3)
        and np.array_equal(whole[:12], VIDEO[:12])
        and [len(part) for part in parts] == [8, 4, 4, 4, 6]
    )
    one = generator.generate(PROMPT, seed=2, given=dict(enumerate(VIDEO[8:12])), at=2)
    other = generator.generate(PROMPT, seed=2, given=dict(enumerate(one[4:])), at=3)
    assert np.array_equal(whole[12:16], faded(one[4:], other[:4])) and apart(one[4:], other[:4]) > 0


def test_what_is_there_stays_where_several_chunks_see_it() -> None:
    model = told(clip=Size(12, ROWS, COLUMNS))
    video = VIDEO[:10]
    whole = np.concatenate(list(extended(model, PROMPT, 24, video=video, known=8, steps=1)))
    assert len(whole) == 24 and np.array_equal(whole[:10], video)


def test_one_clip_fades_into_another() -> None:
    ones, others = np.full((3, 2, 2, 3), 100, np.uint8), np.full((3, 2, 2, 3), 200, np.uint8)
    assert faded(ones, others)[:, 0, 0, 0].tolist() == [125, 150, 175] and faded(ones, ones).tolist() == ones.tolist()


def test_from_text_alone_the_first_chunk_is_the_models_clip(generator: Generator) -> None:
    parts = list(extended(generator, [PROMPT, "a blue star"], 16, seed=2))
    assert np.array_equal(parts[0], generator.generate(PROMPT, seed=2)[:4]) and sum(map(len, parts)) == 16
    other = np.concatenate(list(extended(generator, PROMPT, 16, seed=2)))
    assert np.array_equal(parts[0], other[:4]) and apart(np.concatenate(parts)[8:], other[8:]) > 1
    assert np.array_equal(np.concatenate(list(extended(generator, PROMPT, 8, seed=2))), generator.generate(PROMPT, seed=2))


def test_a_chunk_is_given_whole_groups_where_half_a_clip_is_none() -> None:
    model = told(clip=Size(12, ROWS, COLUMNS))
    one, other = (np.concatenate(list(extended(model, PROMPT, 20, steps=1, known=known))) for known in (None, 4))
    assert len(one) == 20 and np.array_equal(one, other)


def test_clips_whose_first_frame_stands_alone_have_one_more_than_whole_groups() -> None:
    clip, alone = Size(9, ROWS, COLUMNS), DPVAESettings(time=4, reach="causal", keys=False, first="alone")
    model = told(clip=clip, groups=alone)
    assert model.generate(PROMPT, steps=1).shape == (*clip, 3) == fitting(Request(prompt=PROMPT), model).make(model).shape
    assert sum(map(len, extended(model, PROMPT, 20, steps=1))) == 20
    with pytest.raises(UserError, match="each one more than a multiple of 4, not 4"):
        list(extended(model, PROMPT, 20, known=4))


def test_memory_does_not_grow_with_the_length(generator: Generator) -> None:
    """1,024 frames, of which no part is kept."""
    most = []
    for frames in (64, 1024):
        for part in extended(generator, PROMPT, frames, steps=1, guidance=1.0):
            assert part.shape[1:] == (ROWS, COLUMNS, 3)
        most.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert most[1] <= 1.05 * most[0]


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ({"known": 3}, "in multiples of 4, not 3"),
        ({"known": 8}, "4 to 4 frames"),
        ({"video": VIDEO[:2]}, "has 2 frames, and each chunk is given 4"),
        ({"video": VIDEO[:20]}, "has 20 frames already"),
        ({"video": VIDEO[:8, :16]}, "is 16x32, its continuation 32x32"),
    ],
)
def test_what_cannot_be_extended_is_said(generator: Generator, asked: dict, match: str) -> None:
    with pytest.raises(UserError, match=match):
        list(extended(generator, PROMPT, 20, **asked))


def test_windows_at_once(generator: Generator) -> None:
    long = at_once(generator, [PROMPT, "a blue star"], 24, seed=2)
    assert long.shape == (24, ROWS, COLUMNS, 3)
    short = at_once(generator, PROMPT, 8, seed=2)
    assert apart(short, generator.generate(PROMPT, seed=2)) <= 1  # one window is the clip
    with pytest.raises(UserError, match="26 frames do not fit"):
        at_once(generator, PROMPT, 26)


def test_drift_and_seams_see_what_changes() -> None:
    still = np.full((8, 8, 8, 3), 100, np.uint8)
    moved = np.concatenate([still, still + 50])
    table = drift(moved, 8)
    assert [row["start"] for row in table] == [0, 8] and table[1]["brightness"] - table[0]["brightness"] == pytest.approx(
        50 / 255, abs=1e-3
    )
    noisy = np.random.default_rng(1).integers(0, 40, (16, 8, 8, 3)).astype(np.uint8)
    smooth, jump = seams(noisy, [8])[0], seams(noisy + np.repeat([0, 100], 8).astype(np.uint8)[:, None, None, None], [8])[0]
    assert smooth == pytest.approx(1, abs=0.2) and jump > 5


def test_frames_between_others_and_a_cascade(generator: Generator) -> None:
    filled = infilled(generator, PROMPT, VIDEO[:3], 7, seed=2)
    assert filled.shape == (15, ROWS, COLUMNS, 3) and np.array_equal(filled[::7], VIDEO[:3])
    again = generator.generate(PROMPT, seed=2, given={0: VIDEO[1], 7: VIDEO[2]}, at=2, level=1)
    assert np.array_equal(filled[8:14], again[1:7])
    assert len(cascade(generator, PROMPT, 7, steps=1)) == 7 * 7 + 1
    with pytest.raises(UserError, match="can be filled 7 times, not 3"):
        infilled(generator, PROMPT, VIDEO[:3], 3)
    with pytest.raises(UserError, match="nothing between"):
        infilled(generator, PROMPT, VIDEO[:1], 7)


def test_what_fills_a_cascade_begins_with_noise_that_its_key_frames_had_not(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the first noise and what a sampler adds: none of it comes twice, and none is like another."""
    drawn: list[torch.Tensor] = []
    monkeypatch.setattr(videodit.generate, "noise", lambda *told, **more: (drawn.append(noise(*told, **more)), drawn[-1])[1])
    cascade(generator, PROMPT, 7, steps=2, sampler="ancestral")
    keys, filled = len(drawn) // 8, torch.cat(drawn, dim=2)[0].transpose(0, 1).flatten(1)
    ties = torch.corrcoef(filled) - torch.eye(len(filled))
    assert len(drawn) == 8 * keys and keys > 1 and ties.abs().max() < 6 / filled.shape[1] ** 0.5


def test_only_what_is_looked_at_is_decoded(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = tiny.caught(monkeypatch)
    for every, looks in ((1, 6), (2, 3), (4, 1), (7, 0)):
        decoded.clear()
        generator.generate(PROMPT, steps=6, preview=lambda step, look, every=every: None if step % every else look())
        assert len(decoded) == looks + 1  # and the clip itself


def test_a_look_is_at_its_own_step_however_late_it_comes(generator: Generator) -> None:
    looks = []
    last = generator.generate(PROMPT, steps=3, preview=lambda step, look: looks.append(look))
    early, late = looks[0](), looks[2]()
    assert apart(early[0], last) > 1 and np.array_equal(late[0], last)


def test_a_factor_that_no_clip_has_is_refused_before_key_frames_are_made(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Generator, "generate", lambda *given, **named: pytest.fail("key frames are made first"))
    with pytest.raises(UserError, match="can be filled 7 times, not 3"):
        cascade(generator, PROMPT, 3)


def test_the_levels_of_a_diffusion_are_not_shifted() -> None:
    with pytest.raises(UserError, match="levels of its diffusion, which no shift changes"):
        told(objective=Diffusion()).generate(PROMPT, steps=1, shift=3.0)


def test_a_queue_rolls_on_for_models_whose_frames_have_their_own_times(generator: Generator) -> None:
    model = told(times=Times(each="monotone"))
    long, short = (rolled(model, PROMPT, frames, seed=2) for frames in (22, 12))
    assert long.shape == (22, ROWS, COLUMNS, 3) and long.std() > 1 and short.shape[0] == 12
    with pytest.raises(UserError, match=r"times\.each=frame or monotone"):
        rolled(generator, PROMPT, 12)


def test_what_joins_a_queue_is_as_loud_as_its_last_level(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = Prior(kind="shared", share=0.5)
    model, joined = told(objective=Diffusion(), times=Times(each="monotone"), prior=prior), []

    def roll(field: object, queue: torch.Tensor, levels: torch.Tensor, fresh: Callable[[int], torch.Tensor]) -> Iterator[torch.Tensor]:
        joined.extend([levels[-1], fresh(1)])
        return iter(queue.split(1, dim=2))

    monkeypatch.setattr(rolling, "rolling", roll)
    rolled(model, PROMPT, 4, seed=2)
    last, frame = joined
    latents = model.model.autoencoder.latents(model.size)
    drawn = noise(2, [0], (model.model.autoencoder.channels, 1, *latents[1:]), start=latents.frames + 1, prior=prior)
    assert 0.9 < last < 1
    torch.testing.assert_close(frame / ((1 - last) ** 2 + last**2).sqrt(), drawn, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(frame, drawn, atol=1e-4)


def test_a_first_frame_lends_its_low_frequencies_if_the_prior_says_so() -> None:
    plain, lent = told(), told(prior=Prior(lows=0.3))
    given = {0: VIDEO[0]}
    assert apart(plain.generate(PROMPT, given=given), lent.generate(PROMPT, given=given)) > 1
    assert np.array_equal(plain.generate(PROMPT), lent.generate(PROMPT))
    groups = dict(enumerate(VIDEO[:4]))
    assert apart(plain.generate(PROMPT, given=groups), lent.generate(PROMPT, given=groups)) > 1


# --- Edits ---


def test_an_image_model_has_nothing_to_go_on_from(world: tiny.World) -> None:
    with pytest.raises(UserError, match="too short to go on from"):
        list(extended(videodit.load(world.image_model), PROMPT, 4))
    assert models.load(world.image_model).settings.size == Size(1, 32, 32)
