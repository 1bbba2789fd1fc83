"""WebDataset's tar shards, on this machine or where fsspec reaches: members of one name are one clip, and nothing is unpacked.

A shard's heads are read once, one after another; a member's bytes when they are needed. Names in a shard only say what belongs together:
no member is written anywhere, and links are left out.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from typing import Any

from videodit.data.item import HEAD, PICTURES, VIDEOS, Inside, Item
from videodit.shapes import UserError

WORDS = 1 << 20  # bytes of a member with words, at most
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def members(path: str) -> Iterator[Item]:
    """The clips of all shards that a path, a pattern or an address names; a shard that cannot be read is an item that says so."""
    for shard in there(path):
        try:
            with _opened(shard) as file:
                yield from _shard(shard, file)
        except (tarfile.TarError, OSError, EOFError) as error:
            yield Item(Path(shard), wrong=f"it cannot be read as a shard: {error}")


def there(path: str) -> list[str]:
    """The shards of a name, of which there is at least one."""
    if "://" in path and Path(path).suffix.lower() in (*VIDEOS, *PICTURES, ".jsonl", ".csv", ".parquet"):
        raise UserError(f"{path} is the address of one file or list, and only shards (.tar) may be elsewhere: fetch it, or pack shards.")
    if not (found := listed(path)):
        raise UserError(f"There is no shard {path}: name .tar files, as in folder/part-{{000..009}}.tar or s3://bucket/part-*.tar.")
    return found


def packed(source: str) -> bool:
    """Whether a name is of shards, not of a folder or a list."""
    return "://" in source or source.endswith(".tar")


def listed(path: str) -> list[str]:
    """Shards by name: {000..009} counts, * is any text, a folder is all its .tar files."""
    if counted := _RANGE.search(path):
        first, last = counted.groups()
        numbers = (f"{i:0{len(first)}d}" for i in range(int(first), int(last) + 1))
        found = {name: listed(name) for name in (path[: counted.start()] + i + path[counted.end() :] for i in numbers)}
        if any(found.values()) and (gone := [name for name, there in found.items() if not there]):
            more = f" and {len(gone) - 1} more of {path}" if len(gone) > 1 else ""
            raise UserError(f"There is no shard {gone[0]}{more}: bring what is missing, or name those that are there.")
        return [shard for there in found.values() for shard in there]
    if "://" in path:
        system, inside = _system(path)
        try:
            with _asking():
                names = system.glob(inside if "*" in inside or inside.endswith(".tar") else f"{inside.rstrip('/')}/*.tar")
        except OSError as error:
            raise _away(path, error) from None
        return sorted(system.unstrip_protocol(name) for name in names)
    place = Path(path)
    if place.is_file():  # whatever brackets are in its name
        return [path]
    return sorted(map(str, place.glob("*.tar"))) if place.is_dir() else sorted(name for name in glob(path) if Path(name).is_file())


@contextmanager
def fetched(inside: Inside) -> Iterator[str]:
    """A member of a shard elsewhere, in memory under a path."""
    system, name = _system(inside.shard)
    try:
        with _asking():
            data = system.cat_file(name, start=inside.at, end=inside.at + inside.size)
    except OSError as error:
        raise _away(inside.shard, error) from None
    handle = os.memfd_create("member")
    try:
        with os.fdopen(os.dup(handle), "wb") as file:
            file.write(data)
        yield f"/proc/{os.getpid()}/fd/{handle}"
    finally:
        os.close(handle)


def _system(address: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise UserError(f"{address} is read through fsspec: pip install 'videodit[storage]'.") from None
    try:
        return url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise UserError(f"{address} cannot be reached ({error}): pip install 'videodit[storage]' reads s3://.") from None


def _away(address: str, error: OSError) -> UserError:
    return UserError(f"{address} cannot be read ({error}): see that the name is right, the storage can be reached, and you may read it.")


@contextmanager
def _asking() -> Iterator[None]:
    """What a storage's client raises is an OSError, whatever classes of its own it has."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in ("builtins", "tarfile", "videodit"):
            raise
        raise OSError(f"{type(error).__name__}: {' '.join(str(error).split())}") from error


