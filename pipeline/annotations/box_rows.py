"""Boxes that a file lists one by one become tubes: a tube is one actor of one class, with a box at every frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float32, Num

from data_manifests.card import Card
from data_manifests.did_you_mean import did_you_mean
from data_manifests.errors import InputError
from pipeline.annotations.rules import OddityCounter, RawTube, RawVideo, safe_video_id

Box = tuple[float, float, float, float]


class BoxRows:
    """Gathers the boxes of a file in any order.

    Args:
        source: the file's name, for messages.
        card: whose classes, `first_frame`, `first_pixel` and `boxes` the file's words and numbers mean.
    """

    def __init__(self, source: str, card: Card, oddities: OddityCounter) -> None:
        self.source, self.card, self.oddities = source, card, oddities
        self._videos: dict[str, dict[str, dict[int, tuple[int, Box]]]] = {}

    def add_video(self, video_id: str, where: str) -> None:
        """A video that has no box, perhaps.

        Raises:
            InputError: the video id is hostile, or there already.
        """
        if safe_video_id(video_id, where) in self._videos:
            raise InputError(f"{where} has 2 videos called {video_id}", todo="give each a name of its own")
        self._videos[video_id] = {}

    def add(self, video_id: str, tube: str, action: str, frame: int, box: Box, where: str) -> None:
        """One box as the file has it; `frame` counts from the card's `first_frame`.

        Raises:
            InputError: the class is not the card's, the video id is hostile, or the tube has a box at that frame already.
        """
        label = label_of(action, self.card, where)
        boxes = self._videos.setdefault(safe_video_id(video_id, where), {}).setdefault(tube, {})
        if frame in boxes:
            raise InputError(f"{where}: a second box of tube {tube} at frame {frame}", todo="remove one")
        boxes[frame] = (label, box)

    def videos(self, sizes: Mapping[str, tuple[int, int]] | None = None) -> list[RawVideo]:
        """All videos; `sizes` has the width and height of those whose file says them.

        Raises:
            InputError: a tube has a gap, or two classes.
        """
        return [
            RawVideo(
                video_id,
                None,
                tuple(self._tube(video_id, name, boxes) for name, boxes in tubes.items()),
                (sizes or {}).get(video_id),
            )
            for video_id, tubes in self._videos.items()
        ]

    def _tube(self, video_id: str, name: str, boxes: dict[int, tuple[int, Box]]) -> RawTube:
        frames = sorted(boxes)
        labels = {label for label, _ in boxes.values()}
        where = f"{video_id} tube {name}"
        if len(labels) > 1:
            raise InputError(f"{self.source}: {where} has several classes", todo="give each class its own tube")
        gap = next((a for a, b in zip(frames, frames[1:], strict=False) if b != a + 1), None)
        if gap is not None:
            raise InputError(
                f"{self.source}: {where} has no box after its frame {gap}",
                wanted="a box at every frame of a tube",
                todo="fill the gap, or make it two tubes",
            )
        if self.card.first_pixel:
            self.oddities.add("one-based-boxes", where)
        corners = edges([boxes[frame][1] for frame in frames], self.card.boxes, self.card.first_pixel)
        return RawTube(labels.pop(), frames[0] - self.card.first_frame, corners, f"tube {name}")


def label_of(action: str, card: Card, where: str) -> int:
    """The label of a class's name.

    Raises:
        InputError: the card has no such class.
    """
    if action in card.classes:
        return card.classes.index(action)
    raise InputError(
        f"{where}: unknown class {action!r}",
        wanted=f"a class of card {card.name}: {', '.join(card.classes)}",
        todo=did_you_mean(action, card.classes, "mend the line or the card"),
    )


def edges(
    boxes: Sequence[Box] | Num[np.ndarray, "boxes 4"], kind: str, first_pixel: int
) -> Float32[np.ndarray, "boxes 4"]:
    """x1 y1 x2 y2 as continuous edges counted from 0, of boxes written as `kind` of `data_manifests.card.BOXES`."""
    corners = np.array(boxes, np.float64).reshape(-1, 4)
    if kind == "width-height":
        corners[:, 2:] += corners[:, :2]
    elif kind == "inclusive-corners":
        corners[:, 2:] += 1
    with np.errstate(over="ignore"):  # becomes infinite, which is refused by its frame
        return (corners - first_pixel).astype(np.float32)
