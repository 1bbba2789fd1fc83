"""What one side puts into a room the other side finds there, and nobody makes it smaller."""

from __future__ import annotations

import os

import numpy as np
import pytest

from videodit.data.rooms import Room


def test_what_is_put_in_is_seen_by_the_other_side() -> None:
    mine = Room()
    other = Room(os.dup(mine.handle))
    parts = np.random.default_rng(0).integers(0, 256, (3, 2, 5, 3)).astype(np.uint8)
    for number, part in enumerate(parts):
        other.put(part, number * part.nbytes, likely=40)
    assert np.array_equal(mine.seen(parts.shape), parts)
    before = mine.mapping
    other.put(parts[2], 0, likely=40)
    assert np.array_equal(mine.seen(parts.shape)[0], parts[2]) and mine.mapping is before  # mapped once


def test_it_grows_to_what_it_likely_holds_or_to_what_it_has_to() -> None:
    room = Room()
    sizes = []
    for at, size, likely in ((0, 10, 100), (50, 50, 100), (90, 20, 100), (0, 5000, 100), (0, 10, 100)):
        room.put(np.full(size, size % 251, np.uint8), at, likely)
        assert room.seen((at + size,))[at:].min() == room.seen((at + size,))[at:].max() == size % 251
        sizes.append(os.fstat(room.handle).st_size)
    assert sizes == [100, 100, 110, 5000, 5000]


def test_rows_that_are_not_side_by_side_are_put_in_order() -> None:
    room, turned = Room(), np.rot90(np.arange(24, dtype=np.uint8).reshape(2, 4, 3), 1)
    room.put(turned, 0, 0)
    assert np.array_equal(room.seen(turned.shape), turned)


def test_nobody_can_make_it_smaller_or_see_what_is_not_there() -> None:
    room = Room()
    room.put(np.ones(24, np.uint8), 0, 24)
    with pytest.raises(OSError):
        os.ftruncate(room.handle, 0)
    with pytest.raises(ValueError):
        room.seen((25,))
