"""The corrected UCF101-24 annotations: pyannot.pkl, or finalAnnots.mat, which gives equal tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from data_manifests.card import Card
from data_manifests.errors import InputError
from pipeline.annotations.mat import load_mat_variable
from pipeline.annotations.pickles import load_plain_pickle
from pipeline.annotations.rules import OddityCounter, RawTube, RawVideo, safe_video_id, whole_number


def read(path: Path, card: Card, oddities: OddityCounter) -> list[RawVideo]:
    """All videos of the file.

    Raises:
        InputError: the file is damaged, hostile, or is not of this format.
    """
    rows = _from_mat(path) if path.suffix == ".mat" else _from_pickle(path)
    videos = []
    try:
        for name, frames, tubes in rows:
            video_id = safe_video_id(str(name), path.name)
            raw_tubes = []
            for index, (label, first, last, boxes) in enumerate(tubes):
                where = f"{video_id} tube {index}"
                if not 0 <= label < len(card.classes):
                    raise InputError(
                        f"{path.name}: {where} has class {label}",
                        wanted=f"0 to {len(card.classes) - 1}",
                        todo="mend it",
                    )
                if len(boxes) != last - first:
                    raise InputError(
                        f"{path.name}: {where} has another number of boxes than of frames",
                        found=f"{len(boxes)} boxes for {last - first} frames",
                        todo="mend or remove that tube",
                    )
                raw_tubes.append(RawTube(label, first, _corners(boxes, where, oddities)))
            videos.append(RawVideo(video_id, frames, tuple(raw_tubes)))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, IndexError) as error:
        raise InputError(
            f"{path} is not a corrected UCF101-24 annotation file",
            found=f"{type(error).__name__}: {error}",
            wanted="pyannot.pkl or finalAnnots.mat of corrected-UCF101-Annots",
            todo="fetch the annotation file again from its source",
        ) from error
    return videos


def counted_from(path: Path, _: Card) -> int:
    """The number of a video's first frame in the file."""
    return int(path.suffix == ".mat")


_Tube = tuple[int, int, int, np.ndarray]
_Row = tuple[str, int, list[_Tube]]


def _from_pickle(path: Path) -> Iterator[_Row]:
    """`sf` is 0-based and `ef` exclusive."""
    for name, video in load_plain_pickle(path).items():
        tubes: list[_Tube] = []
        for tube in video["annotations"]:
            label, first, last = _numbers(tube, ("label", "sf", "ef"), f"{path.name}: {name} tube {len(tubes)}")
            tubes.append((label, first, last, np.asarray(tube["boxes"])))
        yield name, *_numbers(video, ("numf",), f"{path.name}: {name}"), tubes


def _from_mat(path: Path) -> Iterator[_Row]:
    """`sf`, `ef` and `class` are 1-based, `ef` inclusive."""
    videos = load_mat_variable(path, "annot")
    for video in [videos] if isinstance(videos, dict) else videos:
        name, listed = video["name"], video["tubes"]
        tubes: list[_Tube] = []
        for tube in [listed] if isinstance(listed, dict) else listed:
            label, first, last = _numbers(tube, ("class", "sf", "ef"), f"{path.name}: {name} tube {len(tubes)}")
            tubes.append((label - 1, first - 1, last, np.atleast_2d(tube["boxes"])))
        yield name, *_numbers(video, ("num_imgs",), f"{path.name}: {name}"), tubes


def _numbers(entry: dict[str, Any], names: tuple[str, ...], where: str) -> list[int]:
    return [whole_number(entry[name], name, where) for name in names]


def _corners(boxes: np.ndarray, where: str, oddities: OddityCounter) -> Float32[np.ndarray, "frames 4"]:
    """x1 y1 x2 y2, 0-based, from x, y, w, h, 1-based."""
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind not in "uif":
        raise ValueError(f"{where} has boxes of shape {boxes.shape} and type {boxes.dtype}")
    if boxes.dtype == np.uint8 and (boxes[:, :2].astype(int) + boxes[:, 2:] > 255).any():
        oddities.add("widened-boxes", where)
    oddities.add("one-based-boxes", where)
    wide = boxes.astype(np.float32)
    origin = wide[:, :2] - 1
    return np.concatenate([origin, origin + wide[:, 2:]], 1)
