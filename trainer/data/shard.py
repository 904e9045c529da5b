"""One shard of a store, open: its arrays memory-mapped, its files checked against the manifest.

A file that is cut off while it is mapped ends the process that reads from it by SIGBUS, without a message. Nothing here cuts a
file off: builds and repairs put new ones in their places, and who has mapped the old ones keeps them.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_manifests.array_file import array_file, array_files
from data_manifests.layout import ARRAYS, ROOT, SHARDS, Settings, checked_at_opening
from data_manifests.manifest import ShardRecord, check_file
from data_manifests.shard_videos import ShardVideo, shard_videos
from data_manifests.tables import VIDEOS, read_table
from trainer.data.mapping import map_file

VIDEOS_FILE = "videos.parquet"
OPEN_AT_ONCE = 3000
"""Shards that a process maps at a time: of the 65,530 pieces of memory that Linux allows it, each takes 18."""
LEAST_OPEN = 100
"""Of a store that is opened when others have taken those."""
_room = OPEN_AT_ONCE


@dataclass(frozen=True)
class Shard:
    """One shard's arrays, memory-mapped and read-only, by their names in `data_manifests.layout.ARRAYS`."""

    name: str
    folder: Path
    arrays: dict[str, np.ndarray]
    videos: tuple[ShardVideo, ...]

    def video(self, video_id: str) -> ShardVideo:
        """One of its videos."""
        return next(video for video in self.videos if video.video_id == video_id)


class Shards:
    """A store's shards, by name. They are open while the process has room for them; else each is when it is asked for,
    as others are closed.

    Attributes:
        of_video: the name of each video's shard.
    """

    def __init__(self, store: Path, records: dict[str, ShardRecord], settings: Settings) -> None:
        """Opens them, if there is room.

        Raises:
            InputError: see `open_shard`.
        """
        self.names = tuple(records)
        self.of_video = {video_id: name for name, record in records.items() for video_id in record.videos}
        most = _take_room(len(records))
        weakref.finalize(self, _give_back, most).atexit = False
        self._open = lru_cache(most)(lambda name: open_shard(store, name, records[name], settings))
        if len(records) <= most:
            for name in records:
                self._open(name)

    def __getitem__(self, name: str) -> Shard:
        """Raises InputError: see `open_shard`."""
        return self._open(name)

    def reopen(self) -> None:
        """Forgets what is open: files were replaced."""
        self._open.cache_clear()


def _take_room(shards: int) -> int:
    global _room
    taken = min(shards, max(_room, LEAST_OPEN))
    _room -= taken
    return taken


def _give_back(taken: int) -> None:
    global _room
    _room += taken


def open_shard(store: Path, name: str, record: ShardRecord, settings: Settings) -> Shard:
    """Opens a shard. Sizes of all its files and checksums of the small ones are checked here, the rows' checksums among them.

    Raises:
        InputError: a file is missing or damaged, or the shard is another's, not the recorded one, or holds what no build makes.
    """
    folder, files = store / SHARDS / name, record.files or {}
    needed = {ROOT, VIDEOS_FILE, *(file for array in ARRAYS for file in array_files(array, settings))}
    for path in sorted(files.keys() | needed):
        check_file(folder, path, files, deep=checked_at_opening(path))
    videos = shard_videos(folder, read_table(folder / VIDEOS_FILE, VIDEOS), name, settings, record)
    arrays = {array: _map(folder, array, settings, record) for array in ARRAYS}
    return Shard(name, folder, arrays, videos)


def _map(folder: Path, array: str, settings: Settings, record: ShardRecord) -> np.ndarray:
    path, dtype, shape = found = array_file(folder, array, settings, record)
    if not found.values:
        return np.zeros(shape, dtype)
    return map_file(path, found.values * dtype.itemsize).view(dtype).reshape(shape)
