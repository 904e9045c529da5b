"""A store as people look at it: its shards and videos, read with plain zarr and pyarrow."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from jaxtyping import Float32, Integer, UInt8
from PIL import Image

from data_manifests.errors import InputError
from data_manifests.layout import PRIORS, ROOT, SHARDS, Settings, data_file, frame_crc32c
from data_manifests.manifest import Manifest, ShardRecord, check_file, load_manifest
from data_manifests.tables import boxes_of
from pipeline.reconcile import Tube


@dataclass(frozen=True)
class StoredVideo:
    """One video of a shard, with its tubes in frames and pixels of the stored frames.

    Args:
        row: in the shard's videos.
        first_row: frame row of its first frame.
        rules: how its annotations were reconciled with the decoded file.
    """

    video_id: str
    row: int
    frames: int
    width: int
    height: int
    first_row: int
    decoder: str
    rules: tuple[str, ...]
    tubes: tuple[Tube, ...]


class StoredShard:
    """One built shard. Arrays are read when they are asked for."""

    def __init__(self, store: Path, name: str, settings: Settings, record: ShardRecord) -> None:
        self.name, self.settings, self.split, self.files = name, settings, record.split, record.files or {}
        self.folder = store / SHARDS / name
        self.group: Any = zarr.open_group(check_file(self.folder, ROOT, self.files, deep=True).parent, mode="r")

    def array(self, name: str) -> Any:
        """An array to be sliced, by its name in `data_manifests.layout.ARRAYS`.

        Raises:
            InputError: it is missing, or its metadata is damaged.
        """
        check_file(self.folder, f"{name}/{ROOT}", self.files, deep=True)
        return self.group[name]

    def __getitem__(self, array: str) -> np.ndarray:
        """A whole array.

        Raises:
            InputError: it is missing or damaged.
        """
        stored = self.array(array)
        check_file(self.folder, data_file(Path(array), stored.ndim).as_posix(), self.files, deep=True)
        return stored[:]

    def table(self, name: str) -> pa.Table:
        """One of the shard's tables, by its file's name. Raises as an array does."""
        return pq.read_table(check_file(self.folder, name, self.files, deep=True))

    @cached_property
    def videos(self) -> tuple[StoredVideo, ...]:
        """In the order of the shard's videos.parquet."""
        table = self.table("tubes.parquet")
        index, label, first = (table[name].to_pylist() for name in ("tube", "label", "first_frame"))
        tubes: dict[str, list[Tube]] = {}
        for row, video_id in enumerate(table["video_id"].to_pylist()):
            tubes.setdefault(video_id, []).append(Tube(index[row], label[row], first[row], boxes_of(table, row)))
        notes = {note["video_id"]: note for note in self.group.attrs["videos"]}
        return tuple(
            StoredVideo(
                video["video_id"], row, video["frames"], video["width"], video["height"],
                notes[video["video_id"]]["first_row"], notes[video["video_id"]]["decoder"],
                tuple(notes[video["video_id"]]["rules"]), tuple(tubes.get(video["video_id"], ())),
            )
            for row, video in enumerate(self.table("videos.parquet").to_pylist())
        )  # fmt: skip

    def encoded(self, video: StoredVideo, start: int, stop: int) -> list[bytes]:
        """The stored bytes of frames `start` to `stop` of a video, their checksums checked.

        Raises:
            InputError: a frame is damaged.
        """
        rows = slice(video.first_row + start, video.first_row + stop)
        offsets = self.array("frames/offsets")[rows.start : rows.stop + 1]
        content = self.array("frames/bytes")[offsets[0] : offsets[-1]].tobytes()
        sums = self.array("frames/crc32c")[rows].tolist()
        ends = (offsets - offsets[0]).tolist()
        frames = [content[begin:end] for begin, end in zip(ends, ends[1:])]
        for row, frame, expected in zip(range(rows.start, rows.stop), frames, sums, strict=True):
            if frame_crc32c(self.name, row, frame) != expected:
                raise InputError(
                    f"shard {self.name}: frame row {row} is damaged", todo="python -m pipeline verify STORE --repair"
                )
        return frames

    def frames(self, video: StoredVideo, start: int, stop: int) -> list[UInt8[np.ndarray, "height width 3"]]:
        """The decoded frames `start` to `stop` of a video. Raises as `encoded` does."""
        encoded = self.encoded(video, start, stop)
        if self.settings.frames == "raw":
            return [np.frombuffer(frame, np.uint8).reshape(video.height, video.width, 3) for frame in encoded]
        return [np.asarray(Image.open(io.BytesIO(frame))) for frame in encoded]

    def clip_starts(self, video: StoredVideo) -> tuple[Integer[np.ndarray, " C"], Integer[np.ndarray, " C"]]:
        """The rows of a video's clips in the shard, and their first frames in the video."""
        rows = np.flatnonzero(self.clip_video == video.row)
        return rows, self.clip_first_frame[rows]

    @cached_property
    def clip_video(self) -> Integer[np.ndarray, " C"]:
        """Row of each clip's video."""
        return self["clips/video"]

    @cached_property
    def clip_first_frame(self) -> Integer[np.ndarray, " C"]:
        """Each clip's first frame in its video."""
        return self["clips/first_frame"]


def read_settings(store: Path) -> Settings:
    """The settings of a store.

    Raises:
        InputError: its root group is missing.
    """
    if not (store / ROOT).is_file():
        raise InputError(f"{store / ROOT} is missing", todo="python -m pipeline verify STORE --repair")
    return Settings.from_json(zarr.open_group(store, mode="r").attrs["settings"])  # type: ignore[arg-type]


def read_priors(store: Path) -> Float32[np.ndarray, "P 4"]:
    """The store's priors.

    Raises:
        InputError: they are missing.
    """
    if not (store / PRIORS / ROOT).is_file():
        raise InputError(f"{store / PRIORS} is missing", todo="python -m pipeline verify STORE --repair")
    return np.asarray(zarr.open_array(store / PRIORS, mode="r")[:])


def built_shards(store: Path, manifest: Manifest | None = None) -> Iterator[StoredShard]:
    """Every shard that is built, by name.

    Raises:
        InputError: there is no store, or it cannot be read.
    """
    manifest = manifest or load_manifest(store)
    settings = read_settings(store)
    for name, record in sorted(manifest.shards.items()):
        if record.files is not None:
            yield StoredShard(store, name, settings, record)


def find_video(store: Path, video_id: str) -> tuple[StoredShard, StoredVideo]:
    """The shard that holds a video, and the video.

    Raises:
        InputError: no built shard has it.
    """
    manifest = load_manifest(store)
    for name, record in manifest.shards.items():
        if video_id in record.videos and record.files is not None:
            shard = StoredShard(store, name, read_settings(store), record)
            return shard, next(video for video in shard.videos if video.video_id == video_id)
    known = [video for record in manifest.shards.values() for video in record.videos]
    raise InputError(
        f"the store at {store} has no video {video_id!r}", found=f"{len(known)} videos, the first {known[:1]}",
        todo="choose a video of its tables/videos.parquet",
    )  # fmt: skip
