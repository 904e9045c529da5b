"""Random windows of real videos: read, checked, decoded and resampled from a store, against memory and other ways."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2

from tests.benchmarks.frame_readers import draw_windows, open_readers, write_copies
from tests.benchmarks.harness import Row, compare_all
from tests.benchmarks.real_store import build_real, real_root
from trainer.data.reader import Store

EVERY, WINDOWS, PROCESSES = 9, 64, 2
ROUNDS = 14  # each way is twice the first one
WANTED = {
    "memory": 0.95,
    "cv2.imread, a JPEG file a frame": 1.3,
    "decord, kept open": 4.0,
    "zarr, default chunks and codec": 1.6,
    "zarr, a chunk a frame": None,
    "litdata, JPEG bytes": 1.1,
}
_calls: dict[str, Callable[[], None]] = {}


def _open(folder: Path, root: Path) -> None:
    cv2.setNumThreads(1)
    store = Store.open(folder / "store")
    _calls.update(open_readers(store, folder, root, draw_windows(store, WINDOWS)))


def _read(name: str) -> None:
    _calls[name]()


def bench() -> list[Row]:
    """64 windows of 8 real videos, page cache warm, all ways in turn; in one process, then in two at once."""
    root = real_root()
    if root is None:
        return []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_copies(Store.open(build_real(root, folder / "store", EVERY)), folder)
        _open(folder, root)
        peers = {peer: (lambda peer=peer: _read(peer), wanted) for peer, wanted in WANTED.items()}
        rows = compare_all("random windows", lambda: _read("store"), peers, samples=ROUNDS)
        _calls.clear()
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(PROCESSES, spawn, initializer=_open, initargs=(folder, root)) as pool:

            def all_read(way: str) -> Callable[[], None]:
                return lambda: list(pool.map(_read, [way] * PROCESSES)) and None

            peers = {peer: (all_read(peer), wanted) for peer, wanted in WANTED.items()}
            rows += compare_all(f"random windows, {PROCESSES} processes", all_read("store"), peers, samples=ROUNDS)
    return rows
