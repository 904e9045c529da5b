"""What a build will make: which videos in which shards, how many clips, how large. A pure function of its inputs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_manifests.card import Card
from data_manifests.errors import InputError
from data_manifests.layout import Settings
from data_manifests.manifest import Manifest, ShardRecord
from pipeline.annotations import Annotations, read_annotations, read_ids
from pipeline.clips import ClipIndex, index_clips
from pipeline.places import find_videos
from pipeline.split_counts import count_split

FRAMES_PER_SHARD = 4096
"""About 75 MB of JPEG frames at 320 x 240."""

BYTES_PER_PIXEL = {"jpeg": 0.245, "raw": 3.0}
"""Of a stored frame: measured on the 65 real videos at quality 95."""
ASSUMED_SIZE = (320, 240)
"""Of videos whose annotations do not say their frames' size, for the estimate of the size."""
BYTES_PER_VIEW = 960.0
"""Of a stored view with its targets at K = 6: measured on UCF101-24's annotations."""
FRAMES_PER_SECOND = 2000.0
VIEWS_PER_SECOND = 80_000.0
"""Rates of one process, for the estimate of the time."""


@dataclass(frozen=True)
class Plan:
    """What `build` will do.

    Args:
        settings: all that decides the content.
        annotations: of the whole dataset.
        videos: the planned rows of its videos table, with paths below the root ("" where no video was looked for).
        clips: index of their clips, by row of `videos`.
        shards: by name, in order; those the store already has are not among them.
        skipped: videos that are not there, and the places looked at.
        replanned: unfinished shards of an interrupted build that had videos which this build leaves out; what is left of
            them is planned again.
    """

    settings: Settings
    annotations: Annotations
    videos: pa.Table
    clips: ClipIndex
    shards: dict[str, ShardRecord]
    skipped: dict[str, str]
    replanned: dict[str, ShardRecord] = field(default_factory=dict)

    @property
    def left_out(self) -> list[str]:
        """Videos that an interrupted build was to build and this one is not, other than those that are not there."""
        planned = {video_id for record in self.replanned.values() for video_id in record.videos}
        return sorted(planned - set(self.videos["video_id"].to_pylist()) - self.skipped.keys())

    @property
    def bytes(self) -> int:
        """Estimated size of the store."""
        codec = self.settings.frames.split(":")[0]
        sides = zip(("width", "height"), ASSUMED_SIZE, strict=True)
        width, height = (
            pc.fill_null(self.videos[side], assumed).to_numpy().astype(np.int64) for side, assumed in sides
        )
        longer = np.maximum(width, height)
        shrunk = np.minimum(1, (self.settings.max_side or longer) / longer)
        pixels = width * height * shrunk**2
        frames = float((pixels * self.videos["frames"].to_numpy()).sum()) * BYTES_PER_PIXEL[codec]
        views = len(self.clips.video) * (1 + self.settings.views)
        return int(frames + views * BYTES_PER_VIEW * (8 + 16 * self.settings.K) / 104)

    def seconds(self, workers: int) -> float:
        """Estimated time to build it."""
        views = len(self.clips.video) * (1 + self.settings.views)
        frames = float(self.videos["frames"].to_numpy().sum())
        return (frames / FRAMES_PER_SECOND + views / VIEWS_PER_SECOND) / workers

    def counts(self, split: str) -> dict[str, Any]:
        """See `count_split`."""
        return count_split(self.videos, self.annotations.tubes, self.clips, self.settings, split)

    def short_tubes(self) -> tuple[int, int]:
        """How many tubes are shorter than a clip, and how many there are in all."""
        tubes = self.annotations.tubes
        tubes = tubes.filter(pc.is_in(tubes["video_id"], pc.unique(self.videos["video_id"])))
        short = pc.sum(pc.less(pc.list_value_length(tubes["boxes"]), self.settings.K)).as_py()
        return int(short or 0), tubes.num_rows

    def to_json(self, workers: int) -> dict[str, Any]:
        """For machines; the counts stand under the splits' names, `train_videos` and `test_videos`."""
        splits = self.videos["split"].unique().to_pylist()
        return {
            "dataset": self.settings.dataset,
            "settings_digest": self.settings.digest,
            **{f"{split}_videos": self.counts(split) for split in splits},
            "shards": len(self.shards),
            "estimate": {
                "bytes": self.bytes,
                "seconds": round(self.seconds(workers), 1),
                "workers": workers,
                "videos_of_unknown_size": self.videos["width"].null_count,
                "lengths_are_known": self.annotations.lengths_are_known,
            },
            "oddities": [
                {"rule": o.rule, "meaning": o.meaning, "count": o.count, "examples": list(o.examples)}
                for o in self.annotations.oddities
            ],
            "skipped": self.skipped,
        }


