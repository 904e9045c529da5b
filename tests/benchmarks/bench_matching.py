"""Match + encode of one clip against plain numpy, and the rate of views over the training clips of UCF101-24."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from data_manifests.card import load_card
from data_manifests.prior_spec import ACT300
from data_manifests.tables import boxes_of
from pipeline.annotations import read_annotations
from pipeline.clips import index_clips
from pipeline.matching import MatchRule, match_clip, prior_grid
from pipeline.targets import video_targets
from tests.benchmarks.harness import Row, compare, machine
from tests.oracles import matching as plain

K, VIEWS = 6, 8
EVERY = int(os.environ.get("TUBELETS_BENCH_EVERY", "20"))
"""Every how many-th training video is timed; 1 takes all of them, some minutes."""
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
    return [*rows, _rate(root)] if root.is_dir() else rows


def _rate(root: Path) -> Row:
    """Views a second of one process, as seconds for all training clips x 9 views on two, against 5 minutes."""
    annotations = read_annotations(load_card("ucf101"), root)
    videos = annotations.videos.filter(pc.equal(annotations.videos["split"], "train"))
    tubes, grid = annotations.tubes, prior_grid(ACT300)
    clips = index_clips(videos, tubes, K)
    tubes_of = defaultdict(list)
    for row, video_id in enumerate(tubes["video_id"].to_pylist()):
        tubes_of[video_id].append(row)
    labels, first_frame = tubes["label"].to_numpy(), tubes["first_frame"].to_numpy()
    views = matches = seconds = 0.0
    for row, video_id in list(enumerate(videos["video_id"].to_pylist()))[::EVERY]:
        mine = tubes_of[video_id]
        starts = clips.first_frame[clips.video == row]
        begin = time.perf_counter()
        targets = video_targets(
            video_id,
            [boxes_of(tubes, tube) for tube in mine],
            first_frame[mine],
            labels[mine],
            starts,
            width=320,
            height=240,
            K=K,
            views=VIEWS,
            seed=0,
            mirrored_label=tuple(range(24)),
            grid=grid,
            rule=MatchRule(),
        )
        if row:  # the first video loads or compiles the kernels
            seconds += time.perf_counter() - begin
            views += targets.kept.size
            matches += len(targets.prior)
    all_views = len(clips.video) * (1 + VIEWS)
    estimate = all_views / (views / seconds) / 2
    stored = BYTES_PER_VIEW + matches / views * (8 + 16 * K)
    return Row(
        name=f"targets of UCF101-24, {all_views:,} views, 2 processes, from {views:,.0f} of them",
        subject=f"{estimate:.0f} s, {views / seconds:,.0f} views/s a process, {stored:.0f} bytes/view",
        peer="the budget of 300 s",
        ratio=300 / estimate,
        spread=(300 / estimate, 300 / estimate),
        samples=1,
        machine=machine(),
        wanted=1,
    )


if __name__ == "__main__":
    for row in bench():
        print(f"{row.name}: {row.subject}; {row.peer}; x{row.ratio:.1f} {row.spread}")
