"""`python -m pipeline report STORE`: a store as one HTML page that needs no network and no other file."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_manifests.layout import Settings
from data_manifests.manifest import load_manifest, write_atomically
from data_manifests.object_store import ObjectStore
from data_manifests.priors import prior_shapes
from pipeline.alignment import Alignment, measure_alignment
from pipeline.census import LENGTHS, MATCHES, OVERLAPS, SIZES, Census
from pipeline.drawing import draw_tubes
from pipeline.reconcile import RULES
from pipeline.report_page import PAGE
from pipeline.stored import StoredShard, StoredVideo, built_shards, read_settings
from pipeline.strangest import StrangeClip, Strangest

SAMPLER_NAMES = (
    "whole canvas", "overlap 0.1", "overlap 0.3", "overlap 0.5", "overlap 0.7", "overlap 0.9", "any crop",
    "fell back to the whole frame",
)  # fmt: skip
"""In the order of `views/sampler`."""
THUMBNAIL = 150
"""Width of one frame of a thumbnail, pixels."""


Watch = Callable[[Sequence[StoredShard]], Iterable[StoredShard]]
"""Hands on the shards as they are read; it may show how far it is."""


def report_data(store: Path, watch: Watch = iter, remote: ObjectStore | None = None) -> dict[str, Any]:
    """All that the page shows, for JSON.

    Args:
        remote: where the frames are, if the folder has all but them.

    Raises:
        InputError: there is no store, or a frame that is shown is damaged.
    """
    manifest = load_manifest(store)
    settings = read_settings(manifest)
    shards = list(built_shards(store, manifest, remote))
    census, strangest = Census(settings), Strangest(settings.K, settings.image_size)
    rules: dict[str, list[str]] = {}
    for shard in watch(shards):
        strangest.add(shard, census.add(shard))
        for video in shard.videos:
            for rule in video.rules:
                rules.setdefault(rule, []).append(video.video_id)
    of_video = {video.video_id: (shard, video) for shard in shards for video in shard.videos}
    alignment = measure_alignment(shards)
    return {
        "title": settings.title,
        "about": _about(settings, census, len(manifest.unfinished), len(manifest.skipped)),
        "health": _health(alignment, manifest.unfinished),
        "classes": settings.classes,
        "groups": _groups(census),
        "lengths": [f"{start}+" for start in LENGTHS],
        "matches": [f"{start}" if end == start + 1 else f"{start}+" for start, end in zip(MATCHES, (*MATCHES[1:], 0))],
        "overlaps": [f"{i / OVERLAPS:.2f}" for i in range(OVERLAPS)],
        "sizes": [edge * settings.image_size for edge in SIZES],
        "layers": [layer.name for layer in settings.priors.layers],
        "priors": [
            (number, *map(float, shape))
            for number, layer in enumerate(settings.priors.layers)
            for shape in prior_shapes(layer)
        ],
        "samplers": list(zip(SAMPLER_NAMES, census.views.tolist())),
        "rules": [(rule, RULES.get(rule, ""), videos) for rule, videos in sorted(rules.items())],
        "strange": [_strange(clip, *of_video[clip.video_id]) for clip in strangest.clips()],
    }


def write_report(store: Path, page: Path, watch: Watch = iter, remote: ObjectStore | None = None) -> Path:
    """Writes the page, whole or not at all. Arguments and errors as of `report_data`."""
    data = json.dumps(report_data(store, watch, remote), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(page, PAGE.replace("@DATA@", data).encode())
    return page


def _about(settings: Settings, census: Census, unfinished: int, skipped: int) -> list[tuple[str, str]]:
    return [
        (
            "clips",
            f"K = {settings.K}, stride {settings.stride}, {settings.views} augmented views, seed {settings.seed}",
        ),
        ("matching", f"positive from {settings.positive_overlap}, ignored from {settings.negative_overlap}"),
        ("ignored priors", f"{census.ignored:,}"),
        ("frames", settings.frames + (f", longer side at most {settings.max_side}" if settings.max_side else "")),
        ("unfinished shards", str(unfinished)),
        ("videos that were not there", str(skipped)),
        ("settings", settings.digest),
    ]


def _health(alignment: Alignment, unfinished: list[str]) -> list[tuple[bool, str]]:
    told = [(False, f"{len(unfinished)} shards are not built yet: they are not in this page")] if unfinished else []
    return told + [(False, warning) for warning in alignment.warnings] + [(True, alignment.summary)]


def _groups(census: Census) -> list[dict[str, Any]]:
    groups = []
    for (split, label), count in sorted(census.counts.items()):
        group: dict[str, Any] = {"split": split, "label": label}
        for name, value in vars(count).items():
            group[name] = value.tolist() if isinstance(value, np.ndarray) else value
        groups.append(group)
    return groups


def _strange(clip: StrangeClip, shard: StoredShard, video: StoredVideo) -> dict[str, Any]:
    K = shard.settings.K
    frames = shard.frames(video, clip.first_frame, clip.first_frame + K)
    shown = sorted({0, K // 2, K - 1})
    sheet = Image.new("RGB", (THUMBNAIL * len(shown), max(1, round(THUMBNAIL * video.height / video.width))))
    for place, k in enumerate(shown):
        sheet.paste(draw_tubes(frames[k], clip.first_frame + k, video, THUMBNAIL), (place * THUMBNAIL, 0))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=70)
    return {
        "id": clip.video_id,
        "first": clip.first_frame,
        "split": shard.split,
        "label": clip.label,
        "reasons": [(strange.reason, strange.amount, strange.detail) for strange in clip.reasons],
        "picture": "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode(),
        "size": sheet.size,
        "frames": [clip.first_frame + k for k in shown],
    }
