"""A shard's videos: what its table, its attributes and the manifest tell of them, held against each other."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_manifests.errors import InputError
from data_manifests.layout import MOST_PIXELS, ROOT, Settings
from data_manifests.manifest import ShardRecord, plain_path


@dataclass(frozen=True)
class ShardVideo:
    """One video of a shard.

    Args:
        first_row: frame row of its first frame.
        decoder: that read it.
        rules: how its annotations were reconciled with the decoded file.
    """

    video_id: str
    frames: int
    width: int
    height: int
    first_row: int
    decoder: str
    rules: tuple[str, ...]


def shard_videos(
    folder: Path, table: pa.Table, name: str, settings: Settings, record: ShardRecord
) -> tuple[ShardVideo, ...]:
    """The videos of a shard, in the order of its table.

    Args:
        folder: of the shard, whose attributes are read there.
        table: its videos.parquet.
        name: that the shard should have.

    Raises:
        InputError: the shard is another's, or not the recorded one, or tells what no build makes.
    """
    attributes = read_attributes(folder / ROOT)
    theirs = attributes.get("shard"), attributes.get("settings_digest")
    if theirs != (name, settings.digest):
        raise InputError(
            f"{folder} is a shard of another store or place",
            found=f"{theirs[0]}, settings {str(theirs[1])[:12]}",
            wanted=f"{name}, settings {settings.digest[:12]}",
            todo="python -m pipeline verify STORE --repair",
        )
    rows = table.to_pylist()
    try:
        videos = _videos(rows, attributes["videos"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} holds what no build makes", found=f"{type(error).__name__}: {error}", todo="build the store anew"
        ) from error
    splits = sorted({row["split"] for row in rows})
    frames = sum(video.frames for video in videos)
    if (tuple(video.video_id for video in videos), splits, frames) != (record.videos, [record.split], record.frames):
        raise InputError(
            f"{folder} is not the shard that was recorded",
            found=f"{len(videos)} videos of {frames} frames, {', '.join(splits)}",
            wanted=f"{len(record.videos)} videos of {record.frames} frames, {record.split}, by name",
            todo="python -m pipeline verify STORE --repair",
        )
    return videos


def _videos(rows: list[dict[str, Any]], notes: list[dict[str, Any]]) -> tuple[ShardVideo, ...]:
    videos, first_row = [], 0
    for row, note in zip(rows, notes, strict=True):
        video_id, frames, width, height = plain_path(row["video_id"]), row["frames"], row["width"], row["height"]
        if min(width, height) < 1 or width * height > MOST_PIXELS or frames < 0:
            raise ValueError(f"{frames} frames of {width} x {height}, of {video_id}")
        if note["video_id"] != video_id or note["first_row"] != first_row:
            raise ValueError(
                f"{note['video_id']} from row {note['first_row']}, {video_id} is there from row {first_row}"
            )
        rules = tuple(str(rule) for rule in note["rules"])
        videos.append(ShardVideo(video_id, frames, width, height, first_row, str(note["decoder"]), rules))
        first_row += frames
    return tuple(videos)


def read_attributes(metadata: Path) -> dict[str, Any]:
    """The attributes of a zarr group.

    Raises:
        InputError: there are none.
    """
    try:
        attributes = json.loads(metadata.read_bytes())["attributes"]
        if not isinstance(attributes, dict):
            raise TypeError(f"attributes that are {attributes!r:.40}")
        return attributes
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{metadata} is not what a build makes",
            found=f"{type(error).__name__}: {error}",
            todo="build the store anew",
        ) from error
