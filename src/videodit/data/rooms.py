"""Memory that two processes share: one fills it, the other looks at it, and once nobody looks it is filled again.

New memory has to be found and cleared by the system page by page, which takes as long as decoding does.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import weakref

import numpy as np

KEPT = 256 << 20  # bytes that wait to be filled again
_FORKS = [0]
os.register_at_fork(before=lambda: _FORKS.append(_FORKS.pop() + 1))


class Room:
    """A piece of such memory; it may grow, and nobody can make it smaller under who looks at it."""

    def __init__(self) -> None:
        self.handle = os.memfd_create("frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(self.handle, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        self.mapping: mmap.mmap | None = None
        self.forks = 0

    @property
    def size(self) -> int:
        return 0 if self.mapping is None else len(self.mapping)

    def __del__(self) -> None:
        os.close(self.handle)


class Rooms:
    """Those of one process that fills them."""

    def __init__(self) -> None:
        self.free: list[Room] = []

    def take(self) -> Room:
        """One that nobody looks at."""
        room = self.free.pop() if self.free else Room()
        room.forks = _FORKS[0]
        return room

    def seen(self, room: Room, shape: tuple[int, ...]) -> np.ndarray:
        """What a room was filled with; it is free again when the last array of it is gone."""
        size = math.prod(shape)
        if room.mapping is None or room.size < size:
            room.mapping = mmap.mmap(room.handle, size)
        whole = np.frombuffer(room.mapping, np.uint8, size)
        weakref.finalize(whole, self.give_back, room).atexit = False
        return whole.reshape(shape)

    def give_back(self, room: Room) -> None:
        """Keep it, unless that were too much, or a process that was forked meanwhile may look at it still."""
        if room.forks == _FORKS[0] and sum(other.size for other in self.free) + room.size <= KEPT:
            self.free.append(room)
