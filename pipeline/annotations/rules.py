"""From what a file says to tables: the rules that repair or refuse, each named and counted."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from data_manifests.card import MOST_SIDE, Card
from data_manifests.errors import InputError
from data_manifests.tables import TUBES, VIDEOS, box_column

RULES = {
    "widened-boxes": "box arrays of uint8 are widened before width is added to x (x + w would overflow)",
    "one-based-boxes": "1-based corners become 0-based: x1 = x - 1, x2 = x1 + w",
    "clipped-boxes": "boxes that reach past the frame are clipped to it",
    "identical-tubes": "tubes of one video with equal label, frames and boxes are kept, each with its own matches",
    "dropped-past-the-end": "boxes of frames past the video's last are dropped",
    "outside-the-split": "videos that neither list of the split names are left out",
}
EXAMPLES = 5
MAX_FRAMES = 10_000_000
"""A video that is longer is a mistake (four days at 30 frames/s)."""


@dataclass(frozen=True)
class Oddity:
    """How often a rule was applied, and where first."""

    rule: str
    count: int
    examples: tuple[str, ...]

    @property
    def meaning(self) -> str:
        """What the rule does, of `RULES`."""
        return RULES[self.rule]


@dataclass(frozen=True)
class Annotations:
    """The tables of a dataset (schemas in `data_manifests.tables`) and what had to be repaired."""

    videos: pa.Table
    tubes: pa.Table
    oddities: tuple[Oddity, ...]
    called: Mapping[tuple[str, int], str]
    """What the file calls a tube, by its video and its index there."""
    counted_from: int
    """The number of a video's first frame in the file."""
    lengths_are_known: bool
    """Whether the file says how many frames each video has; else `frames` in the videos' table is where its tubes end."""


@dataclass(frozen=True)
class RawTube:
    """A tube as its file has it, already 0-based: label, first frame, x1 y1 x2 y2 in pixels; and what it is called there,
    for messages, if it has a name.
    """

    label: int
    first_frame: int
    boxes: Float32[np.ndarray, "frames 4"]
    called: str = ""


@dataclass(frozen=True)
class RawVideo:
    """A video as its file has it.

    Args:
        frames: how many; None where the format does not say.
        size: width and height that the boxes were drawn in; None: as the card says, or the video's own.
        split: where the format says it itself; None: as the card's lists say.
    """

    video_id: str
    frames: int | None
    tubes: tuple[RawTube, ...]
    size: tuple[int, int] | None = None
    split: str | None = None