@contextmanager
def _opened(shard: str) -> Iterator[Any]:
    if "://" in shard:
        system, name = _system(shard)
        with _asking(), system.open(name, "rb", block_size=1 << 20) as file:
            yield file
    else:
        with open(shard, "rb") as file:
            yield file


def _shard(shard: str, file: Any) -> Iterator[Item]:
    """Members that stand together and have one name up to the first dot; the suffix says what each is."""
    whole = file.seek(0, 2)
    file.seek(0)
    name, parts = "", {}
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            archive.members = []  # pyright: ignore[reportAttributeAccessIssue]  # all of which it would keep
            if not member.isreg() or member.issparse():
                continue
            if member.offset_data + member.size > whole:
                raise tarfile.ReadError(f"{member.name[:80]} goes on behind its end")
            folder, _, last = member.name.rpartition("/")
            stem, _, suffix = last.partition(".")
            if not stem:  # a hidden file, as a Mac's tar puts before each of ours
                continue
            if (key := f"{folder}/{stem}") != name:
                yield from _clips(shard, name, parts)
                name, parts = key, {}
            what = f".{suffix.lower()}"
            parts[what] = Inside(shard, member.offset_data, member.size)
            if what == ".webp":
                parts[what] = parts[what]._replace(head=_bytes(file, parts[what], HEAD))
            if what in _SAYS:
                parts[what] = _said(file, parts[what], what)
        file.seek(archive.offset)
        if file.read(2 * tarfile.BLOCKSIZE) != bytes(2 * tarfile.BLOCKSIZE):  # which tarfile takes for an end too
            raise tarfile.ReadError(f"behind {name.strip('/')[:80] or 'its beginning'} comes neither a member nor an end mark")
    yield from _clips(shard, name, parts)


_SAYS = (".txt", ".json", ".cls")


def _said(file: Any, inside: Inside, what: str) -> dict[str, Any] | str:
    """What a member with words says, or why it cannot be used."""
    if inside.size > WORDS:
        return f"a {what} of {inside.size} bytes"
    try:
        text = _bytes(file, inside, inside.size).decode("utf-8-sig")
        if what == ".json":
            found = json.loads(text)
            return {key: found[key] for key in ("caption", "label", "weight", "start", "end", "digest", "crop") if key in found}
    except (ValueError, TypeError, RecursionError):
        return f"a {what} that cannot be read"
    if what == ".cls":
        return {"label": text.strip()}
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return {"caption": lines} if lines else {}


def _bytes(file: Any, inside: Inside, most: int) -> bytes:
    """The first bytes of a member, which leaves the shard where it stands."""
    before = file.tell()
    file.seek(inside.at)
    data = file.read(min(most, inside.size))
    file.seek(before)
    return data


def _clips(shard: str, name: str, parts: dict[str, Any]) -> Iterator[Item]:
    from videodit.data.lists import item

    said: dict[str, Any] = {}
    wrong = ""
    for what in reversed(_SAYS):  # words in a .txt go before those in a .json
        if isinstance(words := parts.get(what, {}), str):
            wrong = words
        else:
            said |= words
    for what, inside in parts.items():
        if what in VIDEOS + PICTURES:
            path = f"{Path(shard).name}/{name.strip('/')}{what}"
            try:
                if wrong:
                    raise ValueError(wrong)
                yield item({**said, "path": path}, Path())._replace(inside=inside)
            except ValueError as error:
                yield Item(Path(path), inside=inside, wrong=str(error))
    if not any(what in VIDEOS + PICTURES for what in parts):
        for what in (what for what in parts if Path(what).suffix in VIDEOS + PICTURES):  # a.b.mp4 is b.mp4 of a
            path = Path(f"{Path(shard).name}/{name.strip('/')}{what}")
            yield Item(path, inside=parts[what], wrong="in shards a name ends at its first dot: name it without others")
