"""Stores of the real videos, for the benchmarks that need one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data_manifests.card import Card, load_card
from data_manifests.manifest import ShardRecord
from pipeline.build import build
from pipeline.plan import Plan, make_plan
from tests.pipeline.own_data import plain_settings
from tests.pipeline.small_store import Here


def real_root() -> Path | None:
    """Where the real videos lie, or None."""
    shared = Path(os.environ.get("TUBELETS_SHARED", Path(__file__).resolve().parents[3] / "shared"))
    root = Path(os.environ.get("TUBELETS_REAL", shared / "real")) / "ucf101"
    return root if root.is_dir() else None


def plan_real(root: Path, every: int, per_shard: int) -> Callable[..., tuple[Plan, Card]]:
    """Plans of every so-many-th video, in shards of `per_shard` videos; called with the settings that are not defaults."""
    card = load_card("ucf101")
    whole = make_plan(card, root, plain_settings(card), missing="skip")
    rows = whole.videos.to_pylist()[::every]
    chosen = [row["video_id"] for row in rows]
    shards = {}
    for split in ("train", "test"):
        ids = [row["video_id"] for row in rows if row["split"] == split]
        for number, at in enumerate(range(0, len(ids), per_shard)):
            shards[f"{split}-{number:05d}"] = ShardRecord(split, tuple(ids[at : at + per_shard]))
    tubes = whole.annotations.tubes
    tubes = tubes.filter(pc.is_in(tubes["video_id"], pa.array(chosen)))
    small = replace(whole, shards=shards, skipped={}, annotations=replace(whole.annotations, tubes=tubes))
    return lambda **settings: (replace(small, settings=plain_settings(card, **settings)), card)


def build_real(root: Path, store: Path, every: int) -> Path:
    """A store of every so-many-th real video, with the default settings."""
    plan, card = plan_real(root, every, 4)()
    build(plan, card, root, store, workers=1, executor=Here())
    return store
