"""The whole loader (order, workers, collation, hand-over) against its processes reading alone."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import cv2

from tests.benchmarks.first_batch import WORKERS as MANY
from tests.benchmarks.first_batch import measured
from tests.benchmarks.harness import Row, machine, row, seconds
from tests.benchmarks.real_store import build_real, real_root
from trainer.data.batch import Batch
from trainer.data.loader import Loader
from trainer.data.order import sample_at
from trainer.data.reader import Store
from trainer.data.resample import resample

EVERY, WORKERS, BATCH, STEPS, SEED, SAMPLES = 9, 2, 8, 40, 0, 7
_store: list[Store] = []


def _open(path: Path) -> None:
    cv2.setNumThreads(0)
    _store[:] = [Store.open(path, "train")]


def _read(positions: range) -> None:
    store = _store[0]
    for position in positions:
        place = sample_at(SEED, position, store.clips, store.meta.views)
        sample = store.sample(place.clip, place.view)
        resample(sample.frames, sample.rectangle, sample.mirrored, store.meta.image_size)


def _steps(batches: Iterator[Batch]) -> float:
    """Seconds of `STEPS` batches. Those that lay ready, read while nobody waited, are taken first, uncounted."""
    for _ in range(8 * WORKERS):
        next(batches)
    start = time.perf_counter()
    for _ in range(STEPS):
        next(batches)
    return time.perf_counter() - start


def _starts(store: Path) -> list[Row]:
    """Workers until the first batch, to such as import torch, as those of its own loader must."""
    pairs = [(measured(store), measured(store, "torch")) for _ in range(3)]
    (waits, memory), (their_waits, theirs) = (zip(*(pair[side] for pair in pairs)) for side in (0, 1))
    texts = f"{median(memory):.0f} MB", f"with torch: {median(theirs):.0f} MB"
    ratios = sorted(b / a for a, b in zip(memory, theirs))
    return [
        row(f"until the first batch of {MANY} workers", list(waits), "with torch", list(their_waits)),
        Row(f"memory of {MANY} workers", *texts, median(ratios), (ratios[0], ratios[-1]), len(pairs), machine()),
    ]


def bench() -> list[Row]:
    """Samples of 8 real videos: 40 batches of 8 from 2 workers, and the same number read by 2 processes; and what workers
    cost before the first batch.
    """
    root = real_root()
    if root is None:
        return []
    with tempfile.TemporaryDirectory() as name:
        path = build_real(root, Path(name) / "store", EVERY)
        spawn = multiprocessing.get_context("spawn")
        shares = [range(worker, STEPS * BATCH, WORKERS) for worker in range(WORKERS)]
        loader = Loader(Store.open(path, "train"), seed=SEED, global_batch=BATCH, workers=WORKERS)
        with ProcessPoolExecutor(WORKERS, spawn, initializer=_open, initargs=(path,)) as pool:
            batches = iter(loader)
            _steps(batches)
            list(pool.map(_read, shares))
            pairs = [(_steps(batches), seconds(lambda: list(pool.map(_read, shares)))) for _ in range(SAMPLES)]
            batches.close()  # type: ignore[attr-defined]
        starts = _starts(path)
    ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    return [row("the whole loader, 2 workers", ours, "2 processes that only read", theirs, 0.9), *starts]
