"""What a file is by its first bytes, and whether it ends where it says: only what is listed here is opened, whatever its name is.

A playlist, a script or a description of a session is text and can make FFmpeg open other files or the network; none begins like these.
"""

from __future__ import annotations

from typing import BinaryIO

# name -> FFmpeg's demuxer, or None for what Pillow reads
FORMATS: dict[str, str | None] = {
    "mp4": "mov",
    "matroska": "matroska",
    "avi": "avi",
    "gif": "gif",
    "png": None,
    "webp": None,
    "jpeg": None,
    "bmp": None,
}
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
# Decoders that may run on a stranger's bytes.
_CODECS = """h264 hevc av1 libdav1d vp8 vp9 libvpx libvpx-vp9 mpeg1video mpeg2video mpeg4 msmpeg4 msmpeg4v2 h263 mjpeg prores dnxhd ffv1
huffyuv ffvhuff utvideo qtrle rawvideo png gif theora flv1 wmv1 wmv2 cinepak svq1 svq3 dvvideo magicyuv cfhd"""
CODECS = _CODECS.split()


def kind(head: bytes) -> str | None:
    """The name of a container, from its first 16 bytes; None for whatever else."""
    if head[:4] == b"RIFF":
        return {b"AVI ": "avi", b"WEBP": "webp"}.get(head[8:12])
    starts = {b"\x1aE\xdf\xa3": "matroska", b"GIF87a": "gif", b"GIF89a": "gif", b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}
    for start, name in starts.items():
        if head.startswith(start):
            return name
    if head[4:8] in _BOXES:
        return "mp4"
    return "bmp" if head[:2] == b"BM" and head[6:10] == bytes(4) else None


def unended(file: BinaryIO, name: str) -> str:
    """What a container's own end mark or length contradicts; empty where all is well."""
    whole = file.seek(0, 2)
    file.seek(0)
    try:
        return {"gif": _gif, "matroska": _matroska, "avi": _riff, "webp": _riff, "mp4": _boxes}.get(name, lambda *_: "")(file, whole)
    except (IndexError, ValueError):
        return "it ends within its head"


def _gif(file: BinaryIO, whole: int) -> str:
    """Block by block to the trailer, which is the only mark of a .gif's end."""
    data = file.read()
    at = 13 + (3 * 2 ** (data[10] % 8 + 1) if data[10] & 128 else 0)
    while at < whole:
        mark = data[at]
        if mark == 0x3B:
            return ""
        if mark == 0x21:
            at += 2
        elif mark == 0x2C:
            at += 11 + (3 * 2 ** (data[at + 9] % 8 + 1) if data[at + 9] & 128 else 0)
        else:
            return "what stands between its pictures is no block of a .gif"
        while (size := data[at]) > 0:
            at += size + 1
        at += 1
    return "it has no end mark"


def _matroska(file: BinaryIO, whole: int) -> str:
    """Elements on the top level: the segment may be of unknown length, as live ones are, but not longer than the file."""
    at = 0
    while at < whole:
        file.seek(at)
        head = file.read(12)
        width = 9 - head[0].bit_length()
        size_width = 9 - head[width].bit_length()
        raw = head[width : width + size_width]
        size = int.from_bytes(raw, "big") & ((1 << 7 * size_width) - 1)
        if size == (1 << 7 * size_width) - 1:
            return ""
        at += width + size_width + size
    return "" if at == whole else f"it says {at} bytes and has {whole}"


def _riff(file: BinaryIO, whole: int) -> str:
    """Chunks on the top level: large .avi files have several."""
    at = 0
    while at + 8 <= whole:
        file.seek(at)
        head = file.read(8)
        if head[:4] != b"RIFF":
            return "" if at else "it is no RIFF"
        at += 8 + int.from_bytes(head[4:], "little")
        at += at % 2
    return "" if at <= whole + 1 else f"it says {at} bytes and has {whole}"


def _boxes(file: BinaryIO, whole: int) -> str:
    """Boxes on the top level: each as long as it says."""
    at = 0
    while at + 8 <= whole:
        file.seek(at)
        head = file.read(16)
        size = int.from_bytes(head[:4], "big")
        if size == 0:  # to the end
            return ""
        at += max(int.from_bytes(head[8:16], "big"), 16) if size == 1 else max(size, 8)
    return "" if at <= whole else f"it says {at} bytes and has {whole}"
