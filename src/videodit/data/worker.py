"""The process that decodes what strangers made: it may die, hang or eat memory, and its parent goes on and knows why.

Frames come back in pieces, in two rooms that both share (`rooms`): one is filled while the other is emptied. A request is one message, an
answer one or more.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from videodit.data.rooms import Room

SECONDS = 600.0  # of work on one file
MEMORY = 6 << 30  # bytes of address space that decoding may take
PIECE = 8 << 20  # bytes of frames that come at a time
KEPT = 64 << 20  # bytes of a room that a process may keep while it rests; a frame of 3840x2160 takes 25 MB
_LONGEST = 1 << 18  # bytes of a message
NOTE = 1 << 16  # bytes of a text that was kept in a file; quotes and line ends take two in a message, control characters six


class Died(Exception):
    """Why the process gave no answer."""


class Faulty(Died):
    """What it answered that a file's fault is; it is well itself."""


class Worker:
    """The parent's side of one process."""

    def __init__(self) -> None:
        self.owner = _me()
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket, self.rooms = mine, [Room(), Room()]
        shared = [its.fileno(), *(room.handle for room in self.rooms)]
        here = str(Path(__file__).parents[2])
        paths = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"PYTHONPATH": paths, "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-P", "-m", "videodit.data.worker", *map(str, shared)]
        nothing = subprocess.DEVNULL
        self.process = subprocess.Popen(
            command, env=environment, pass_fds=shared, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True
        )
        its.close()

    def ask(self, request: dict[str, Any], seconds: float) -> Iterator[tuple[dict[str, Any], np.ndarray | None]]:
        """The answers to a request, each with frames that stand there until the next; all waits together take so many seconds at most."""
        spent, rooms = 0.0, cycle(self.rooms)
        self._send(request)
        while True:
            start = time.monotonic()
            answer = self._answer(seconds - spent, seconds)
            spent += time.monotonic() - start
            if "fault" in answer:
                raise Faulty(answer["fault"])
            if "shape" in answer:
                self._send({"more": True})  # the next piece is made while this one is used
            yield answer, self._filled(next(rooms), tuple(answer["shape"])) if "shape" in answer else None
            if answer.get("done"):
                return

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self.socket.send(json.dumps(message).encode())
        except OSError:
            raise Died(self._ending()) from None

    def _filled(self, room: Room, shape: tuple[int, ...]) -> np.ndarray:
        try:
            return room.seen(shape)
        except (ValueError, OverflowError):
            raise Died("its decoder announced more than it gave") from None

    def _answer(self, left: float, seconds: float) -> dict[str, Any]:
        self.socket.settimeout(max(left, 0.001))
        try:
            text = self.socket.recv(_LONGEST)
        except TimeoutError:
            raise Died(f"it takes longer than {seconds:g} s") from None
        except OSError:
            text = b""
        if not text:
            raise Died(self._ending())
        try:
            return json.loads(text)
        except ValueError:
            raise Died("its decoder said something else than it was asked") from None

    def _ending(self) -> str:
        try:
            status = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return "its decoder gives no sign"
        what = f"of {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        return f"its decoder died {what}"

    @property
    def large(self) -> bool:
        """Whether it keeps more memory than most files need."""
        return any(os.fstat(room.handle).st_size > KEPT for room in self.rooms)

    @property
    def lives(self) -> bool:
        return self.owner[0] == os.getpid() and self.process.poll() is None

    def end(self) -> None:
        self.rooms = []
        if self.owner[0] == os.getpid():
            self.process.kill()
            self.process.wait()
        self.socket.close()


_IDLE: list[Worker] = []


def _me() -> tuple[int, int]:
    """The system ends a worker with the thread that started it, so nobody else is given it."""
    return os.getpid(), threading.get_ident()


def _rested() -> Worker | None:
    """One that has nothing to do; those that died meanwhile go."""
    for worker in list(_IDLE):
        if worker.lives and worker.owner != _me():
            continue
        try:
            _IDLE.remove(worker)
        except ValueError:  # another thread was faster
            continue
        if worker.lives:
            return worker
        worker.end()
    return None


