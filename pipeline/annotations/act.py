"""The pickles that ACT's authors distribute: JHMDB-GT.pkl, UCFSports-GT.pkl, UCF101v2-GT.pkl, and MultiSports' alike.

A dict of `labels` (class names), `gttubes` (video: label index: list of tubes), `nframes`, `resolution` (height, width),
`train_videos` and `test_videos` (a list of videos a split). A tube is an array of rows `frame x1 y1 x2 y2`; frames count
from 1. ACT trains on the boxes as they stand, divided by width and height, and scores them with a pixel added to each
side; so here too they are continuous edges from 0, unless the card declares `boxes` or `first_pixel`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from data_manifests.card import Card
from data_manifests.errors import InputError
from pipeline.annotations.box_rows import edges
from pipeline.annotations.pickles import load_plain_pickle
from pipeline.annotations.rules import OddityCounter, RawTube, RawVideo, safe_video_id, whole_number

_OF_A_VIDEO = ("gttubes", "nframes", "resolution")


def read(path: Path, card: Card, oddities: OddityCounter) -> list[RawVideo]:
    """The videos of the card's split, each with its place in it.

    Raises:
        InputError: the file is damaged, hostile or not of this format, has other classes than the card or lacks its
            split, a video is listed twice or lacks something, or a tube has a gap.
    """
    content = load_plain_pickle(path)
    try:
        labels = _labels(content["labels"], path, card)
        split_of = _splits(content, path, card)
        for stray in content["gttubes"].keys() - split_of.keys():
            oddities.add("outside-the-split", safe_video_id(_text(stray), path.name))
        return [_video(content, video_id, labels, split_of, path, card, oddities) for video_id in split_of]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise InputError(
            f"{path} is not an annotation file as ACT's authors distribute them",
            found=f"{type(error).__name__}: {error}",
            wanted="a dict of labels, gttubes, nframes, resolution, train_videos and test_videos",
            todo="fetch the annotation file again from its source",
        ) from error


def _text(name: Any) -> str:
    if not isinstance(name, str):  # str() of lists that hold each other can be of any length
        raise TypeError(f"a name is wanted, not a {type(name).__name__}")
    return str(name)


def _labels(names: list[Any], path: Path, card: Card) -> list[int]:
    """The card's label of each of the file's."""
    names = [_text(name) for name in names]
    if sorted(names) != sorted(card.classes):
        raise InputError(
            f"{path} has other classes than card {card.name}",
            found=f"only in the file: {sorted(set(names) - set(card.classes))}; "
            f"only in the card: {sorted(set(card.classes) - set(names))}",
            wanted="the same names, each once, in any order",
            todo=f"copy the card, and let it say classes = {names}",
        )
    return [card.classes.index(name) for name in names]


def _splits(content: dict[str, Any], path: Path, card: Card) -> dict[str, str]:
    """`train` or `test` for each video of the card's split."""
    split_of: dict[str, str] = {}
    for split in ("train", "test"):
        lists = content[f"{split}_videos"]
        if not all(isinstance(videos, list | tuple) for videos in [lists, *lists]):
            raise TypeError(f"{split}_videos is not a list of videos a split")
        if card.split > len(lists):
            raise InputError(
                f"{path} has no split {card.split}",
                found=f"{len(lists)} of {split} videos",
                wanted="a split from 1 on that is there",
                todo=f"mend splits.split of card {card.name}",
            )
        for name in lists[card.split - 1]:
            video_id = safe_video_id(_text(name), f"{path.name}, {split}_videos")
            if video_id in split_of:
                raise InputError(
                    f"{path.name}: split {card.split} lists video {video_id} twice",
                    found=f"in {split_of[video_id]}_videos and in {split}_videos",
                    todo="fetch the annotation file again from its source",
                )
            split_of[video_id] = split
    return split_of


def _video(
    content: dict[str, Any],
    video_id: str,
    labels: list[int],
    split_of: dict[str, str],
    path: Path,
    card: Card,
    oddities: OddityCounter,
) -> RawVideo:
    for part in _OF_A_VIDEO:
        if video_id not in content[part]:
            raise InputError(
                f"{path.name}: {part} lacks video {video_id}",
                found=f"the video in {split_of[video_id]}_videos of split {card.split}",
                todo="fetch the annotation file again from its source",
            )
    gttubes, nframes, (height, width) = (content[part][video_id] for part in _OF_A_VIDEO)
    of_video = f"{path.name}: {video_id}"
    frames = whole_number(nframes, "nframes", of_video)
    size = whole_number(width, "width", of_video), whole_number(height, "height", of_video)
    tubes: list[RawTube] = []
    for label, of_label in gttubes.items():
        for rows in of_label:
            where = f"{of_video} tube {len(tubes)}"
            if not 0 <= label < len(labels):
                raise InputError(f"{where} has class {label}", wanted=f"0 to {len(labels) - 1}", todo="mend it")
            if card.first_pixel:
                oddities.add("one-based-boxes", f"{video_id} tube {len(tubes)}")
            tubes.append(_tube(rows, labels[label], where, card))
    return RawVideo(video_id, frames, tuple(tubes), size, split_of[video_id])


def _tube(rows: np.ndarray, label: int, where: str, card: Card) -> RawTube:
    if rows.ndim != 2 or rows.shape[1] != 5 or rows.dtype.kind not in "uif":
        raise ValueError(f"{where} has rows of shape {rows.shape} and type {rows.dtype}")
    if not len(rows):
        raise InputError(f"{where} has no box", wanted="a box at every frame of the tube", todo="remove that tube")
    frames = rows[:, 0].astype(np.float64)
    first = float(frames[0])
    if not first.is_integer():
        raise InputError(f"{where} begins at frame {first}", wanted="a whole number, from 1 on", todo="mend it")
    gaps = np.flatnonzero(frames != first + np.arange(len(rows)))
    if gaps.size:
        raise InputError(
            f"{where} has no box after its frame {first + gaps[0] - 1:g}",
            found=f"the next is at frame {frames[gaps[0]]:g}",
            wanted="a box at every frame of a tube, in order",
            todo="fill the gap, or make it two tubes",
        )
    return RawTube(label, int(first) - card.first_frame, edges(rows[:, 1:], card.boxes, card.first_pixel))
