"""Scores of two sets on the command line: files with their cards, tables, and two of them side by side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from videodit.cli.main import main
from videodit.data import video
from videodit.evaluate import alignment, scores
from videodit.evaluate.protocol import Estimator, Protocol, Score
from videodit.evaluate.sets import Taken, choose
from videodit.shapes import UserError

FEW = ["--count", "4", "--frames", "4", "--size", "16x16", "--resamples", "4"]


def test_a_score_is_written_told_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    files = [tmp_path / name for name in ("a.json", "b.json", "c.json")]
    for file, more in zip(files, ([], [], ["--seed", "1"]), strict=True):
        arguments = ["evaluate", "fvd", "toybox", "toybox", "--extractor", "random-3d", *FEW, *more]
        assert main([*arguments, "--json", "--out", str(file)]) == 0
        assert json.loads(capsys.readouterr().out) == json.loads(file.read_text())
    assert main(["evaluate", "compare", str(files[0]), str(files[1]), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["difference"] == 0 and found["overlap"] and found["measure"] == "frechet[random-3d]"
    assert main(["evaluate", "compare", str(files[0]), str(files[1])]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[-2:] == ["+0.0000", "overlap"]
    assert main(["evaluate", "compare", str(files[0]), str(files[2])]) == 2
    assert "real.seed is 0 in one and 1 in the other" in capsys.readouterr().err


def test_a_table_says_the_score_its_interval_and_its_floor(capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", "kid", "toybox", "toybox", "--extractor", "random-3d", "--subset-size", "3", "--subsets", "2", *FEW]) == 0
    told = capsys.readouterr().out
    assert "4 clips of 4 frames" in told and "kernel[random-3d]" in told and "95 % of draws" in told and "real against real" in told
    assert main(["evaluate", "motion", "toybox", "toybox", *FEW]) == 0
    assert "by flow, protocol own" in capsys.readouterr().out


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP of random weights that knows letters."""
    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(i) for i in range(33, 127)]
    words = {word: i for i, word in enumerate([*letters, *(f"{x}</w>" for x in letters), "<|startoftext|>", "<|endoftext|>"])}
    ends = {"bos_token_id": words["<|startoftext|>"], "eos_token_id": words["<|endoftext|>"]}
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(words), **ends}
    CLIPModel(CLIPConfig(text_config=text, vision_config={**small, "image_size": 24, "patch_size": 8}, projection_dim=12)).save_pretrained(
        folder
    )
    CLIPTokenizer(vocab=words, merges=[], model_max_length=77).save_pretrained(folder)
    return folder


def test_alignment_is_by_a_local_clip(clip: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["evaluate", "alignment", "toybox", "toybox", "--weights", str(clip), *FEW]
    assert main([*arguments, "--json"]) == 2
    digest = alignment.folder_digest(clip)
    assert f"say --sha256 {digest}" in capsys.readouterr().err
    assert main([*arguments, "--sha256", digest, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"transformers", "tokenizers"} <= set(found["card"]["versions"])
    assert found["card"]["extractor"]["digest"] == digest and found["more"]["real_score"] == found["value"]
    assert found["interval"][0] <= found["value"] <= found["interval"][1] and found["floor"] != found["value"]
    assert main([*arguments, "--sha256", digest, "--count", "1", "--resamples", "0", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["floor"] is None and "no clip has another's words: use --count 2 or more" in told.err
    arguments = ["evaluate", "fid", "toybox", "toybox", "--extractor", "clip", "--weights", str(clip), "--sha256", digest, *FEW]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["measure"] == "frechet[clip]"


def pictures(folder: Path, words: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    for i, said in enumerate(words):
        video.write(folder / f"{i}.png", np.full((1, 24, 24, 3), 40 * i, np.uint8), 8)
        (folder / f"{i}.txt").write_text(said)
    return folder


def test_an_alignment_says_which_words_it_is_of(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Equal pictures against other words are another measurement; a clip's own words are never the chance it is held against."""
    few = ["--weights", str(clip), "--sha256", alignment.folder_digest(clip), "--count", "3", "--frames", "1", "--resamples", "0"]
    for name, words in (("a", ["x", "x", "y"]), ("b", ["x", "x", "z" * 500]), ("same", ["x", "x", "x"])):
        folder = str(pictures(tmp_path / "set", words))
        assert main(["evaluate", "alignment", folder, folder, *few, "--json", "--out", str(tmp_path / f"{name}.json")]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["floor"] is None) == (name == "same") and found["floor"] != found["value"]
    files = [str(tmp_path / f"{name}.json") for name in ("a", "b")]
    assert main(["evaluate", "compare", *files]) == 2 and "words is " in capsys.readouterr().err
    assert main(["evaluate", "compare", *files, "--despite", "words", "--despite", "real_digest"]) == 0


def test_an_alignment_in_parts_is_the_whole(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Interrupted and taken up again, and in two processes: bit for bit."""
    ready = alignment.load(clip, sha256=alignment.folder_digest(clip))
    sets = [choose(source, Taken(count=5, frames=2, size=(16, 16))) for source in ("toybox", "toybox")]
    monkeypatch.setattr(scores, "SAVED", 1)

    def score(state: Path | None = None) -> Score | None:
        return alignment.aligned(sets[0], sets[1], ready, Protocol(), Estimator(resamples=20), state)

    straight, looked, pictures = score(), [], alignment.Clip.pictures
    assert straight and straight.interval and straight.interval[0] < straight.value < straight.interval[1]

    def failing(self: alignment.Clip, frames: Tensor) -> Tensor:
        looked.append(len(frames))
        if len(looked) == 8:
            raise KeyboardInterrupt
        return pictures(self, frames)

    monkeypatch.setattr(alignment.Clip, "pictures", failing)
    with pytest.raises(KeyboardInterrupt):
        score(tmp_path / "state")
    assert score(tmp_path / "state") == straight
    assert looked == [2] * 11, "only the clip that was being looked at is looked at again"

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UserError, match="by --state"):
        score()
    assert score(tmp_path / "shared") is None
    monkeypatch.setenv("RANK", "0")
    assert score(tmp_path / "shared") == straight


def test_the_state_of_an_alignment_is_of_its_words(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    few = ["--weights", str(clip), "--sha256", alignment.folder_digest(clip), "--count", "2", "--frames", "1", "--resamples", "0"]
    for words, code in ((["x", "y"], 0), (["x", "z"], 2)):
        folder = str(pictures(tmp_path / "set", words))
        assert main(["evaluate", "alignment", folder, folder, *few, "--state", str(tmp_path / "state"), "--json"]) == code
    assert "is the state of another set (" in capsys.readouterr().err


def test_words_are_cut_where_the_tokenizer_says_no_length(clip: Path, tmp_path: Path):
    shutil.copytree(clip, tmp_path / "clip")
    said = json.loads((tmp_path / "clip/tokenizer_config.json").read_text())
    del said["model_max_length"]
    (tmp_path / "clip/tokenizer_config.json").write_text(json.dumps(said))
    loaded = alignment.load(tmp_path / "clip", sha256=alignment.folder_digest(tmp_path / "clip"))
    assert loaded.words(["x" * 500]).isfinite().all()


def test_a_folder_that_is_no_clip_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="is no folder of CLIP"):
        alignment.load(tmp_path)
    with pytest.raises(UserError, match="name a folder of transformers"):
        alignment.load(None)
    with pytest.raises(UserError, match="read from safetensors alone"):
        alignment.load(tmp_path, pickled=True)