@atexit.register
def _rest() -> None:
    """What waits for more files ends with who asks."""
    while _IDLE:
        _IDLE.pop().end()


def asked(request: dict[str, Any], seconds: float | None = None) -> Iterator[tuple[dict[str, Any], np.ndarray | None]]:
    """Answers of a process that has nothing else to do; one that failed is not used again."""
    seconds = SECONDS if seconds is None else seconds
    worker = _rested() or Worker()
    whole = False
    try:
        yield from worker.ask({**request, "seconds": seconds, "piece": PIECE}, seconds)
        whole = True
    except Faulty:
        whole = True
        raise
    finally:
        if whole and not worker.large:
            _IDLE.append(worker)
        else:
            worker.end()


# --- In the process ---


class Channel:
    """The process's side: messages, and the rooms."""

    def __init__(self, handle: int, rooms: list[int]) -> None:
        self.socket, self.rooms = socket.socket(fileno=handle), [Room(room) for room in rooms]

    def message(self) -> dict[str, Any] | None:
        """The next one; None: whoever asked is gone."""
        text = self.socket.recv(_LONGEST)
        return json.loads(text) if text else None

    def tell(self, message: dict[str, Any]) -> None:
        self.socket.send(json.dumps(message, ensure_ascii=False).encode())


def _serve(channel: Channel) -> None:
    from videodit.data import reader

    reader.listen()
    while request := channel.message():
        try:
            _answered(channel, request, reader.Reader)
        except reader.Fault as fault:
            channel.tell({"fault": str(fault)[:2000]})
        except MemoryError:
            channel.tell({"fault": "it needs more memory than one file may have"})
        except Exception as error:
            channel.tell({"fault": f"{type(error).__name__}: {error}"[:2000]})
        signal.setitimer(signal.ITIMER_REAL, 0)


def _answered(channel: Channel, request: dict[str, Any], reader: Any) -> None:
    signal.setitimer(signal.ITIMER_REAL, request["seconds"] + 5)  # for a process whose parent is gone
    file = reader(request["path"], request["at"], request["size"])
    try:
        if request["what"] == "note":
            return channel.tell({"note": file.note().encode()[:NOTE].decode(errors="ignore"), "done": True})
        count = len(file.probe.shown)
        told = {"fps": file.probe.fps, "frames": count, "size": file.probe.size, "kind": file.probe.kind}
        channel.tell({**told, "done": request["what"] == "probe"})
        if request["what"] == "frames":
            stop = count if request.get("stop") is None else min(request["stop"], count)
            _frames(channel, file.frames(request.get("start", 0), stop), request["seconds"], request["piece"])
            channel.tell({"done": True})
    finally:
        file.close()


def _frames(channel: Channel, frames: Iterator[np.ndarray], seconds: float, piece: int) -> None:
    shape, count, rooms = (), 0, cycle(channel.rooms)
    room = next(rooms)
    for frame in frames:
        room.put(frame, count * frame.nbytes, piece)
        shape, count = frame.shape, count + 1
        if (count + 1) * frame.nbytes > piece:
            _hand(channel, (count, *shape), seconds)
            room, count = next(rooms), 0
    if count:
        _hand(channel, (count, *shape), seconds)


def _hand(channel: Channel, shape: tuple[int, ...], seconds: float) -> None:
    """Tell what is in a room, and wait until the other may be filled."""
    channel.tell({"shape": shape})
    signal.setitimer(signal.ITIMER_REAL, 0)
    if not channel.message():
        sys.exit()
    signal.setitimer(signal.ITIMER_REAL, seconds + 5)


def _bounded() -> None:
    """Little memory, no core files, no new files on disk, and an end with the parent's."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    _bounded()
    _serve(Channel(int(sys.argv[1]), [int(handle) for handle in sys.argv[2:]]))
