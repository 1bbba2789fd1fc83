"""Files made to harm: broken ones are all named, and those that point elsewhere lead nowhere."""

from __future__ import annotations

import io
import socket
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest

import films
from videodit.data import sources, video
from videodit.data.sources import Shards
from videodit.data.video import Unreadable
from videodit.shapes import UserError

FRAMES = films.numbered(30)
PLAIN = (".mp4", ".mkv", ".webm", ".avi", ".gif")
CUT = {"part.mp4": [(400, 280)], "late.mp4": [(200, -1), (600, 480)], "parts.mp4": [(200, 280), (200, 760)]}
SECONDS = 20.0  # which nothing here may need


def announced(path: Path) -> tuple[int | None, float | None]:
    """A container's own count, and how many frames its own duration holds, as plain PyAV reads them.

    Of a film that is cut it knows the stored ones and the length of pauses, of one in fragments those of the head.
    """
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        seconds = float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / 1e6
        late = max(0.0, float((stream.start_time or 0) * stream.time_base)) if path.name.endswith("late.mp4") else 0.0
        count = None if path.name.endswith((*CUT, "fragments.mp4")) else stream.frames or None
        return count, (seconds - late) * float(stream.average_rate or films.RATE) or None


def made(folder: Path) -> list[Path]:
    """One film of each kind."""
    paths = [films.film(folder / f"a{suffix}", FRAMES, gop=8) for suffix in PLAIN]
    film = paths[0].read_bytes()
    for name, edits in CUT.items():
        paths.append(folder / name)
        paths[-1].write_bytes(films.edited(film, edits))
    fragments = films.film(folder / "fragments.mp4", FRAMES, gop=8, container={"movflags": "frag_keyframe"})
    return [*paths, fragments, films.sounding(folder / "sound.avi", FRAMES, {}, sound=1.2)]


def read_all(folder: Path, count: int, seed: int) -> dict[str, int]:
    """What became of so many mutated films."""
    rng, found = np.random.default_rng(seed), dict.fromkeys(("whole", "named", "died", "untold", "wrong with a digest"), 0)
    kinds = made(folder)
    whole, right = [path.read_bytes() for path in kinds], [video.read(path)[0] for path in kinds]
    for number in range(count):
        kind = number % len(kinds)
        path = folder / f"m{number}-{kinds[kind].name}"
        path.write_bytes(films.mutated(whole[kind], rng))
        try:
            frames, _ = video.read(path, seconds=SECONDS)
        except Unreadable as error:
            found["named"] += 1
            found["died"] += any(words in error.reason for words in ("died", "gives no sign", "longer than"))
            continue
        found["whole"] += 1
        said, lasting = announced(path)
        same = path.read_bytes() == whole[kind]
        counted = (said is None or said == len(frames)) and (lasting is None or abs(lasting - len(frames)) < 2)
        ended = path.suffix != ".gif" or (b";" in path.read_bytes()[-400:])
        found["untold"] += not (counted and ended)
        found["wrong with a digest"] += same and not np.array_equal(frames, right[kind])
        path.unlink()
    return found


def test_mutated_films(tmp_path: Path) -> None:
    found = read_all(tmp_path, 40, seed=1)
    assert (
        found["untold"] == found["wrong with a digest"] == found["died"] == 0
        and found["named"] > 20
        and found["whole"] + found["named"] == 40
    )


@pytest.mark.slow
def test_many_mutated_films(tmp_path: Path) -> None:
    found = read_all(tmp_path, 500, seed=2)
    print(found)
    assert found["untold"] == found["wrong with a digest"] == found["died"] == 0 and found["whole"] + found["named"] == 500


# --- Files that point elsewhere ---


class Canary:
    """Counts who calls."""

    def __init__(self) -> None:
        self.socket, self.calls = socket.create_server(("127.0.0.1", 0)), 0
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        while True:
            try:
                caller, _ = self.socket.accept()
            except OSError:
                return
            self.calls += 1
            caller.close()


@pytest.fixture
def canary() -> Iterator[Canary]:
    made = Canary()
    yield made
    made.socket.close()


def boxed(film: bytes, address: bytes) -> bytes:
    """An .mp4 whose frames are said to lie elsewhere: its data reference is an address."""
    entry = film.index(b"url \0\0\0\1") - 4
    more = address + b"\0"
    made = bytearray(film[: entry + 12] + more + film[entry + 12 :])
    made[entry + 11] = 0  # not in this file
    for name in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref", b"url "):
        at = made.index(name, max(0, film.index(b"moov") - 4)) - 4
        made[at : at + 4] = (int.from_bytes(made[at : at + 4], "big") + len(more)).to_bytes(4, "big")
    return bytes(made)


