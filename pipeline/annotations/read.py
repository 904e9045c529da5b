"""Finds a dataset's annotation files below its root and reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from data_manifests.card import Card
from data_manifests.did_you_mean import did_you_mean
from data_manifests.errors import InputError
from pipeline.annotations import act, coco, csv_boxes, cvat, ucf101
from pipeline.annotations.rules import Annotations, OddityCounter, RawVideo, make_tables, safe_video_id


class _Format(NamedTuple):
    """How files of an annotation format are read.

    Args:
        read: a file, or a folder of files, to raw videos.
        folders: a folder of files may be read too.
        counted_from: the number of a video's first frame in such a file.
    """

    read: Callable[[Path, Card, OddityCounter], list[RawVideo]]
    folders: bool = False
    counted_from: Callable[[Path, Card], int] = lambda _, card: card.first_frame


_FORMATS = {
    "ucf101": _Format(ucf101.read, counted_from=ucf101.counted_from),
    "csv": _Format(csv_boxes.read),
    "cvat": _Format(cvat.read, folders=True),
    "coco": _Format(coco.read),
    "act": _Format(act.read),
}


def read_annotations(card: Card, root: Path) -> Annotations:
    """The tables of the dataset below `root`; no video need be there.

    Raises:
        InputError: the root or a file is missing, a file is damaged or hostile, or an annotation cannot be repaired.
    """
    if not root.is_dir():
        raise InputError(
            f"dataset root {root} is {'not a folder' if root.exists() else 'not there'}",
            wanted=f"the folder of {card.title}",
            todo="check the path of --root",
        )
    form = _FORMATS.get(card.annotation_format)
    if form is None:
        raise InputError(
            f"card {card.name}: unknown annotation format {card.annotation_format!r}",
            wanted=f"one of {', '.join(_FORMATS)}",
            todo=did_you_mean(card.annotation_format, _FORMATS, "mend annotations.format"),
        )
    path = _first_there(card.annotation_files, root, "annotation file", card, folders=form.folders)
    oddities = OddityCounter()
    videos = form.read(path, card, oddities)
    test_ids: set[str] = set()
    if card.test_lists:
        test_list = _first_there(card.test_lists, root, "list of test videos", card)
        test_ids = set(read_ids(test_list, {video.video_id for video in videos}))
    return make_tables(videos, card, test_ids, path.name, oddities, form.counted_from(path, card))


def read_ids(path: Path, known: set[str]) -> list[str]:
    """Video ids from a list, one a line. As in UCF101's own lists, `.avi` and further columns are ignored.

    Raises:
        InputError: the file is not there, is no text, or names a video that the annotations lack.
    """
    if not path.is_file():
        raise InputError(f"list {path} is not there", wanted="a text file of video ids", todo="check the path")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"list {path} is not text in UTF-8", found=str(error), todo="save it so") from error
    ids = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        whole, first = line.strip(), line.split()[0]
        readings = (whole, whole.removesuffix(".avi"), first, first.removesuffix(".avi"))
        video_id = next((reading for reading in readings if reading in known), readings[-1])
        safe_video_id(video_id, f"{path.name}, line {number}")
        if video_id not in known:
            raise InputError(
                f"{path.name}, line {number}: unknown video {video_id}",
                wanted="a video of the annotation file",
                todo=did_you_mean(video_id, known, "mend or remove that line"),
            )
        ids.append(video_id)
    return ids


def _first_there(places: tuple[str, ...], root: Path, what: str, card: Card, *, folders: bool = False) -> Path:
    for place in places:
        if (root / place).is_file() or (folders and (root / place).is_dir()):
            return root / place
    raise InputError(
        f"no {what} of {card.name} below {root}",
        wanted="one of " + ", ".join(places),
        todo="put it there, or check the path of --root",
    )
