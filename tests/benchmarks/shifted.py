"""`python -m tests.benchmarks.shifted STORE`: which corruptions of annotations does `pipeline.alignment` see, and how often
does it cry wolf? The store's own annotations count as clean. `half the videos`: of 200 draws of half of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline.alignment import VIDEOS, Evidence, judge, small_tubes, video_motion
from pipeline.reconcile import Tube
from pipeline.stored import StoredVideo, built_shards

Corruption = Callable[[StoredVideo, Tube], Tube]


def _later(frames: int) -> Corruption:
    def moved(video: StoredVideo, tube: Tube) -> Tube:
        first, boxes = tube.first_frame + frames, tube.boxes[max(0, -tube.first_frame - frames) :]
        return replace(tube, first_frame=max(0, first), boxes=boxes[: max(0, video.frames - max(0, first))])

    return moved


def _placed(change: Callable[[np.ndarray, StoredVideo], np.ndarray]) -> Corruption:
    def moved(video: StoredVideo, tube: Tube) -> Tube:
        boxes = np.clip(change(tube.boxes, video), 0, [video.width, video.height] * 2).astype(np.float32)
        return replace(tube, boxes=boxes)

    return moved


CORRUPTIONS: dict[str, Corruption] = {
    "clean": lambda video, tube: tube,
    "one frame later": _later(1),
    "one frame earlier": _later(-1),
    "five frames later": _later(5),
    "five frames earlier": _later(-5),
    "scaled by 340/320": _placed(lambda boxes, video: boxes * np.float32(340 / 320)),
    "x and y swapped": _placed(lambda boxes, video: boxes[:, [1, 0, 3, 2]]),
    "mirrored": _placed(
        lambda boxes, video: np.array([video.width, 0, video.width, 0]) + boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1]
    ),
}


def corrupted_evidence(store: Path) -> dict[str, list[Evidence]]:
    """What each video says of each corruption."""
    told: dict[str, list[Evidence]] = {name: [] for name in CORRUPTIONS}
    everything = [(shard, video) for shard in built_shards(store) for video in shard.videos if video.tubes]
    for i in np.unique(np.linspace(0, len(everything) - 1, VIDEOS).astype(int)):
        shard, video = everything[i]
        motion = video_motion(shard, video)
        if motion is None:
            continue
        for name, corrupt in CORRUPTIONS.items():
            evidence = motion.evidence(small_tubes(video, [corrupt(video, tube) for tube in video.tubes], motion))
            if evidence is not None:
                told[name].append(evidence)
    return told


def main(store: Path) -> None:
    """Prints the table."""
    table = Table("annotations", "warned on all videos", "warned on half the videos", "what it says")
    draw = np.random.default_rng(0)
    for name, evidence in corrupted_evidence(store).items():
        verdict = judge(evidence)
        halves = [
            judge([evidence[i] for i in draw.choice(len(evidence), len(evidence) // 2, replace=False)]).warnings
            for _ in range(200)
        ]
        table.add_row(
            name,
            "yes" if verdict.warnings else "no",
            f"{sum(map(bool, halves)) / 2:.0f} %",
            "; ".join([*verdict.warnings, verdict.summary]),
        )
    Console(width=200).print(table)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