def texts(port: int, secret: Path) -> dict[str, bytes]:
    """Playlists and the like, by what they are, each for an address and for a file."""
    found = {}
    for name, url in (("net", f"http://127.0.0.1:{port}/a.mp4"), ("file", f"{secret}"), ("url", f"file://{secret}")):
        found |= {
            f"{name}-hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n",
            f"{name}-key": f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n',
            f"{name}-concat": f"ffconcat version 1.0\nfile '{url}'\n",
            f"{name}-dash": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
            f'<Representation id="1"><BaseURL>{url}</BaseURL></Representation></AdaptationSet></Period></MPD>',
            f"{name}-sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\na=control:{url}\nm=video {port} RTP/AVP 96\n",
            f"{name}-svg": f'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="{url}"/></svg>',
            f"{name}-pls": f"[playlist]\nFile1={url}\n",
        }
    return {name: text.encode() for name, text in found.items()}


def test_playlists_lead_nowhere(tmp_path: Path, canary: Canary) -> None:
    """FFmpeg follows the first of them where its protocols are not narrowed; ours follows none, whatever they are called."""
    secret = films.film(tmp_path / "secret.mp4", FRAMES)
    (tmp_path / "in").mkdir()
    tried = {f"{i}-{name}{suffix}": text for i, suffix in enumerate((".m3u8", ".mp4")) for name, text in texts(canary.port, secret).items()}
    mp4, gif, avi = (films.film(tmp_path / f"b{suffix}", FRAMES[:4]).read_bytes() for suffix in (".mp4", ".gif", ".avi"))
    playlist = texts(canary.port, secret)["net-hls"]
    tried |= {
        f"head{i}.mp4": head + b"\n" + playlist
        for i, head in enumerate((mp4[:32], gif[:13], avi[:12], b"\x1aE\xdf\xa3", b"\x89PNG\r\n\x1a\n"))
    }
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../../etc/x.m3u8", playlist)
    tried["zip.mp4"] = archive.getvalue()
    for name, content in tried.items():
        (tmp_path / "in" / name).write_bytes(content)
        with pytest.raises(Unreadable):
            video.read(tmp_path / "in" / name, seconds=SECONDS)
        with pytest.raises(Unreadable):
            video.read_note(tmp_path / "in" / name)
    for name in (
        f"http://127.0.0.1:{canary.port}/a.mp4",
        f"concat:{secret}|{secret}",
        f"file:{secret}",
        f"subfile,,start,0,end,9,,:{secret}",
    ):
        with pytest.raises(Unreadable, match="is not there"):
            video.read(name)
    elsewhere = [f"http://127.0.0.1:{canary.port}/a.mp4".encode(), str(secret).encode()]
    for i, address in enumerate(elsewhere):
        (tmp_path / f"in/ref{i}.mp4").write_bytes(boxed(mp4, address))
        with suppress(Unreadable):  # the frames are its own, or none
            assert len(video.read(tmp_path / f"in/ref{i}.mp4")[0]) == 4
    assert len(tried) + 4 + len(elsewhere) >= 50 and canary.calls == 0
    with pytest.raises(av.error.FFmpegError):
        av.open(str(tmp_path / "in" / "0-net-hls.m3u8"), options={"protocol_whitelist": "file,http,tcp"})
    assert canary.calls > 0


def test_shards_lead_nowhere(tmp_path: Path) -> None:
    """Names of members say what belongs together and nothing else; links are left out; what is not whole is named."""
    secret = films.film(tmp_path / "secret.mp4", FRAMES)
    film = films.film(tmp_path / "b.mp4", FRAMES[:4]).read_bytes()
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / "a.tar", "w") as file:
        for name, content in (("../../up.mp4", film), ("/etc/root.mp4", film), ("list.mp4", b"#EXTM3U\n" + str(secret).encode())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
        for kind, name in ((tarfile.SYMTYPE, "soft.mp4"), (tarfile.LNKTYPE, "hard.mp4"), (tarfile.FIFOTYPE, "pipe.mp4")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(secret)
            file.addfile(member)
    found = sources.items(Shards(path=str(tmp_path / "in")))
    assert len(found) == 3
    read = {}
    for item in found:
        try:
            read[item.path.name] = len(video.read(item)[0])
        except Unreadable:
            read[item.path.name] = 0
    assert read == {"up.mp4": 4, "root.mp4": 4, "list.mp4": 0}
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.tar", "b.mp4", "in", "secret.mp4"]
    cut = tmp_path / "in" / "a.tar"
    cut.write_bytes(cut.read_bytes()[: len(film)])
    with pytest.raises(UserError, match=r"a\.tar cannot be used \(it cannot be read as a shard"):
        sources.items(Shards(path=str(cut)))
