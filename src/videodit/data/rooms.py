"""Memory that two processes share: one fills it, the other takes what is in it, again and again.

New memory has to be found and cleared by the system page by page, which takes as long as decoding does, so both map it once and keep it.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os

import numpy as np


class Room:
    """A piece of such memory; it may grow, and nobody can make it smaller under who looks at it."""

    def __init__(self, handle: int | None = None) -> None:
        """`handle`: of a room that another process made."""
        self.mapping: mmap.mmap | None = None
        if handle is not None:
            self.handle = handle
            return
        self.handle = os.memfd_create("frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(self.handle, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)

    def seen(self, shape: tuple[int, ...]) -> np.ndarray:
        """What is in it, until it is filled again."""
        size = math.prod(shape)
        return np.frombuffer(self._mapped(size), np.uint8, size).reshape(shape)

    def put(self, part: np.ndarray, at: int, likely: int) -> None:
        """Fill it from a place on; one that is too small grows to what it `likely` has to hold."""
        if os.fstat(self.handle).st_size < at + part.nbytes:
            os.ftruncate(self.handle, max(at + part.nbytes, likely))
        whole = np.frombuffer(self._mapped(at + part.nbytes), np.uint8)
        whole[at : at + part.nbytes].reshape(part.shape)[...] = part

    def _mapped(self, size: int) -> mmap.mmap:
        if self.mapping is None or len(self.mapping) < size:
            self.mapping = mmap.mmap(self.handle, max(size, os.fstat(self.handle).st_size))
        return self.mapping

    def __del__(self) -> None:
        os.close(self.handle)
