"""Video files by their containers: whether a file is whole by its own sizes, and what its index lists."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

_CHUNK_HEAD = 8
"""Bytes before what an AVI's chunk holds: what it is, and its size."""
_MP4_BOXES = frozenset(b"ftyp moov mdat free skip wide moof mfra sidx styp uuid meta pnot udta emsg pdin".split())
_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067
_PARENTS = {_SEGMENT, 0x1F43B675, 0xA0}
"""Segment, Cluster, BlockGroup."""
_TRACKS, _TRACK_ENTRY, _TRACK_NUMBER, _BLOCKS, _BLOCK_HEAD = 0x1654AE6B, 0xAE, 0xD7, {0xA1, 0xA3}, 3
_NUMBERS = {0xE7, 0xAB, 0xA7, 0x9B, 0xFB, 0xFA}
_PARTS = {_TRACKS, *_BLOCKS, *_NUMBERS} | {
    0x114D9B74, 0x1549A966, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367, 0xEC, 0xBF, 0x5854, 0xA4, 0x75A1, 0x75A2, 0x8E, 0xC8, 0xFD,
}  # fmt: skip
"""What else these hold, by RFC 9559, some of them numbers; another ID is damage, behind which a decoder may pass over much."""


def missing_bytes(path: Path) -> int:
    """How many bytes of an AVI, MP4/MOV or Matroska/WebM file lie past its end; 0 if whole, or of another kind.

    Decoders take a file that was cut off for a shorter video.
    """
    length = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"AVI ":
            end = _end_of_riff(file, length)
        elif head[4:8] in _MP4_BOXES:
            end = _end_of_boxes(file, length)
        elif head[:4] == _EBML.to_bytes(4, "big"):
            end = _end_of_segment(file)
        else:
            end = 0
    return max(0, end - length)


class Blocks(NamedTuple):
    """What a walk through a Matroska/WebM file finds: where the frames of each track begin, and where the walk stops making
    sense, if anywhere.
    """

    of_track: dict[int, list[int]]
    misplaced: int | None


def matroska_blocks(path: Path) -> Blocks | None:
    """Walks through the elements of a Matroska/WebM file, end to end; None for files of another kind.

    Where they stop making sense a decoder looks for the next one it knows, or takes it for the end.
    """
    numbers: set[int] = set()
    tracks: dict[int, list[int]] = {}
    with open(path, "rb") as file:
        if file.read(4) != _EBML.to_bytes(4, "big"):
            return None
        end = _end_of_segment(file) or path.stat().st_size
        file.seek(4)
        file.seek(_variable_size(file) or 0, 1)
        misplaced = None
        while (place := file.tell()) < end:
            kind, size = _element_id(file), _variable_size(file)
            if kind in _PARENTS:
                continue  # what is in it comes next; the size of some is unknown
            begin = file.tell()
            if kind not in _PARTS or size is None or begin + size > end or (kind in _NUMBERS and size > 8):
                misplaced = place
                break
            if kind == _TRACKS:
                numbers |= _track_numbers(file, begin + size)
            elif kind in _BLOCKS:
                track = _variable_size(file) or 0
                if file.tell() + _BLOCK_HEAD < begin + size:  # one without a frame is passed over
                    tracks.setdefault(track, []).append(begin)
            file.seek(begin + size)
    strangers = [place for track, places in tracks.items() if track not in numbers for place in places]
    return Blocks(tracks, min(strangers, default=misplaced))


def listed_places(path: Path, stream: int) -> list[int]:
    """Where an AVI's index (`idx1`) says that a stream's frames begin, in bytes; [] of other files or without one.

    Chunks of no bytes, which stand for a frame shown again, are left out, as decoders do.
    """
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"AVI ":
            return []
        frames = 0
        while len(head := file.read(8)) == 8:
            begin, size = file.tell(), int.from_bytes(head[4:], "little")
            if head[:4] == b"idx1":
                return _places(file.read(min(size, path.stat().st_size)), b"%02d" % stream, frames)
            if head[:4] == b"LIST" and file.read(4) == b"movi":
                frames = begin
            file.seek(begin + size + size % 2)
    return []


def stored_chunks(path: Path, stream: int) -> int:
    """How many chunks of a stream's frames an AVI holds, those of no bytes included, by walking through them."""
    names = tuple(b"%02d" % stream + kind for kind in (b"dc", b"db", b"__", b"iv"))
    count = 0
    with open(path, "rb") as file:
        while len(head := file.read(12)) >= 8:
            inside = head[:4] in (b"RIFF", b"LIST") and head[8:] in (b"AVI ", b"AVIX", b"movi", b"rec ")
            size = int.from_bytes(head[4:8], "little")
            file.seek((size + size % 2 if not inside else 4) + 8 - len(head), 1)
            count += head[:4] in names
    return count


def _places(index: bytes, stream: bytes, frames: int) -> list[int]:
    """Offsets are of the chunks, counted from the list of frames, or from the file's begin."""
    entries = list(struct.iter_unpack("<4sIII", index[: len(index) // 16 * 16]))
    base = frames if entries and entries[0][2] < frames else 0
    return [
        base + at + _CHUNK_HEAD for name, _, at, size in entries if name[:2] == stream and name[2:] != b"pc" and size
    ]


def _end_of_riff(file: BinaryIO, length: int) -> int:
    """AVI: RIFF chunks end to end, the first of type `AVI `, the others `AVIX`."""
    end = 0
    while end < length:
        file.seek(end)
        head = file.read(12)
        if len(head) < 12 or head[:4] != b"RIFF" or head[8:] not in (b"AVI ", b"AVIX"):
            break
        end += 8 + struct.unpack("<I", head[4:8])[0]
    return end


def _end_of_boxes(file: BinaryIO, length: int) -> int:
    """MP4, MOV: boxes end to end; a size of 1 means that 64 bits follow, 0 that the box is the last."""
    end = 0
    while end < length:
        file.seek(end)
        head = file.read(16)
        if len(head) < 8 or head[4:8] not in _MP4_BOXES:
            break
        size = struct.unpack(">I", head[:4])[0]
        if size == 1 and len(head) == 16:
            size = struct.unpack(">Q", head[8:])[0]
        if size < 8:
            break
        end += size
    return end


def _end_of_segment(file: BinaryIO) -> int:
    """Matroska: the EBML header, then one segment; a size of all ones means unknown."""
    file.seek(4)
    size = _variable_size(file)
    if size is None:
        return 0
    file.seek(size, 1)
    if file.read(4) != _SEGMENT.to_bytes(4, "big"):
        return 0
    size = _variable_size(file)
    return 0 if size is None else file.tell() + size


def _track_numbers(file: BinaryIO, end: int) -> set[int]:
    """Those of the entries up to `end`."""
    numbers = set()
    while file.tell() < end:
        kind, size = _element_id(file), _variable_size(file)
        if kind == _TRACK_ENTRY:
            continue
        if kind is None or size is None:
            break
        if kind == _TRACK_NUMBER:
            numbers.add(int.from_bytes(file.read(size), "big"))
        else:
            file.seek(size, 1)
    return numbers


def _element_id(file: BinaryIO) -> int | None:
    first = file.read(1)
    if not first or first[0] < 0x10:
        return None
    return int.from_bytes(first + file.read(8 - first[0].bit_length()), "big")


def _variable_size(file: BinaryIO) -> int | None:
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] - (1 << (7 - more))]) + file.read(more), "big")
    return None if value == (1 << 7 * (more + 1)) - 1 else value
