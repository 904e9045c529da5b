"""Boxes in a plain csv file: one row a box, for anyone's own videos.

Columns `video, tube, class, frame` and the box: `x1, y1, x2, y2`, or `x, y, width, height` where the card says
`boxes = "width-height"`. The card also declares the numbers of the first frame and the first pixel.
"""

from __future__ import annotations

import csv
from pathlib import Path

from data_manifests.card import Card
from data_manifests.errors import InputError
from pipeline.annotations.box_rows import BoxRows
from pipeline.annotations.rules import OddityCounter, RawVideo

COLUMNS = ("video", "tube", "class", "frame")
CORNERS = ("x1", "y1", "x2", "y2")
WIDTH_HEIGHT = ("x", "y", "width", "height")


def read(path: Path, card: Card, oddities: OddityCounter) -> list[RawVideo]:
    """All videos of the file.

    Raises:
        InputError: a column, a number or a class is wrong, naming the line; or a tube has a gap or two classes.
    """
    try:
        return _read(path, card, oddities)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} does not read as csv", found=str(error), wanted="comma-separated text in UTF-8", todo="save it so"
        ) from error


def _read(path: Path, card: Card, oddities: OddityCounter) -> list[RawVideo]:
    boxes = BoxRows(path.name, card, oddities)
    of_box = WIDTH_HEIGHT if card.boxes == "width-height" else CORNERS
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file, skipinitialspace=True)
        names = tuple(rows.fieldnames or ())
        missing = [column for column in COLUMNS + of_box if column not in names]
        if missing:
            other = {WIDTH_HEIGHT: "corners", CORNERS: "width-height"}[of_box]
            declared = set(CORNERS + WIDTH_HEIGHT) - set(of_box) <= set(names)
            raise InputError(
                f"{path} lacks the columns {', '.join(missing)}",
                found=", ".join(names) or "an empty file",
                wanted=", ".join(COLUMNS + of_box),
                todo=f'let the card say boxes = "{other}"'
                if declared
                else "name them in the first line, with commas between them",
            )
        twice = [name for name in COLUMNS + of_box if names.count(name) > 1]
        if twice:
            raise InputError(
                f"{path} has two columns {', '.join(twice)}", found=", ".join(names), todo="rename or remove one"
            )
        for row in rows:
            where = f"{path.name}, line {rows.line_num}"
            if None in row or None in row.values():
                values = [value for value in row.values() if isinstance(value, str)]
                raise InputError(
                    f"{where} has another number of columns than the first line",
                    found=str(len(values) + len(row.get(None, ()))), wanted=str(len(names)),
                    todo="mend or remove that line; a decimal comma is to be a point",
                )  # fmt: skip
            try:
                frame = int(row["frame"])
                x1, y1, x2, y2 = (float(row[column]) for column in of_box)
            except ValueError as error:
                raise InputError(
                    f"{where}: a number is wanted", found=str(error), todo="mend that line",
                    wanted="a frame like 12, and coordinates like 30 or 30.5",
                ) from error  # fmt: skip
            boxes.add(row["video"], row["tube"], row["class"], frame, (x1, y1, x2, y2), where)
    videos = boxes.videos()
    if not videos:
        raise InputError(f"{path} has no box", wanted="a row a box below the first line", todo="fill it first")
    return videos
