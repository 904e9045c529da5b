"""The strangest clips of a store, and why they are strange: where mistakes in annotations are found first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from pipeline.census import TubeMatches
from pipeline.stored import StoredShard

MOST = 50
PER_REASON = 40
"""Candidates kept for each reason while shards go by."""


@dataclass(frozen=True)
class Strange:
    """One clip that stands out.

    Args:
        reason: what it stands out by, the same words for all clips of a kind.
        amount: orders the clips of a reason, the strangest first.
        detail: the figure in words.
        frame: that shows it best, counted in the video.
    """

    reason: str
    amount: float
    detail: str
    video_id: str
    label: int
    first_frame: int
    frame: int


@dataclass(frozen=True)
class StrangeClip:
    """One clip with all its reasons."""

    video_id: str
    first_frame: int
    label: int
    reasons: tuple[Strange, ...]


class Strangest:
    """Keeps the strangest clips of the shards that go by."""

    def __init__(self, K: int, image_size: int) -> None:
        self.K, self.image_size = K, image_size
        self.found: dict[str, list[Strange]] = {}

    def add(self, shard: StoredShard, tubes: Iterable[TubeMatches]) -> None:
        """Looks at the tubes of one shard, as the census told them."""
        for told in tubes:
            if len(told.clips):
                starts = shard.clip_first_frame[told.clips]
                for strange in self._look_at(told, starts):
                    self.found.setdefault(strange.reason, []).append(strange)
        for reason, kept in self.found.items():
            self.found[reason] = sorted(kept, key=_order)[:PER_REASON]

    def clips(self, most: int = MOST) -> list[StrangeClip]:
        """At most `most` clips, the reasons taking turns; each with all the reasons that were found for it."""
        of_clip: dict[tuple[str, int], list[Strange]] = {}
        for kept in self.found.values():
            for strange in kept:
                of_clip.setdefault((strange.video_id, strange.first_frame), []).append(strange)
        turns = [strange for turn in zip_longest(*self.found.values()) for strange in turn if strange]
        chosen = list(dict.fromkeys((strange.video_id, strange.first_frame) for strange in turns))[:most]
        return [StrangeClip(*key, of_clip[key][0].label, tuple(of_clip[key])) for key in chosen]

    def _look_at(self, told: TubeMatches, starts: np.ndarray) -> Iterator[Strange]:
        video, tube = told.video, told.tube
        boxes, length = tube.boxes, len(tube.boxes)

        def strange(reason: str, amount: float | int, detail: str, frame: int) -> Strange:
            nearest = int(starts[np.argmin(np.abs(starts + self.K // 2 - frame))])
            return Strange(reason, float(amount), detail, video.video_id, tube.label, nearest, frame)

        middle = tube.first_frame + length // 2
        yield strange("longest tube", -length, f"{length} frames", middle)
        yield strange("shortest tube", length, f"{length} frames", middle)
        scale = self.image_size / np.array([video.width, video.height])
        sides = (boxes[:, 2:] - boxes[:, :2]) * scale
        smallest = int(np.argmin(sides.prod(1)))
        wide, high = sides[smallest]
        yield strange(
            "tiny box", int(wide * high), f"{wide:.0f} x {high:.0f} of the network's pixels",
            tube.first_frame + smallest,
        )  # fmt: skip
        poorest = int(np.lexsort((told.overlap, told.matches))[0])
        yield strange(
            "fewest matches", float(told.matches[poorest] + told.overlap[poorest]),
            f"{told.matches[poorest]} priors, the best overlap {told.overlap[poorest]:.2f}",
            int(starts[poorest]) + self.K // 2,
        )  # fmt: skip
        if length > 1:
            centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1))
            jump = np.linalg.norm(np.diff(centre, axis=0), axis=1) / np.minimum(size[1:], size[:-1])
            largest = int(np.argmax(jump))
            yield strange(
                "largest jump", -float(jump[largest]),
                f"{jump[largest]:.2f} of its size from frame {tube.first_frame + largest} to the next",
                tube.first_frame + largest + 1,
            )  # fmt: skip
        for other in video.tubes:
            another_from_the_same_frame = other.index > tube.index and other.first_frame == tube.first_frame
            if another_from_the_same_frame and np.array_equal(other.boxes, boxes):
                yield strange("identical tubes", -length, f"tubes {tube.index} and {other.index} are equal", middle)


def _order(strange: Strange) -> tuple[float, str, int]:
    return strange.amount, strange.video_id, strange.first_frame