def make_plan(
    card: Card,
    root: Path,
    settings: Settings,
    *,
    split: str | None = None,
    train_list: Path | None = None,
    missing: str | None = "error",
    present: Manifest | None = None,
) -> Plan:
    """Reads the annotations and lays out the shards.

    Videos stand in the order of their ids; a shard takes whole videos of one split until it has `FRAMES_PER_SHARD`.

    Args:
        split: only this one; None for all.
        train_list: a file of video ids; of the training videos only these.
        missing: what to do when a video is not there: `error`, `skip`, or None to not look.
        present: manifest of the store to be built, whose videos are not planned again.

    Raises:
        InputError: as `read_annotations`; the list names a test video; a video is missing, or has more tubes
            than a target can name; or nothing is left to build a store from.
    """
    annotations = read_annotations(card, root)
    videos = annotations.videos
    ids = set(videos["video_id"].to_pylist())
    if split is not None:
        videos = videos.filter(pc.equal(videos["split"], split))
    if train_list is not None:
        listed = read_ids(train_list, ids)
        if not listed:
            raise InputError(
                f"{train_list} lists no video", wanted="a video id a line", todo="fill it, or leave it out"
            )
        of_test = annotations.videos.filter(pc.equal(annotations.videos["split"], "test"))["video_id"].to_pylist()
        strays = sorted(set(listed) & set(of_test))
        if strays:
            raise InputError(
                f"{train_list} lists test videos",
                found=", ".join(strays[:5]) + (f" and {len(strays) - 5} more" if len(strays) > 5 else ""),
                wanted="videos of the training split only",
                todo="remove them from the list",
            )
        wanted = pc.or_(pc.not_equal(videos["split"], "train"), pc.is_in(videos["video_id"], pa.array(listed)))
        videos = videos.filter(wanted)
    skipped: dict[str, str] = {}
    if missing is not None:
        videos, skipped = find_videos(videos, card, root, missing, ids)
    if not videos.num_rows:
        raise InputError(
            f"no video of {card.name} to build from below {root}",
            found=f"{len(skipped)} listed, none of them there"
            if skipped
            else "none listed in that split"
            if annotations.videos.num_rows
            else "annotations without one",
            wanted="videos at " + " or ".join(card.video_places),
            todo="put them there, or check --root, --split and --train-list",
        )
    kept = present.shards if present else {}
    replanned = _replanned(kept, set(videos["video_id"].to_pylist()), {split} if split else {"train", "test"})
    kept = {name: record for name, record in kept.items() if name not in replanned}
    taken = {video_id for record in kept.values() for video_id in record.videos}
    shards = _lay_out(videos, taken, kept)
    return Plan(
        settings,
        annotations,
        videos,
        index_clips(videos, annotations.tubes, settings.K, settings.stride),
        shards,
        skipped,
        replanned,
    )


def _replanned(present: dict[str, ShardRecord], at_hand: set[str], splits: set[str]) -> dict[str, ShardRecord]:
    """All unfinished shards of the splits, if one of them has a video that is not at hand; else none."""
    unfinished = {name: record for name, record in present.items() if record.files is None and record.split in splits}
    complete = all(at_hand.issuperset(record.videos) for record in unfinished.values())
    return {} if complete else unfinished


def _lay_out(videos: pa.Table, taken: set[str], present: dict[str, ShardRecord]) -> dict[str, ShardRecord]:
    shards: dict[str, ShardRecord] = {}
    rows = zip(videos["video_id"].to_pylist(), videos["split"].to_pylist(), videos["frames"].to_pylist(), strict=True)
    filling: dict[str, tuple[list[str], int]] = {}

    def free(split: str) -> Iterator[str]:
        return (name for number in itertools.count() if (name := f"{split}-{number:05d}") not in present)

    names = {split: free(split) for split in ("train", "test")}

    def close(split: str) -> None:
        shards[next(names[split])] = ShardRecord(split, tuple(filling.pop(split)[0]))

    for video_id, split, frames in rows:
        if video_id in taken:
            continue
        ids, total = filling.get(split, ([], 0))
        filling[split] = ([*ids, video_id], total + frames)
        if total + frames >= FRAMES_PER_SHARD:
            close(split)
    for split in sorted(filling):
        close(split)
    return shards
