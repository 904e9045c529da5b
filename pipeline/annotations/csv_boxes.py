"""Boxes in a plain csv file: one row a box, for anyone's own videos.

Columns `video, tube, class, frame, x1, y1, x2, y2`: pixels of the card's box_width x box_height, continuous edges
(x2 - x1 is the width); frames count from the card's first_frame; a tube is one actor without gaps.
"""

from __future__ import annotations

import csv
import difflib
from pathlib import Path

import numpy as np

from data_manifests.card import Card
from data_manifests.errors import InputError
from pipeline.annotations.rules import OddityCounter, RawTube, RawVideo, safe_video_id

COLUMNS = ("video", "tube", "class", "frame", "x1", "y1", "x2", "y2")


def read(path: Path, card: Card, oddities: OddityCounter) -> list[RawVideo]:
    """All videos of the file.

    Raises:
        InputError: a column, a number or a class is wrong, naming the line; or a tube has a gap or two classes.
    """
    try:
        return _read(path, card)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} does not read as csv", found=str(error), wanted="comma-separated text in UTF-8", todo="save it so"
        ) from error


def _read(path: Path, card: Card) -> list[RawVideo]:
    videos: dict[str, dict[str, dict[int, tuple[int, list[float]]]]] = {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file, skipinitialspace=True)
        missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
        if missing:
            raise InputError(
                f"{path} lacks the columns {', '.join(missing)}",
                found=", ".join(rows.fieldnames or ()) or "an empty file",
                wanted=", ".join(COLUMNS),
                todo="name them in the first line",
            )
        for number, row in enumerate(rows, 2):
            where = f"{path.name}, line {number}"
            if None in row or None in row.values():
                raise InputError(
                    f"{where} has another number of columns than the first line", todo="mend or remove that line"
                )
            if row["class"] not in card.classes:
                near = difflib.get_close_matches(str(row["class"]), card.classes, n=1)
                raise InputError(
                    f"{where}: unknown class {row['class']!r}",
                    wanted=f"a class of card {card.name}",
                    todo=f"did you mean {near[0]}?" if near else "mend the line or the card",
                )
            try:
                frame = int(row["frame"]) - card.first_frame
                box = [float(row[column]) for column in COLUMNS[4:]]
            except (TypeError, ValueError) as error:
                raise InputError(f"{where}: a number is wanted", found=str(error), todo="mend that line") from error
            video_id = safe_video_id(str(row["video"]), where)
            tube = videos.setdefault(video_id, {}).setdefault(str(row["tube"]), {})
            if frame in tube:
                raise InputError(
                    f"{where}: a second box of tube {row['tube']} at frame {row['frame']}", todo="remove one"
                )
            tube[frame] = (card.classes.index(row["class"]), box)
    return [
        RawVideo(
            video_id, None, tuple(_tube(path, video_id, name, boxes, card.first_frame) for name, boxes in tubes.items())
        )
        for video_id, tubes in videos.items()
    ]


def _tube(
    path: Path, video_id: str, name: str, boxes: dict[int, tuple[int, list[float]]], counted_from: int
) -> RawTube:
    frames = sorted(boxes)
    labels = {label for label, _ in boxes.values()}
    if len(labels) > 1:
        raise InputError(
            f"{path.name}: {video_id} tube {name} has several classes", todo="give each class its own tube"
        )
    gap = next((a for a, b in zip(frames, frames[1:], strict=False) if b != a + 1), None)
    if gap is not None:
        raise InputError(
            f"{path.name}: {video_id} tube {name} has no box after its frame {gap + counted_from}",
            wanted="a box at every frame of a tube",
            todo="fill the gap, or make it two tubes",
        )
    return RawTube(labels.pop(), frames[0], np.array([boxes[frame][1] for frame in frames], np.float32))
