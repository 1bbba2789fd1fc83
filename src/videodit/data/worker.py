"""The process that decodes what strangers made: it may die, hang or eat memory, and its parent goes on and knows why.

Frames come back in memory that both share (`rooms`), so that nothing is copied; a request is one message, an answer one or more.
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
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from videodit.data.rooms import Room, Rooms

SECONDS = 600.0  # of work on one file
MEMORY = 6 << 30  # bytes of address space that decoding may take
ROOM = 8 << 30  # bytes of frames that are kept at once
PIECE = 64 << 20  # bytes of frames that come at a time where they are read one by one
_LONGEST = 1 << 16  # bytes of a message


class Died(Exception):
    """Why the process gave no answer."""


class Faulty(Died):
    """What it answered that a file's fault is; it is well itself."""


class Worker:
    """The parent's side of one process."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        here = str(Path(__file__).parents[2])
        paths = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"PYTHONPATH": paths, "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-P", "-m", "videodit.data.worker", str(its.fileno())]
        nothing = subprocess.DEVNULL
        self.process = subprocess.Popen(
            command, env=environment, pass_fds=[its.fileno()], stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True
        )
        its.close()
        self.socket, self.rooms = mine, Rooms()

    def ask(self, request: dict[str, Any], seconds: float) -> Iterator[tuple[dict[str, Any], np.ndarray | None]]:
        """The answers to a request; all waits together take so many seconds at most."""
        spent = 0.0
        room = self._send(request)
        while True:
            start = time.monotonic()
            answer = self._answer(seconds - spent, seconds)
            spent += time.monotonic() - start
            if "fault" in answer:
                raise Faulty(answer["fault"])
            filled = room
            if "shape" in answer:
                room = self._send({"more": True})  # the next piece is made while this one is used
            yield answer, self._filled(filled, tuple(answer["shape"])) if "shape" in answer else None
            if answer.get("done"):
                return self.rooms.give_back(room)

    def _send(self, message: dict[str, Any]) -> Room:
        """With a room to be filled."""
        room = self.rooms.take()
        try:
            socket.send_fds(self.socket, [json.dumps(message).encode()], [room.handle])
        except OSError:
            raise Died(self._ending()) from None
        return room

    def _filled(self, room: Room, shape: tuple[int, ...]) -> np.ndarray:
        try:
            return self.rooms.seen(room, shape)
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
        return json.loads(text)

    def _ending(self) -> str:
        try:
            status = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return "its decoder gives no sign"
        what = f"of {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        return f"its decoder died {what}"

    def end(self) -> None:
        if self.owner == os.getpid():
            self.process.kill()
            self.process.wait()
        self.socket.close()


_IDLE: list[Worker] = []


@atexit.register
def _rest() -> None:
    """What waits for more files ends with who asks."""
    while _IDLE:
        _IDLE.pop().end()


def asked(request: dict[str, Any], seconds: float | None = None) -> Iterator[tuple[dict[str, Any], np.ndarray | None]]:
    """Answers of a process that has nothing else to do; one that failed is not used again."""
    seconds = SECONDS if seconds is None else seconds
    while _IDLE and (worker := _IDLE.pop()):
        if worker.owner == os.getpid() and worker.process.poll() is None:
            break
        worker.end()
    else:
        worker = Worker()
    whole = False
    try:
        yield from worker.ask({**request, "seconds": seconds}, seconds)
        whole = True
    except Faulty:
        whole = True
        raise
    finally:
        if whole:
            _IDLE.append(worker)
        else:
            worker.end()


# --- In the process ---


class Channel:
    """The process's side: messages, and the room that came with the last one."""

    def __init__(self, handle: int) -> None:
        self.socket = socket.socket(fileno=handle)
        self.room = os.memfd_create("room")

    def message(self) -> dict[str, Any] | None:
        """The next one; None: whoever asked is gone."""
        text, handles, _, _ = socket.recv_fds(self.socket, _LONGEST, 1)
        for handle in handles:
            os.dup2(handle, self.room)
            os.close(handle)
            os.lseek(self.room, 0, os.SEEK_SET)
        return json.loads(text) if text else None

    def tell(self, message: dict[str, Any]) -> None:
        self.socket.send(json.dumps(message).encode())


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
            return channel.tell({"note": file.note()[:30_000], "done": True})
        count = len(file.probe.shown)
        told = {"fps": file.probe.fps, "frames": count, "size": file.probe.size, "kind": file.probe.kind}
        channel.tell({**told, "done": request["what"] == "probe"})
        if request["what"] == "frames":
            stop = count if request.get("stop") is None else min(request["stop"], count)
            _frames(channel, file.frames(request.get("start", 0), stop), request)
            channel.tell({"done": True})
    finally:
        file.close()


def _frames(channel: Channel, frames: Iterator[np.ndarray], request: dict[str, Any]) -> None:
    shape, count = (), 0
    for frame in frames:
        rest = np.ascontiguousarray(frame).data.cast("B")
        if (count + 1) * len(rest) > ROOM:
            raise MemoryError
        while rest:
            rest = rest[os.write(channel.room, rest) :]
        shape, count = frame.shape, count + 1
        if request.get("piece") and (count + 1) * frame.nbytes > request["piece"]:
            _hand(channel, (count, *shape), request["seconds"])
            count = 0
    if count:
        _hand(channel, (count, *shape), request["seconds"])


def _hand(channel: Channel, shape: tuple[int, ...], seconds: float) -> None:
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
    _serve(Channel(int(sys.argv[1])))
