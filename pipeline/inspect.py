"""Looks into a store: what it holds, and what one of its clips shows and should teach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from data_manifests.errors import InputError
from data_manifests.layout import IGNORED
from data_manifests.manifest import load_manifest
from data_manifests.priors import read_priors
from pipeline.census import Census
from pipeline.drawing import ClipPicture, decode, see
from pipeline.stored import StoredShard, StoredVideo, built_shards, find_video, read_settings
from pipeline.verify import verify


def describe_store(store: Path) -> dict[str, Any]:
    """What a store holds, for a person or a machine.

    Raises:
        InputError: there is no store, or one of the files that are read is damaged.
    """
    manifest = load_manifest(store)
    settings = read_settings(manifest)
    splits: dict[str, dict[str, Any]] = {}
    rules: dict[str, list[str]] = {}
    for record in manifest.shards.values():
        row = splits.setdefault(
            record.split, dict.fromkeys(("shards", "videos", "frames", "clips", "views", "targets", "bytes"), 0)
        )
        row["shards"] += 1
        row["videos"] += len(record.videos)
        row["frames"] += record.frames
        row["clips"] += record.clips
        row["views"] += record.clips * (1 + settings.views)
        row["targets"] += record.targets
        row["bytes"] += sum(file.size for file in (record.files or {}).values())
    census = Census(settings)
    for shard in built_shards(store, manifest):
        census.add(shard)
        for video in shard.videos:
            for rule in video.rules:
                rules.setdefault(rule, []).append(video.video_id)
    for row in splits.values():
        row["targets_per_view"] = row["targets"] / max(1, row["views"])
    shown = ("dataset", "K", "stride", "views", "seed", "positive_overlap", "negative_overlap", "frames", "max_side")
    return {
        "title": settings.title,
        "settings": {**{name: getattr(settings, name) for name in shown}, "classes": ", ".join(settings.classes)},
        "settings_digest": settings.digest,
        "splits": splits,
        "classes": [
            {"split": split, "class": settings.classes[label], **count.summary()}
            for (split, label), count in sorted(census.counts.items())
        ],
        "rules": rules,
        "skipped": len(manifest.skipped),
        "unfinished": manifest.unfinished,
        "health": [str(finding) for finding in verify(store) if finding.shard not in manifest.unfinished],
    }


def find_clip(store: Path, clip: str, view: int) -> ClipPicture:
    """The clip named VIDEO_ID:FIRST_FRAME, seen through a view.

    Raises:
        InputError: there is no such video, clip or view, or a frame's checksum does not fit.
    """
    video_id, _, first = clip.rpartition(":")
    if not video_id or not first.isdigit():
        raise InputError(
            f"--clip {clip}", wanted="VIDEO_ID:FIRST_FRAME, like Surfing/v_Surfing_g08_c01:30", todo="mend it"
        )
    shard, video = find_video(store, video_id)
    return clip_picture(store, shard, video, int(first), view)


def clip_picture(store: Path, shard: StoredShard, video: StoredVideo, first: int, view: int) -> ClipPicture:
    """The clip that begins at a video's frame `first`, seen through a view. Raises as `find_clip`."""
    settings = shard.settings
    if not 0 <= view <= settings.views:
        raise InputError(f"--view {view}", wanted=f"0 to {settings.views}", todo="choose another")
    clips, starts = shard.clip_starts(video)
    place = np.flatnonzero(starts == first)
    if not len(place):
        near = starts[np.argsort(np.abs(starts - first))[:5]].tolist()
        raise InputError(
            f"video {video.video_id} has no valid clip at frame {first}",
            found=f"{len(starts)} clips, the nearest at frames {near}",
            todo="choose one of those",
        )
    row = int(clips[place[0]])
    rectangle, mirrored = shard["views/rectangle"][row, view], bool(shard["views/mirrored"][row, view])
    frames = [
        see(frame, rectangle, mirrored, settings.image_size) for frame in shard.frames(video, first, first + settings.K)
    ]
    at = row * (1 + settings.views) + view
    begin, end = shard["targets/offsets"][at : at + 2]
    prior, label, tube, loc = (shard[f"targets/{name}"][begin:end] for name in ("prior", "label", "tube", "loc"))
    priors = read_priors(store, load_manifest(store), settings.priors)[prior]
    boxes = decode(loc, priors, settings.variances)
    names = ["ignored" if value == IGNORED else settings.classes[value - 1] for value in label]
    title = f"{video.video_id}:{first} view {view}"
    return ClipPicture(title, frames, names, tube, priors, boxes)
