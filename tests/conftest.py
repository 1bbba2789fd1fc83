"""What several tests share."""

from __future__ import annotations

from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from hypothesis import settings

import checks

checks.lighten()  # which has to stand before anything of ours

import tiny  # noqa: E402
from videodit.data import toybox  # noqa: E402

settings.register_profile("steady", deadline=None, derandomize=True)  # a busy machine is no failure
settings.load_profile("steady")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-losses", action="store_true", help="store this machine's losses of the tiny runs in tests/train/losses.json")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> tiny.World:
    """The tiny world; tests read it and write elsewhere."""
    return tiny.build(tmp_path_factory.mktemp("world"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums are the same only for the same number of threads; more than one share a core with the other process of a suite."""
    yield from threads(1)


@pytest.fixture
def two_threads() -> Iterator[None]:
    yield from threads(2)


def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def few_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that start from nothing learn their words from few sentences, which takes less long."""
    sentences = tiny.sentences()
    monkeypatch.setattr(toybox, "sentences", lambda: iter(sentences))


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Shapes are not checked in whole runs: drawing takes eight times as long with it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
