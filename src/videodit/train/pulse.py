"""Whether the processes of a launch are alive: each says so every second through the launcher's store, and the first judges.

A process that died or was stopped says nothing any more; one that hangs is alive but does not come to where the others wait, be it the
next exchange of gradients or one in the midst of a pass that all compute together. Either is named, and the others end. So collectives
themselves may be patient: encoding a data set takes hours, a step does not.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from threading import Event, Lock, Thread, get_ident
from typing import NamedTuple

import torch.distributed as dist

from videodit.shapes import UserError
from videodit.train.progress import note

BEAT = 0.5  # seconds between two signs of life
SILENCE = 8.0  # seconds without one
SHORT = 3.0  # the same, once a connection was found closed
GRACE = 1.0  # seconds between a verdict and the end of a process that waits inside a kernel
STILL = 0.002  # seconds of the processor's between two signs of life of a thread that does nothing
SLOW = 8.0  # times as long one is waited for that works: its cores may be others' as well
LOST = os.EX_TEMPFAIL  # 75: the same command goes on from the last checkpoint
ENDED = "ended"
_EXCHANGES = str(Path(dist.__file__).parent)
_NEAR = 4  # calls of Python between a thread's last and the exchange: operators are called through some


class Lost(UserError):
    """Another process of the launch is gone."""

    status = LOST


class Sign(NamedTuple):
    """What a process says of itself."""

    beats: int
    met: int  # passes and exchanges come to
    inside: float  # seconds in the last of them, until it is over
    still: float  # seconds in one exchange without doing anything
    free: float  # seconds since it was last behind the others for a good reason; 0 while it is
    idle: float  # seconds since its training thread last did anything


class Pulse:
    """One process's sign of life, and what it hears of the others."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        place, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        # a line of our own to where the processes met: a sign of life must not wait behind others
        self.store = dist.TCPStore(place, port, is_master=False, timeout=timedelta(seconds=10))  # pyright: ignore[reportPrivateImportUsage]
        self.wait: float | None = None  # in a step: how long others may wait for one
        self.verdict: str | None = None
        self._place = f"pulse/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        self._heard = {other: ("", time.monotonic()) for other in range(size)}
        self._met, self._since, self._free = 0, None, 0.0  # as in a sign of life; since when in the last, and since when free
        self._thread, self._spent = get_ident(), 0.0  # who trains, and its time
        self._worked = self._moved = time.monotonic()  # when it last did something, and was last in no exchange that holds it
        self._silence, self._beats = math.inf, 0  # less, once a connection was found closed
        self._over, self._known, self._lock, self._round = Event(), Event(), Lock(), 0.0
        self._beat()

    def start(self) -> None:
        """Once every process has given its first sign."""
        self._heard = {other: ("", time.monotonic()) for other in range(self.size)}
        self._round = time.monotonic()
        for act in (self._watch, self._guard):
            Thread(target=act, daemon=True, name="pulse").start()

    def end(self) -> None:
        """This process stops because all do."""
        self._last_word(f"{self.rank}", ENDED)

    @contextmanager
    def meeting(self) -> Iterator[None]:
        """Inside a collective: its failure is the loss of another process."""
        with self.together():
            try:
                yield
            except RuntimeError as error:
                raise self.lost() from error

    @contextmanager
    def together(self) -> Iterator[None]:
        """Inside what all do at once: here others wait for who does not come."""
        self._met, self._since = self._met + 1, time.monotonic()
        try:
            yield
        finally:
            self._since = None

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Behind the others for a good reason."""
        self._free = math.inf
        try:
            yield
        finally:
            self._free = time.monotonic()

    def lost(self) -> Lost:
        """Who is gone, when a connection was found closed."""
        self._silence = SHORT
        self._known.wait(SILENCE + GRACE)
        self._over.set()
        return Lost(self.verdict or _sentence("Another process is gone"))

    def failed(self, error: Exception) -> None:
        """Tell the others that this process ends by a fault of its own."""
        self._last_word("verdict", f"Process {self.rank} of {self.size} failed ({type(error).__name__}: {error!s:.200})")

    def _last_word(self, key: str, word: str) -> None:
        """If the store still listens."""
        self._over.set()
        if self._lock.acquire(timeout=GRACE):
            with suppress(RuntimeError):
                self.store.set(f"{self._place}/{key}", word)
            self._lock.release()

    def _watch(self) -> None:
        try:
            while not self._over.wait(BEAT):
                self._round = time.monotonic()
                self._beat()
                with self._lock:
                    said = self._judged()
                if said:
                    self._ends(said)
        except RuntimeError:  # the store is gone, and with it who kept it
            if not self._over.is_set():
                self._ends("The launcher, or process 0, is gone")

    def _guard(self) -> None:
        """Calls to a store whose keeper was stopped never return."""
        while not self._over.wait(BEAT):
            if time.monotonic() - self._round > SILENCE:
                self._ends(f"The launcher, or process 0, was stopped: it has not answered for {SILENCE:.0f} s")

    def _beat(self) -> None:
        since, now = self._since, time.monotonic()
        self._beats += 1
        inside, free = 0.0 if since is None else now - since, max(now - self._free, 0.0)
        still, idle = self._rests()
        sign = Sign(self._beats, self._met, *(round(seconds, 1) for seconds in (inside, still, free, idle)))
        with self._lock:
            self.store.set(f"{self._place}/{self.rank}", json.dumps(sign))

    def _rests(self) -> tuple[float, float]:
        """Seconds that the training thread has taken none of the processor's time: since it came to an exchange, and in all."""
        spent, now = time.clock_gettime(time.pthread_getcpuclockid(self._thread)), time.monotonic()
        if spent - self._spent > STILL:
            self._worked = now
        if self._worked == now or not self._exchanges():
            self._moved = now
        self._spent = spent
        return now - self._moved, now - self._worked

    def _exchanges(self) -> bool:
        frame = sys._current_frames().get(self._thread)
        for _ in range(_NEAR):
            if frame is None:
                return False
            if frame.f_code.co_filename.startswith(_EXCHANGES):
                return True
            frame = frame.f_back
        return False

    def _judged(self) -> str | None:
        """Everyone hears the first process and its verdict; the first hears all."""
        if self.store.check([f"{self._place}/verdict"]):
            return self.store.get(f"{self._place}/verdict").decode()
        others = range(self.size) if self.rank == 0 else (0,)
        now = time.monotonic()
        for other, said in zip(others, self.store.multi_get([f"{self._place}/{other}" for other in others]), strict=True):
            if said.decode() != self._heard[other][0]:
                self._heard[other] = (said.decode(), now)
        said = self._silent([*others], now) or (self._behind() if self.rank == 0 and self.wait else None)
        if said:
            self.store.set(f"{self._place}/verdict", said)
        return said

    def _silent(self, others: list[int], now: float) -> str | None:
        most = min(self._silence, self.wait or SILENCE)
        for other in others:
            word, heard = self._heard[other]
            if word != ENDED and other != self.rank and now - heard > most:
                return f"Process {other} of {self.size} died or was stopped: it has given no sign for {now - heard:.0f} s"
        return None

    def _behind(self) -> str | None:
        """Who has not come to where another has waited too long."""
        alive = {other: Sign(*json.loads(word)) for other, (word, _) in self._heard.items() if word not in ("", ENDED)}
        furthest = max((sign.met for sign in alive.values()), default=0)
        late = [other for other, sign in alive.items() if sign.met < furthest]
        waited = max((sign.inside for sign in alive.values() if sign.met == furthest), default=0.0)
        if not late:  # in one pass: who is in no exchange while others are
            waited = max((sign.still for sign in alive.values()), default=0.0)
            late = [other for other, sign in alive.items() if not sign.still]
        late = [other for other in late if self.wait and _longest(alive[other], waited) > self.wait]
        late = [other for other in late if not alive[other].still] or late  # not who waits for one of the others
        if not late:
            return None
        return f"Process {late[0]} of {self.size} hangs: the others have waited {min(waited, alive[late[0]].free):.0f} s for it"

    def _ends(self, said: str) -> None:
        """Give the training thread a moment to say so itself; it may be inside a kernel that never returns."""
        self.verdict = _sentence(said)
        self._known.set()
        if not self._over.wait(GRACE):
            note(f"videodit: {self.verdict}")
            os._exit(LOST)


def cut(error: RuntimeError) -> bool:
    """Whether it is what gloo or NCCL say of a connection, not a mistake of this process's."""
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def _longest(late: Sign, waited: float) -> float:
    """Seconds of waiting that count: all while it does nothing, of those in which it works few."""
    waited = min(waited, late.free)
    return max(min(waited, late.idle), waited / SLOW)


def _sentence(said: str) -> str:
    return f"{said}. The last checkpoint is good, and the same command goes on from it."
