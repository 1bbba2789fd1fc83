"""What is written reads back unchanged; what is wrong is said in one sentence that names the right thing."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videodit.config import parse, read, setting, write
from videodit.shapes import Size, UserError


@dataclass(frozen=True, kw_only=True)
class Adam:
    kind: Literal["adamw"] = "adamw"
    learning_rate: float = setting(1e-4, "Peak learning rate")
    decay: float | None = setting(None, "Weight decay")
    betas: tuple[float, float] = setting((0.9, 0.99), "Averages of gradient and square")


@dataclass(frozen=True, kw_only=True)
class Muon:
    kind: Literal["muon"] = "muon"
    learning_rate: float = setting(2e-2, "Peak learning rate")


@dataclass(frozen=True, kw_only=True)
class Source:
    path: Path = setting(doc="Where the clips are")
    share: float = setting(1.0, "How often")
    names: dict[str, Adam | Muon] = setting({}, "By name")


@dataclass(frozen=True, kw_only=True)
class Run:
    output: str = setting(doc="Where the run goes")
    steps: int = setting(100, "Optimiser steps")
    compile: bool = setting(False, "Compile the model")
    size: Size = setting(Size(16, 64, 64), "Extent of a clip")
    patch: tuple[int, int, int] = setting((1, 2, 2), "Patch")
    words: tuple[str, ...] = setting((), "Words")
    mode: Literal["image", "video"] = setting("video", "What is trained")
    weights: dict[str, float] = setting({"loss": 1.0}, "Weights")
    start: int | Literal["last"] | None = setting(None, "Step to start at")
    optimizer: Adam | Muon = setting(Adam(decay=0.1), "The optimiser")
    teacher: Adam | None = setting(None, "A second one")
    sources: tuple[Source, ...] = setting((), "Where clips come from")


TEXTS = st.text(max_size=12) | st.sampled_from(['"', "a\nb", "\x7f\x00\t\\", "'''", "# no", "ä\u2028🙂", "none"])
FLOATS = st.floats(allow_nan=False)
ADAMS = st.builds(Adam, learning_rate=FLOATS, decay=st.none() | FLOATS, betas=st.tuples(FLOATS, FLOATS))
OPTIMIZERS = ADAMS | st.builds(Muon, learning_rate=FLOATS)
SOURCES = st.builds(Source, path=TEXTS.map(Path), share=FLOATS, names=st.dictionaries(TEXTS, OPTIMIZERS, max_size=2))
RUNS = st.builds(
    Run,
    output=TEXTS,
    steps=st.integers(),
    compile=st.booleans(),
    size=st.builds(Size, *[st.integers()] * 3),
    patch=st.tuples(*[st.integers()] * 3),
    words=st.lists(TEXTS, max_size=3).map(tuple),
    mode=st.sampled_from(["image", "video"]),
    weights=st.dictionaries(TEXTS, FLOATS, max_size=3),
    start=st.none() | st.integers() | st.just("last"),
    optimizer=OPTIMIZERS,
    teacher=st.none() | ADAMS,
    sources=st.lists(SOURCES, max_size=2).map(tuple),
)


@given(RUNS)
def test_what_is_written_reads_back_unchanged(run: Run):
    again = parse(Run, write(run))
    assert again == run
    assert type(again.size) is Size and type(again.optimizer) is type(run.optimizer)
    assert write(again) == write(run)


@given(OPTIMIZERS)
def test_a_union_at_the_root_reads_back_unchanged(optimizer: Adam | Muon):
    assert parse(Adam | Muon, write(optimizer)) == optimizer


def test_not_a_number_reads_back():
    assert math.isnan(parse(Adam, write(Adam(learning_rate=math.nan))).learning_rate)


def test_every_field_is_written_with_its_doc():
    text = write(Run(output="x", teacher=Adam()))
    for field in (*fields(Run), *fields(Adam)):
        assert field.name in text and field.metadata.get("doc", "") in text
    assert "# start =" in text
    assert 'One of: "image", "video".' in text and 'Kinds: "adamw", "muon".' in text


def test_none_is_only_spelled_where_leaving_out_would_mean_something_else():
    assert tomllib.loads(write(Run(output="x")))["optimizer"]["decay"] == 0.1
    assert tomllib.loads(write(Run(output="x", optimizer=Adam())))["optimizer"]["decay"] == "none"
    assert "decay" not in tomllib.loads(write(Adam()))


def test_a_key_left_out_means_what_the_default_of_its_table_says():
    assert parse(Run, 'output = "x"\noptimizer.learning_rate = 1').optimizer == Adam(learning_rate=1.0, decay=0.1)
    assert parse(Run, 'output = "x"\nweights = {}').weights == {}


X = 'output = "x"'


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        (["steps=3"], {"steps": 3}),
        (["steps=3", "steps=4"], {"steps": 4}),
        (["mode=image"], {"mode": "image"}),
        (["output=a b=c"], {"output": "a b=c"}),
        (["output=1\nsteps = 3"], {"output": "1\nsteps = 3"}),
        (["output="], {"output": ""}),
        (["optimizer.learning_rate=1"], {"optimizer": Adam(learning_rate=1.0, decay=0.1)}),
        (["optimizer.decay=none"], {"optimizer": Adam()}),
        (["optimizer.kind=muon"], {"optimizer": Muon()}),
        (["optimizer.learning_rate=3", "optimizer.kind=muon"], {"optimizer": Muon(learning_rate=3.0)}),
        (["optimizer.kind=adamw"], {}),
        (["teacher.decay=1"], {"teacher": Adam(decay=1.0)}),
        (['weights."b c"=2'], {"weights": {"loss": 1.0, "b c": 2.0}}),
        (["start=last"], {"start": "last"}),
        (["size=[1, 2, 3]"], {"size": Size(1, 2, 3)}),
        (["sources=[{path='a'}]"], {"sources": (Source(path=Path("a")),)}),
    ],
)
def test_overrides_win_over_the_file(overrides: list[str], changed: dict):
    run = Run(output="x")
    assert parse(Run, X, overrides) == replace(run, **changed)
    assert parse(Run, write(run), overrides) == replace(run, **changed)  # a complete file changes nothing


def test_another_kind_starts_from_its_own_defaults():
    text = f'{X}\n[optimizer]\nkind = "adamw"\nlearning_rate = 5.0\ndecay = 0.5'
    assert parse(Run, text, ["optimizer.kind=muon"]).optimizer == Muon()
    assert parse(Run, text, ["optimizer.kind=adamw"]).optimizer == Adam(learning_rate=5.0, decay=0.5)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"{X}\noptimizer.lr = 1", "run.toml: optimizer.lr is not a setting; did you mean optimizer.learning_rate?"),
        (f"{X}\nstpes = 1", "run.toml: stpes is not a setting; did you mean steps?"),
        (f"{X}\nbetas = [1, 2]", "run.toml: betas is not a setting; did you mean optimizer.betas?"),
        (f"{X}\n[optimizer]\nkind='muon'\nzzz = 1", "run.toml: optimizer.zzz is not a setting; optimizer takes kind, learning_rate."),
        (f"{X}\nsteps = 'many'", 'run.toml: steps takes a whole number, not "many".'),
        (f"{X}\nsteps = true", "run.toml: steps takes a whole number, not true."),
        (f"{X}\nsteps = 1.5", "run.toml: steps takes a whole number, not 1.5."),
        (f"{X}\ncompile = 1", "run.toml: compile takes true or false, not 1."),
        (f"{X}\nmode = 'sound'", 'run.toml: mode takes one of "image", "video", not "sound".'),
        (f"{X}\nstart = 'first'", 'run.toml: start takes a whole number or "last", not "first".'),
        (f"{X}\nsize = [1, 2]", "run.toml: size takes a list [frames, rows, columns], not a list of 2."),
        (f"{X}\nsize = [1, 2, 'x']", 'run.toml: size[2] takes a whole number, not "x".'),
        (f"{X}\noptimizer = 3", "run.toml: optimizer takes a table, not 3."),
        (f"{X}\noptimizer.kind = 'sgd'", 'run.toml: optimizer.kind takes one of "adamw", "muon", not "sgd".'),
        (f"{X}\n[[sources]]", "run.toml: sources[0].path must be set: it takes a path in quotes."),
        (f"{X}\n[weights]\n'a b' = 'c'", 'run.toml: weights."a b" takes a number, not "c".'),
        ("", "run.toml: output must be set: it takes a text in quotes."),
        (f"{X}\nsteps = ", "run.toml is not valid TOML: Invalid value (at end of document)."),
        (f"{X}\nsteps 3\n", "run.toml is not valid TOML: Expected '=' after a key in a key/value pair (at line 2, column 7)."),
    ],
)
def test_mistakes_are_one_sentence(text: str, sentence: str):
    with pytest.raises(UserError) as caught:
        parse(Run, text, name="run.toml")
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("optimizer.lr=3", "optimizer.lr=3: optimizer.lr is not a setting; did you mean optimizer.learning_rate?"),
        ("steps=many", 'steps=many: steps takes a whole number, not "many".'),
        ("optimizer.kind=sgd", 'optimizer.kind=sgd: optimizer.kind takes one of "adamw", "muon", not "sgd".'),
        ("optimizer=none", 'optimizer=none: optimizer takes a table, not "none".'),
        ("steps", "'steps' changes no setting: write it as a.b=value, such as steps=100."),
        ("=3", "'=3' changes no setting: write it as a.b=value, such as steps=100."),
        ("a b=3", "'a b=3' changes no setting: write it as a.b=value, such as steps=100."),
    ],
)
def test_a_wrong_override_is_named(override: str, sentence: str):
    with pytest.raises(UserError) as caught:
        parse(Run, X, [override], name="run.toml")
    assert str(caught.value) == sentence


def test_files_that_cannot_be_read(tmp_path: Path):
    for path, words in ((tmp_path / "no.toml", "no file"), (tmp_path, "directory"), (tmp_path / "binary", "not UTF-8")):
        (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(UserError, match=words) as caught:
            read(Run, path)
        assert str(path) in str(caught.value)


def test_a_file_is_read(tmp_path: Path):
    (tmp_path / "run.toml").write_text(write(Run(output="ä")), encoding="utf-8")
    assert read(Run, tmp_path / "run.toml", ["steps=3"]) == Run(output="ä", steps=3)


def test_a_check_of_the_settings_own_is_one_sentence_too():
    @dataclass(frozen=True, kw_only=True)
    class Even:
        count: int = setting(2)

        def __post_init__(self) -> None:
            if self.count % 2:
                raise UserError(f"count must be even, so use {self.count + 1}.")

    with pytest.raises(UserError) as caught:
        parse(Even, "count = 3", name="run.toml")
    assert str(caught.value) == "run.toml: count must be even, so use 4."


def test_a_text_that_would_read_back_as_none_is_refused():
    @dataclass(frozen=True, kw_only=True)
    class Named:
        name: str | None = setting(None)

    with pytest.raises(ValueError, match="none"):
        write(Named(name="none"))