class OddityCounter:
    """Collects `Oddity` rows while annotations are read."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = defaultdict(list)

    def add(self, rule: str, where: str) -> None:
        """Counts one application of a rule of `RULES`."""
        self._found[rule].append(where)

    def rows(self) -> tuple[Oddity, ...]:
        """In the order of `RULES`."""
        found = ((rule, self._found.get(rule, [])) for rule in RULES)
        return tuple(Oddity(rule, len(where), tuple(sorted(where)[:EXAMPLES])) for rule, where in found if where)


def safe_video_id(video_id: str, source: str) -> str:
    """The id itself, if it is a relative path of plain parts, written in the one shortest way.

    Raises:
        InputError: it is absolute or empty, has `.`, `..`, an empty part or a backslash, or what cannot be printed.
    """
    parts = PurePosixPath(video_id).parts
    plain = parts and "/".join(parts) == video_id and "\\" not in video_id and video_id.isprintable()
    if not plain or ".." in parts or parts[0] == "/":
        raise InputError(
            f"{source}: video id {video_id!r} is refused",
            wanted="Class/name, relative and without ..",
            todo="mend that line",
        )
    return video_id


def whole_number(value: Any, what: str, where: str) -> int:
    """The number itself, if it has no fraction.

    Raises:
        InputError: it has one.
        TypeError, ValueError, OverflowError: it is no number, or not a finite one.
    """
    if float(value) != int(value):
        raise InputError(f"{where}: its {what} is no whole number", found=str(value), todo="mend that entry")
    return int(value)


def make_tables(
    raw: Iterable[RawVideo],
    card: Card,
    test_ids: set[str],
    source: str,
    oddities: OddityCounter,
    counted_from: int,
) -> Annotations:
    """Tables from raw videos, sorted by video id.

    Args:
        source: the file's name, for messages.
        counted_from: the number of a video's first frame in it, for messages.

    Raises:
        InputError: a box is empty or not finite, a tube has no frames or is not in pixels, naming video, tube and frame;
            or a video is there twice, or has a length or size that none has.
    """
    videos = sorted(raw, key=lambda video: video.video_id)
    for video, following in itertools.pairwise(videos):
        if video.video_id == following.video_id:
            raise InputError(f"{source} has video {video.video_id} twice", todo="remove one, or rename it")
    video_rows: list[dict[str, object]] = []
    tube_rows: list[tuple[str, int, RawTube]] = []
    called: dict[tuple[str, int], str] = {}
    for video in videos:
        _check_length_and_size(video, source)
        size = video.size or card.box_size
        names = [tube.called or f"tube {index}" for index, tube in enumerate(video.tubes)]
        called |= {(video.video_id, index): name for index, name in enumerate(names)}
        tubes = [
            _repair(video, name, tube, size, source, oddities, counted_from)
            for name, tube in zip(names, video.tubes, strict=True)
        ]
        for index, tube in enumerate(tubes):
            if any(_identical(tube, other) for other in tubes[:index]):
                oddities.add("identical-tubes", f"{video.video_id} {names[index]}")
            tube_rows.append((video.video_id, index, tube))
        ends = [tube.first_frame + len(tube.boxes) for tube in tubes]
        video_rows.append(
            {
                "video_id": video.video_id,
                "split": video.split or ("test" if video.video_id in test_ids else "train"),
                "frames": video.frames if video.frames is not None else max(ends, default=0),
                "width": size and size[0],
                "height": size and size[1],
                "path": "",
            }
        )
    columns = [
        pa.array([video_id for video_id, _, _ in tube_rows], pa.string()),
        pa.array([index for _, index, _ in tube_rows], pa.int32()),
        pa.array([tube.label for _, _, tube in tube_rows], pa.int32()),
        pa.array([tube.first_frame for _, _, tube in tube_rows], pa.int32()),
        box_column([tube.boxes for _, _, tube in tube_rows]),
    ]
    tables = pa.Table.from_pylist(video_rows, VIDEOS), pa.Table.from_arrays(columns, schema=TUBES)
    lengths_are_known = all(video.frames is not None for video in videos)
    return Annotations(*tables, oddities.rows(), called, counted_from, lengths_are_known)


def _check_length_and_size(video: RawVideo, source: str) -> None:
    length_is_wrong = video.frames is not None and not 0 < video.frames <= MAX_FRAMES
    size_is_wrong = video.size is not None and not all(0 < side <= MOST_SIDE for side in video.size)
    if length_is_wrong or size_is_wrong:
        length = "frames" if video.frames is None else f"{video.frames} frames"
        size = "" if video.size is None else f" of {video.size[0]} x {video.size[1]}"
        raise InputError(
            f"{source}: {video.video_id} has no sensible length or size",
            found=f"{length}{size}",
            wanted=f"1 to {MAX_FRAMES:,} frames, sides of 1 to {MOST_SIDE} pixels",
            todo="mend it",
        )


def _repair(
    video: RawVideo,
    called: str,
    tube: RawTube,
    size: tuple[int, int] | None,
    source: str,
    oddities: OddityCounter,
    counted_from: int,
) -> RawTube:
    where, first = f"{video.video_id} {called}", tube.first_frame + counted_from
    boxes = tube.boxes
    if video.frames is not None and tube.first_frame + len(boxes) > video.frames:
        oddities.add("dropped-past-the-end", where)
        boxes = boxes[: max(0, video.frames - tube.first_frame)]
    if not len(boxes) or not 0 <= tube.first_frame <= MAX_FRAMES - len(boxes):
        length = "" if video.frames is None else f" of {video.frames}"
        raise InputError(
            f"{source}: {where} lies outside its video",
            found=f"frames {first} to {first + len(tube.boxes) - 1}{length}, counted from {counted_from}"
            if len(tube.boxes)
            else "no box",
            wanted=f"at least one frame, from {counted_from} on, before {MAX_FRAMES:,}",
            todo="mend or remove that tube, or say where frames count from (a card's first_frame)",
        )
    if not np.isfinite(boxes).all():
        frame = first + int(np.argmin(np.isfinite(boxes).all(1)))
        raise InputError(f"{source}: {where}, frame {frame}: the box is not finite", todo="mend or remove that box")
    fractions = (boxes.max(1) <= 1) & (boxes.min(1) >= 0) & (boxes[:, 2:] > boxes[:, :2]).all(1)
    if boxes.max() <= 1 or fractions.any():
        at = int(fractions.argmax())
        raise InputError(
            f"{source}: {where}, frame {first + at}: the box lies within the first pixel",
            found=f"x1 y1 x2 y2 = {boxes[at].tolist()}",
            wanted="pixels",
            todo="if they are fractions of the frame, multiply x by its width and y by its height",
        )
    clipped = clip_boxes(boxes, size, f"{source}: {where}", first)
    if not np.array_equal(clipped, boxes):
        oddities.add("clipped-boxes", where)
    return RawTube(tube.label, tube.first_frame, clipped)


def clip_boxes(
    boxes: Float32[np.ndarray, "frames 4"], size: tuple[int, int] | None, where: str, first_frame: int
) -> Float32[np.ndarray, "frames 4"]:
    """The boxes within a frame of `size`; where the size is not known yet, within its left and upper edges.

    Args:
        first_frame: the number of the first box's frame, as messages are to tell it.

    Raises:
        InputError: nothing is left of one.
    """
    edges = np.array([*size, *size] if size else [np.inf] * 4, np.float32)
    clipped = np.clip(boxes, 0, edges)
    empty = (clipped[:, 2:] <= clipped[:, :2]).any(1)
    if empty.any():
        at = int(np.argmax(empty))
        raise InputError(
            f"{where}, frame {first_frame + at}: the box is empty or outside the frame",
            found=f"x1 y1 x2 y2 = {boxes[at].tolist()}",
            wanted="x1 < x2 and y1 < y2 within " + (f"{size[0]} x {size[1]}" if size else "the frame"),
            todo="mend or remove that box; or if the last two are width and height, say so: boxes in the card, or the columns' names",
        )
    return clipped


def _identical(a: RawTube, b: RawTube) -> bool:
    return a.label == b.label and a.first_frame == b.first_frame and np.array_equal(a.boxes, b.boxes)
