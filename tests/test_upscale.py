"""A video becomes larger: around what it was, in any batch, in windows, and as the command line and its record say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tiny
import videodit
from videodit import backbone, models, record, request
from videodit.cli.main import main
from videodit.data import video
from videodit.data.text import TextEncoder
from videodit.diffusion.guidance import Guidance
from videodit.diffusion.upscaling import Upscale
from videodit.edit import edit
from videodit.extend import at_once, extended
from videodit.generate import Generator, to_frames
from videodit.given import encode_low, enlarged, reduced
from videodit.models import Model
from videodit.request import Request
from videodit.shapes import Size, UserError
from videodit.upscale import upscaled

pytestmark = pytest.mark.usefixtures("unchecked")
PROMPT = "a red circle moves right"
SMALL = np.random.default_rng(0).integers(0, 256, (2, 8, 16, 16, 3), np.uint8)


def model(**changes: Any) -> Model:
    """One that makes clips larger, with noise on every parameter."""
    made = tiny.model(tiny.dpvae(trained=True), tiny.CLIP)
    network = backbone.build(replace(made.backbone.settings, hints=True)).eval()
    tiny.randomised(network)
    return replace(made, settings=replace(made.settings, backbone=network.settings, upscale=Upscale(**changes)), backbone=network)


@pytest.fixture(scope="module")
def large() -> Generator:
    return Generator(model())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that makes clips of 16x16, one that makes them larger, another of the kind, and a video of 16x16."""
    here = tmp_path_factory.mktemp("larger")
    small = tiny.model(tiny.dpvae(trained=True), Size(8, 16, 16))
    models.save(here / "small", small)
    models.save(here / "second", model())
    other = model()
    tiny.randomised(other.backbone)
    models.save(here / "other", other)
    video.write(here / "clip.webp", np.concatenate(SMALL)[:13], 5)
    return here


def echo() -> tuple[Generator, list[Tensor]]:
    """A network that answers with the way to what it is told, and a list of what that is."""
    generator, heard = Generator(model()), []

    def forward(noisy: Tensor, t: Tensor, text: Any, given: Any = None, *, hint: Tensor, when: Any = None) -> Tensor:
        heard.append(hint)
        return (noisy - hint[:, 1:]) / t.view(-1, 1, 1, 1, 1)

    generator.model.backbone.forward = forward  # type: ignore[method-assign]
    return generator, heard


def pixels(frames: np.ndarray) -> Tensor:
    return torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


# --- What is told ---


