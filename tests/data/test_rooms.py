"""Memory that is filled again holds what was last put there, and is never filled under who still looks."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest
import torch

from videodit.data import rooms
from videodit.data.rooms import Room, Rooms


def fill(room: Room, value: int, size: int = 24) -> None:
    os.pwrite(room.handle, bytes([value]) * size, 0)


def test_a_room_is_free_when_the_last_view_of_it_is_gone() -> None:
    some = Rooms()
    room = some.take()
    fill(room, 1)
    views = [some.seen(room, (2, 3, 4))]
    views.append(views[0][1:, ::2])
    tensor = torch.from_numpy(views[1]).permute(2, 0, 1)
    while views:
        views.pop()
        gc.collect()
        assert not some.free and some.take() is not room
    assert int(tensor.min()) == 1
    del tensor
    gc.collect()
    assert some.take() is room


def test_it_grows_and_is_mapped_once() -> None:
    some = Rooms()
    room = some.take()
    for value, size in ((1, 24), (2, 12), (3, 10_000)):
        fill(room, value, size)
        before = room.mapping
        assert np.array_equal(some.seen(room, (size,)), np.full(size, value, np.uint8))
        assert (room.mapping is before) == (size == 12)
        assert some.take() is room


def test_nobody_can_make_it_smaller_under_who_looks() -> None:
    room = Rooms().take()
    fill(room, 1)
    with pytest.raises(OSError):
        os.ftruncate(room.handle, 0)
    with pytest.raises(ValueError):
        Rooms().seen(room, (25,))


def test_too_much_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "KEPT", 40)
    some, seen = Rooms(), []
    for _ in range(2):
        room = some.take()
        fill(room, 1)
        seen.append(some.seen(room, (24,)))
    seen.clear()
    gc.collect()
    assert len(some.free) == 1


def test_what_a_forked_process_may_look_at_is_not_filled_again() -> None:
    some = Rooms()
    room = some.take()
    fill(room, 1)
    seen = some.seen(room, (24,))
    if not (child := os.fork()):
        os._exit(int(seen[0]))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    del seen
    gc.collect()
    assert not some.free
