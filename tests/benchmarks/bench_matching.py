"""Match + encode of one clip against plain numpy, and the rate of views over the training clips of UCF101-24."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from data_manifests.card import load_card
from data_manifests.prior_spec import ACT300
from data_manifests.tables import boxes_of
from pipeline.annotations import Annotations, read_annotations
from pipeline.clips import index_clips
from pipeline.matching import MatchRule, match_clip, prior_grid
from pipeline.targets import video_targets
from tests.benchmarks.harness import Row, compare, machine
from tests.oracles import matching as plain

K, VIEWS = 6, 8
EVERY = int(os.environ.get("TUBELETS_BENCH_EVERY", "1"))
"""Every how many-th video is taken; 1 takes all of them, some minutes."""
_DATASET: tuple[Annotations, dict[str, list[int]]]
BYTES_PER_VIEW = 8 + 1 + 1 + 8 + 8 + 4
"""Rectangle, mirrored, sampler, kept, offset and checksum (`data_manifests.layout`)."""


def _clip(tubes: int) -> np.ndarray:
    """People of all sizes who walk slowly: (tubes, K, 4) in [0, 1]."""
    random = np.random.default_rng(tubes)
    size = random.uniform([0.1, 0.25], [0.3, 0.6], (tubes, 2))
    corner = random.uniform(0, 1 - size)
    drift = random.uniform(-0.005, 0.005, (tubes, 1, 2)) * np.arange(K)[:, None]
    low = np.clip(corner[:, None] + drift, 0, 1)
    return np.concatenate([low, np.minimum(low + size[:, None], 1)], -1).astype(np.float32)


def bench() -> list[Row]:
    """One clip of 1, 2 and 6 tubes, and whole videos."""
    grid, rule = prior_grid(ACT300), MatchRule()
    rows = []
    for tubes in (1, 2, 6):
        boxes = _clip(tubes)

        def numpy_clip(boxes: np.ndarray = boxes) -> np.ndarray:
            prior, tube, _ = plain.match(boxes, grid.boxes)
            return plain.encode(boxes[tube], grid.boxes[prior], rule.variances)

        rows.append(
            compare(
                f"match + encode, {tubes} tube{'s' * (tubes > 1)}",
                lambda boxes=boxes: match_clip(boxes, grid, rule),  # type: ignore[misc]
                numpy_clip,
                peer_name="plain numpy",
                samples=9,
                subject_repeat=50,
                peer_repeat=3,
                wanted=40,
            )
        )
    root = Path(os.environ.get("TUBELETS_REAL", "../shared/real")) / "ucf101"
    return [*rows, _whole_dataset(root)] if root.is_dir() else rows


def _whole_dataset(root: Path) -> Row:
    """All training clips of UCF101-24 with 9 views, from annotations to targets in memory, by two processes."""
    begin = time.perf_counter()
    videos = read_annotations(load_card("ucf101"), root).videos
    rows = list(range(videos.num_rows))[::EVERY]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), _read, (root,)) as pool:
        parts = list(pool.map(_targets, rows, chunksize=16))
    seconds = time.perf_counter() - begin
    views, matches = (sum(part[i] for part in parts) for i in (0, 1))
    early, late = (max(part[2] for part in some) for some in (parts[: len(parts) // 4], parts))
    stored = BYTES_PER_VIEW + matches / views * (8 + 16 * K)
    return Row(
        name=f"targets of UCF101-24, every {EVERY} of its videos, {views:,} views, 2 processes",
        subject=f"{seconds:.0f} s, {views / seconds:,.0f} views/s, {stored:.0f} bytes/view, "
        f"{early} MiB after a quarter, {late} MiB at the end",
        peer="the budget of 300 s",
        ratio=300 / seconds,
        spread=(300 / seconds, 300 / seconds),
        samples=1,
        machine=machine(),
        wanted=1,
    )


def _read(root: Path) -> None:
    """Each process reads the annotations for itself."""
    global _DATASET
    annotations = read_annotations(load_card("ucf101"), root)
    tubes_of = defaultdict(list)
    for row, video_id in enumerate(annotations.tubes["video_id"].to_pylist()):
        tubes_of[video_id].append(row)
    _DATASET = annotations, tubes_of


def _targets(row: int) -> tuple[int, int, int]:
    """Views and matches of one training video (none of a test video), and the process' largest memory in MiB."""
    annotations, tubes_of = _DATASET
    video = annotations.videos.slice(row, 1)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if video["split"][0].as_py() != "train":
        return 0, 0, memory
    video_id, tubes = video["video_id"][0].as_py(), annotations.tubes
    mine = tubes_of[video_id]
    targets = video_targets(
        video_id,
        [boxes_of(tubes, tube) for tube in mine],
        tubes["first_frame"].to_numpy()[mine],
        tubes["label"].to_numpy()[mine],
        index_clips(video, tubes.take(mine), K).first_frame,
        width=320,
        height=240,
        K=K,
        views=VIEWS,
        seed=0,
        mirrored_label=tuple(range(24)),
        grid=prior_grid(ACT300),
        rule=MatchRule(),
    )
    return targets.kept.size, len(targets.prior), memory


if __name__ == "__main__":
    for row in bench():
        print(f"{row.name}: {row.subject}; {row.peer}; x{row.ratio:.1f} {row.spread}")
