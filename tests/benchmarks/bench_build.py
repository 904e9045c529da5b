"""Building a store of real videos, against decoding them alone with the same workers."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from data_manifests.card import Card
from data_manifests.manifest import load_manifest
from pipeline.build import build
from pipeline.decoding import Decoding, encode_frame
from pipeline.frames import open_frames
from pipeline.jobs import _start_worker
from pipeline.plan import Plan
from tests.benchmarks.harness import Row, compare_all, machine
from tests.benchmarks.real_store import plan_real, real_root
from tests.pipeline.small_store import Here

PER_SHARD, WORKERS, IMAGES_OF_EVERY = 11, 2, 5
MOST = 1.3
"""A build may cost this many times what decoding costs."""
LIMIT = 3600.0
"""Seconds a video, as by default: a build decodes in processes that can be killed, decoding alone in the workers themselves."""


def _decode(path: Path) -> None:
    for _ in open_frames(path):
        pass


def _recode(path: Path) -> None:
    for frame in open_frames(path):
        encode_frame(frame, "jpeg:95")


def _estimate(plan: Callable[..., tuple[Plan, Card]], root: Path) -> Row:
    """Bytes of the shards of all 65 videos with 9 views by `plan`, to those built; the smaller / the larger."""
    planned, card = plan(views=8)
    with tempfile.TemporaryDirectory() as store:
        build(planned, card, root, Path(store), workers=1, executor=Here())
        records = load_manifest(Path(store)).shards.values()
    built = sum(file.size for record in records for file in (record.files or {}).values())
    ratio = min(planned.bytes, built) / max(planned.bytes, built)
    texts = f"{planned.bytes / 1e6:.0f} MB planned", f"{built / 1e6:.0f} MB built"
    return Row("plan's estimate of the 65 real videos", *texts, ratio, (ratio, ratio), 1, machine(), 0.9)


def _as_images(root: Path, folder: Path) -> Path:
    """A root with the frames of every fifth real video as JPEGs (those of as many frames as annotated)."""
    (folder / "annotations").symlink_to(root / "annotations")
    for row in plan_real(root, 1, PER_SHARD)()[0].videos.to_pylist()[::IMAGES_OF_EVERY]:
        frames = [encode_frame(frame, "jpeg:95") for frame in open_frames(root / row["path"])]
        if len(frames) == row["frames"]:
            images = folder / "rgb-images" / row["video_id"]
            images.mkdir(parents=True)
            for number, frame in enumerate(frames, 1):
                (images / f"{number:05d}.jpg").write_bytes(frame)
    return folder


def _paths(root: Path, plan: Plan) -> list[Path]:
    places = {row["video_id"]: root / row["path"] for row in plan.videos.to_pylist()}
    return [places[video_id] for record in plan.shards.values() for video_id in record.videos]


def bench() -> list[Row]:
    """All 65 real videos in shards of eleven, 2 warm worker processes, flushing to disk included; and folders of JPEGs.

    The ratio is the peer's time / the build's: decoding 1, a build within 1.3 times that at least 0.77.
    """
    root = real_root()
    if root is None:
        return []
    plan = plan_real(root, 1, PER_SHARD)
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as stores,  # removed when nothing is timed any more
        tempfile.TemporaryDirectory() as images,
        ProcessPoolExecutor(WORKERS, spawn, initializer=_start_worker) as pool,
    ):

        def measured(name: str, root: Path, planned: Plan, card: Card) -> list[Row]:
            def built() -> None:
                store = Path(tempfile.mkdtemp(dir=stores))
                build(planned, card, root, store, workers=WORKERS, executor=pool, decoding=Decoding(limit=LIMIT))

            paths = _paths(root, planned)
            peers = {
                "decoding alone": (lambda: list(pool.map(_decode, paths)), round(1 / MOST, 2)),
                "decoding and JPEG encoding alone": (lambda: list(pool.map(_recode, paths)), None),
            }
            return compare_all(name, built, peers, samples=3)

        rows = [_estimate(plan, root)]
        for views in (0, 8):
            rows += measured(f"building with {1 + views} views", root, *plan(views=views))
        folders = _as_images(root, Path(images))
        rows += measured("building from JPEGs with 9 views", folders, *plan_real(folders, 1, 3)(views=8))
    return rows