def test_a_clip_of_one_colour_is_itself_at_any_resolution() -> None:
    flat = torch.full((1, 3, 4, 12, 8), 0.2)
    eight_bits = round((0.2 + 1) * 127.5) / 127.5 - 1
    for factor in (2, 4):
        assert reduced(flat, factor).shape == (1, 3, 4, 12 // factor, 8 // factor)
        torch.testing.assert_close(enlarged(reduced(flat, factor), factor), torch.full_like(flat, eight_bits))


def test_what_a_run_tells_of_a_clip_is_what_is_told_of_its_smaller_file() -> None:
    """Squares of pixels are their means in 8 bits; each frame by itself."""
    coder = tiny.dpvae(trained=True)
    whole = np.random.default_rng(1).integers(0, 256, (2, 8, 32, 32, 3), np.uint8)
    file = to_frames(reduced(pixels(whole), 2))
    assert abs(whole.reshape(2, 8, 16, 2, 16, 2, 3).mean((3, 5)) - file).max() < 0.501
    with torch.no_grad():
        torch.testing.assert_close(encode_low(coder, pixels(whole), 2), coder.encode(enlarged(pixels(file), 2)).mode())


@pytest.mark.parametrize("frames", [8, 20, 1, 6])
def test_a_network_that_answers_what_it_is_told_leaves_it(frames: int) -> None:
    """In one window and in several, for a picture, and where the last group is not whole."""
    generator, heard = echo()
    clip = np.random.default_rng(2).integers(0, 256, (1, frames, 16, 24, 3), np.uint8)
    with torch.no_grad():
        low = generator.encode(enlarged(pixels(clip), 2))
        wanted = generator.decode(low, frames)[0].astype(int)
    made = upscaled(generator, clip[0], PROMPT, softened=0.0, guidance=1.0)
    assert made.shape == (frames, 32, 48, 3) and abs(made - wanted).max() <= 1
    told = heard[: max(1, low.shape[2] - 1)]
    assert [x.shape[2] for x in told] == ([2] * 4 if frames == 20 else [low.shape[2]])
    for at, hint in enumerate(told):
        assert torch.equal(hint[:, :1], torch.ones_like(hint[:, :1])) and torch.equal(hint[:, 1:], low[:, :, at : at + 2])


def test_both_predictions_are_told_however_they_are_guided() -> None:
    generator, heard = echo()
    for how in (Guidance(scale=3.0), Guidance(scale=3.0, joint=True), Guidance(scale=3.0, images=2.0), Guidance(scale=3.0, batched=False)):
        upscaled(generator, SMALL[0], PROMPT, guidance=how, steps=1)
    assert len(heard) == 5 and all(hint.shape[2] == 2 for hint in heard)  # the last asks twice


def test_the_share_of_noise_is_the_models_or_what_is_asked_for() -> None:
    generator, heard = echo()
    for softened, share in ((None, 0.1), (0.0, 0.0), (0.3, 0.3)):
        upscaled(generator, SMALL[0], PROMPT, softened=softened, steps=1)
        assert torch.equal(heard[-1][:, :1], torch.full_like(heard[-1][:, :1], 1 - torch.tensor(share)))


# --- What is made ---


def test_several_are_as_each_alone(large: Generator) -> None:
    prompts = [PROMPT, "a blue star spins"]
    both = upscaled(large, SMALL, prompts, seed=3, first=5)
    assert both.shape == (2, 8, 32, 32, 3)
    for i, prompt in enumerate(prompts):
        one = upscaled(large, SMALL[i], prompt, seed=3, first=5 + i)
        assert abs(one.astype(int) - both[i]).max() <= 1
    assert (both[0] != both[1]).any() and (upscaled(large, SMALL[1], PROMPT, seed=3, first=5) != both[0]).any()


def test_seeds_words_and_softening_are_heard(large: Generator) -> None:
    how: dict[str, Any] = {"seed": 1, "softened": 0.1, "then": ()}
    clip = np.concatenate(SMALL)
    base = upscaled(large, clip, PROMPT, **how)
    assert np.array_equal(base, upscaled(large, clip, PROMPT, seed=1))
    for change in ({"seed": 2}, {"softened": 0.0}, {"then": ("a blue star spins",)}, {"overlap": 0}):
        assert (upscaled(large, clip, PROMPT, **how | change) != base).any()
    later = upscaled(large, clip, PROMPT, **how | {"then": (PROMPT,)})
    assert np.array_equal(later, base)


def test_words_share_what_was_made_after_a_video_and_what_no_window_hears_is_said(
    large: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six latent frames in windows of two, of which the first may have been there before."""
    heard: list[str] = []
    field = Generator.field
    monkeypatch.setattr(Generator, "field", lambda self, prompts, *more: (heard.extend(prompts), field(self, prompts, *more))[1])
    clip, how = np.concatenate([*SMALL, SMALL[0]]), {"steps": 1, "guidance": 1.0}
    for there, then, words in ((0, "B", "AAABB"), (12, "B", "AAAAB"), (12, "", "AAAAA"), (8, "BC", "AAABC")):
        heard.clear()
        upscaled(large, clip, "A", then=tuple(then), there=there, **how)
        assert heard == list(words)
    with pytest.warns(UserWarning, match="hears nothing of 'B': its clips are too long for that"):
        upscaled(large, clip[:8], "A", then=("B",), **how)


def test_a_cascade_tells_how_much_of_a_video_was_there(folder: Path, large: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    made = np.zeros((20, 16, 16, 3), np.uint8)
    monkeypatch.setattr(request, "extended", lambda *given, **named: iter([made]))
    monkeypatch.setattr(request, "upscaled", lambda model, clip, *given, **named: (told.update(named), clip)[1])
    one = Request(prompt=PROMPT, then=("a blue star",), task="extend", frames=20)
    for path, there in ((folder / "clip.webp", 13), (None, 0)):
        replace(one, video=path).make(videodit.load(folder / "small"), second=large)
        assert told["there"] == there and told["then"] == ("a blue star",)


def test_noise_over_what_is_told_is_none_of_the_samplers(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, heard = echo()
    begun: list[Tensor] = []
    begin = type(generator.model.settings.objective).begin
    monkeypatch.setattr(type(generator.model.settings.objective), "begin", lambda self, x, t: (begun.append(x), begin(self, x, t))[1])
    for softened in (0.0, 0.3):
        upscaled(generator, SMALL[0], PROMPT, softened=softened, steps=1, guidance=1.0)
    clean, noisy = (hint[:, 1:] for hint in heard)
    over = (noisy - clean) * 0.7 / 0.3
    assert abs(over.std() - 1) < 0.1 and abs((over * begun[1]).mean()) < 0.1


# --- What cannot be ---


def test_a_model_for_larger_clips_makes_none_of_its_own(large: Generator) -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    clip = np.zeros((8, 32, 32, 3), np.uint8)
    for ask in (
        lambda: large.generate(PROMPT),
        lambda: large.generate(PROMPT, given={0: picture}),
        lambda: edit(large, clip, PROMPT),
        lambda: at_once(large, PROMPT, 16),
        lambda: next(extended(large, PROMPT, 16)),
    ):
        with pytest.raises(UserError, match="makes a clip larger that is there, and none of its own"):
            ask()


def test_words_that_the_second_model_cannot_read_are_refused_before_the_first_makes_a_clip(
    folder: Path, large: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Generator, "generate", lambda *given, **named: pytest.fail("a clip is made first"))
    one = Request(prompt=PROMPT, negative="blurry, " * 40)
    with pytest.raises(UserError, match="tokens: use at most"):
        one.make(videodit.load(folder / "small"), second=large)
    short = replace(large.model.settings, text=replace(tiny.TEXT, length=12))
    brief = TextEncoder(tiny.tokenizer(), short.text)
    models.save(tmp_path / "brief", replace(large.model, settings=short, text=brief))
    (tmp_path / "prompts.txt").write_text(f"{PROMPT}\n{'red ' * 20}\n", encoding="utf-8")
    options = ["--model", str(folder / "small"), "--upscale", str(tmp_path / "brief"), "-o", str(tmp_path / "a.webp")]
    for told in (["--prompts", str(tmp_path / "prompts.txt")], [PROMPT, "--negative", "red " * 20], [PROMPT, "--then", "red " * 20]):
        assert main(["generate", *options, *told]) == 2
        assert "tokens: use at most" in capsys.readouterr().err


def test_all_that_the_first_model_is_told_is_read_before_it_begins(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Request, "make", lambda *given, **named: pytest.fail("a clip is made first"))
    options = ["generate", PROMPT, "--model", str(folder / "small"), "-o", str(tmp_path / "a.webp")]
    for told in (["--negative", "red " * 100], ["--video", str(folder / "clip.webp"), "--before", "red " * 100]):
        assert main([*options, *told]) == 2
        assert "tokens: use at most" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"sampler": "nothing"}, "There is no sampler 'nothing'"),
        ({"shift": 0.0}, "A shift of 0 is out of range"),
        ({"overlap": 2}, "Windows of 2 latent frames cannot share 2"),
        ({"negative": "red " * 100}, "tokens: use at most"),
    ],
)
def test_what_cannot_be_sampled_is_said_before_the_video_is_encoded(
    how: dict[str, Any], match: str, large: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Generator, "encode", lambda *given: pytest.fail("the video is encoded first"))
    with pytest.raises(UserError, match=match):
        upscaled(large, SMALL[0], PROMPT, **how)


def test_what_cannot_be_larger_is_said(large: Generator, world: tiny.World) -> None:
    with pytest.raises(UserError, match="makes clips of its own and none larger"):
        upscaled(videodit.load(world.video_model), SMALL[0], PROMPT)
    with pytest.raises(UserError, match="15x16 does not fit, 2 times larger: use one whose rows and columns are multiples of 8"):
        upscaled(large, SMALL[0][:, 1:], PROMPT)
    with pytest.raises(UserError, match=r"shares of noise of 0 to 0\.3, not 0\.5"):
        upscaled(large, SMALL[0], PROMPT, softened=0.5)
    with pytest.raises(UserError, match="as many prompts as videos"):
        upscaled(large, SMALL, [PROMPT])
    with pytest.raises(UserError, match="The prompt is empty"):
        upscaled(large, SMALL[0])


# --- On the command line ---


def generate(out: Path, *options: object) -> np.ndarray:
    assert main(["generate", "-o", str(out), *map(str, options)]) == 0
    return video.read(out)[0]


def test_a_cascade_is_both_models_one_after_the_other_and_a_clip_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    how: dict[str, Any] = {"seed": 4, "steps": 2}
    options = [PROMPT, "--seed", 4, "--steps", 2, "--softened", 0.2]
    made = generate(tmp_path / "a.webp", *options, "--model", folder / "small", "--upscale", folder / "second")
    first = videodit.load(folder / "small").generate(PROMPT, **how)
    assert np.array_equal(made, upscaled(videodit.load(folder / "second"), first, PROMPT, softened=0.2, **how)) and made.std() > 1
    asked = Request(prompt=PROMPT, upscale=str(folder / "second"), softened=0.2, **how)
    assert np.array_equal(made, asked.make(videodit.load(folder / "small")))
    note = json.loads(video.read_note(tmp_path / "a.webp"))
    assert note["videodit"]["upscale"] == "second" and note["inputs"] == {"upscale": record.model_digest(str(folder / "second"))}
    monkeypatch.chdir(folder)
    capsys.readouterr()
    generate(tmp_path / "b.webp", "--like", tmp_path / "a.webp")
    assert "may differ" not in capsys.readouterr().err
    assert (tmp_path / "a.webp").read_bytes() == (tmp_path / "b.webp").read_bytes()
    other = generate(tmp_path / "c.webp", "--like", tmp_path / "a.webp", "--upscale", folder / "other")
    assert "the model of --upscale was" in capsys.readouterr().err and (other != made).any()
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "-o", "d.webp", "--like", "a.webp", "--model", str(folder / "small")]) == 2
    said = "a.webp was made larger by the model 'second', which is not here: give its folder by --upscale."
    assert said in capsys.readouterr().err and not Path("d.webp").exists()


def test_a_given_video_becomes_larger_at_its_own_rate(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [PROMPT, "--model", folder / "second", "--video", folder / "clip.webp", "--steps", 2]
    made = generate(tmp_path / "a.webp", *options, "--task", "upscale")
    clip, rate = video.read(folder / "clip.webp")
    assert np.array_equal(made, upscaled(videodit.load(folder / "second"), clip, PROMPT, steps=2)) and made.shape == (13, 32, 32, 3)
    assert video.probe(tmp_path / "a.webp").fps == rate == 5
    monkeypatch.chdir(folder)
    generate(tmp_path / "b.webp", "--like", tmp_path / "a.webp")
    assert (tmp_path / "a.webp").read_bytes() == (tmp_path / "b.webp").read_bytes()
    wide = generate(tmp_path / "c.webp", *options, "--softened", 0, "--size", "32x48", "--frames", 3)
    assert wide.shape == (3, 32, 48, 3)


def test_longer_and_several(folder: Path, tmp_path: Path) -> None:
    small = models.load(folder / "small")
    network = backbone.build(replace(small.settings.backbone, given="time"))
    network.load_state_dict(small.backbone.state_dict())
    models.save(tmp_path / "first", replace(small, settings=replace(small.settings, backbone=network.settings), backbone=network))
    options = [PROMPT, "--model", tmp_path / "first", "--upscale", folder / "second", "--steps", 1]
    made = generate(tmp_path / "a.webp", *options, "--task", "extend", "--frames", 18, "--then", "a blue star spins")
    assert made.shape == (18, 32, 32, 3)
    generate_many = ["generate", *map(str, options), "-o", str(tmp_path / "b.webp"), "--num", "2"]
    assert main(generate_many) == 0
    one, two = (video.read(tmp_path / f"b-00{i}.webp")[0] for i in (0, 1))
    assert (one != two).any() and one.shape == two.shape == (8, 32, 32, 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "small", "--upscale", "small"], "makes clips of its own and none larger"),
        (["--model", "small", "--upscale", "nowhere"], "The model nowhere does not exist"),
        (["--model", "second"], "makes a clip larger that is there, and none of its own"),
        (["--model", "second", "--task", "upscale"], "needs --video"),
        (["--model", "small", "--task", "upscale", "--video", "clip.webp"], "makes clips of its own and none larger"),
        (["--model", "second", "--task", "upscale", "--video", "clip.webp", "--upscale", "second"], "name it by --model"),
        (["--model", "second", "--task", "upscale", "--video", "clip.webp", "--size", "33x32"], "33 rows are not 2 times as many"),
        (["--model", "second", "--task", "upscale", "--video", "clip.webp", "--size", "36x36"], "18x18 does not fit, 2 times larger"),
        (["--model", "second", "--task", "upscale", "--video", "clip.webp", "--frames", "14"], "has 13 frames, not 14"),
        (["--model", "small", "--upscale", "second", "--softened", "0.9"], "shares of noise of 0 to 0.3, not 0.9"),
        (["--model", "small", "--upscale", "second", "--softened", "nan"], "--softened takes 0 to 1"),
        (["--model", "small", "--softened", "0.1"], "--softened is not for the task t2v"),
    ],
)
def test_what_cannot_be_asked_is_said(
    folder: Path, tmp_path: Path, options: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert main(["generate", PROMPT, "-o", str(tmp_path / "a.webp"), *options]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "a.webp").exists()
