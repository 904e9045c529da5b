"""A store as people look at it: its shards and videos. Whatever is read of it is checked, and no size is believed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import simplejpeg
from jaxtyping import Integer, UInt8
from PIL import Image

from data_manifests.array_file import array_file, array_files
from data_manifests.did_you_mean import did_you_mean
from data_manifests.errors import InputError
from data_manifests.layout import MOST_PIXELS, SHARDS, Settings, data_file, frame_crc32c
from data_manifests.manifest import Manifest, ShardRecord, check_file, load_manifest
from data_manifests.object_store import ObjectStore
from data_manifests.shard_videos import ShardVideo, shard_videos
from data_manifests.tables import boxes_of, checked_table
from pipeline.reconcile import Tube

FRAMES_FILE = data_file(Path("frames/bytes"), 1).as_posix()
"""A shard's frames, one encoded image after another."""


@dataclass(frozen=True)
class StoredVideo(ShardVideo):
    """One video of a shard, with its tubes in frames and pixels of the stored frames.

    Args:
        row: in the shard's videos.
    """

    row: int
    tubes: tuple[Tube, ...]


class StoredShard:
    """One built shard. Arrays are read when they are asked for; the frames from `remote`, if the folder lacks them."""

    def __init__(
        self, store: Path, name: str, settings: Settings, record: ShardRecord, remote: ObjectStore | None = None
    ) -> None:
        """Raises InputError: one of its small files is missing or damaged."""
        self.name, self.settings, self.split, self.files = name, settings, record.split, record.files or {}
        self.folder, self._record, self._remote = store / SHARDS / name, record, remote
        for small in [file for file in self.files if file.endswith(".json")]:
            check_file(self.folder, small, self.files, deep=True)

    def __getitem__(self, array: str) -> np.ndarray:
        """A whole array, by its name in `data_manifests.layout.ARRAYS`.

        Raises:
            InputError: its file is damaged, or its metadata tell of more than there is.
        """
        check_file(self.folder, array_files(array, self.settings)[1], self.files, deep=True)
        return read_array(self.folder, array, self.settings, self._record)

    def table(self, name: str) -> pa.Table:
        """The shard's `videos` or `tubes`. Raises as an array does."""
        return checked_table(self.folder, f"{name}.parquet", self.files)

    @cached_property
    def videos(self) -> tuple[StoredVideo, ...]:
        """In the order of the shard's videos.parquet.

        Raises:
            InputError: the shard is another's, not the recorded one, or holds what no build makes.
        """
        table = self.table("tubes")
        index, label, first = (table[name].to_pylist() for name in ("tube", "label", "first_frame"))
        tubes: dict[str, list[Tube]] = {}
        for row, video_id in enumerate(table["video_id"].to_pylist()):
            tubes.setdefault(video_id, []).append(Tube(index[row], label[row], first[row], boxes_of(table, row)))
        videos = shard_videos(self.folder, self.table("videos"), self.name, self.settings, self._record)
        return tuple(
            StoredVideo(**vars(video), row=row, tubes=tuple(tubes.get(video.video_id, ())))
            for row, video in enumerate(videos)
        )

    def encoded(self, video: StoredVideo, start: int, stop: int) -> list[bytes]:
        """The stored bytes of frames `start` to `stop` of a video, their checksums checked.

        Raises:
            InputError: a frame is damaged.
        """
        rows = slice(video.first_row + start, video.first_row + stop)
        offsets, sums = self._offsets[rows.start : rows.stop + 1], self._sums[rows].tolist()
        content = self._stream(*offsets[[0, -1]].tolist())
        ends = (offsets - offsets[0]).tolist()
        frames = [content[begin:end] for begin, end in zip(ends, ends[1:])]
        for row, frame, expected in zip(range(rows.start, rows.stop), frames, sums, strict=True):
            if frame_crc32c(self.name, row, frame) != expected or not self._is_of(video, frame):
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

    def _stream(self, begin: int, end: int) -> bytes:
        if not 0 <= begin <= end <= self.files[FRAMES_FILE].size:
            return b""
        if self._remote is not None:
            return self._remote.read(f"{SHARDS}/{self.name}/{FRAMES_FILE}", begin, end) or b""
        with open(self.folder / FRAMES_FILE, "rb") as frames:
            frames.seek(begin)
            return frames.read(end - begin)

    def _is_of(self, video: StoredVideo, frame: bytes) -> bool:
        """Whether a frame has its video's size: before it is decoded."""
        if self.settings.frames == "raw":
            return len(frame) == video.width * video.height * 3
        try:
            height, width = simplejpeg.decode_jpeg_header(frame)[:2]
        except ValueError:
            return False
        return (width, height) == (video.width, video.height) and width * height <= MOST_PIXELS

    @cached_property
    def _offsets(self) -> Integer[np.ndarray, " F_and_1"]:
        return self["frames/offsets"]

    @cached_property
    def _sums(self) -> Integer[np.ndarray, " F"]:
        return self["frames/crc32c"]

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


def read_array(folder: Path, array: str, settings: Settings, record: ShardRecord) -> np.ndarray:
    """A whole array of a shard's folder, not checked but for what its metadata claim.

    Raises:
        InputError: its metadata are not of such an array, tell of more than its file holds, or of other rows than recorded.
        OSError: a file is missing.
    """
    found = array_file(folder, array, settings, record)
    return np.fromfile(found.path, found.dtype, found.values).reshape(found.shape)


def read_settings(manifest: Manifest) -> Settings:
    """The settings of a store."""
    return Settings.from_json(manifest.attributes.get("settings", {}))


def built_shards(
    store: Path, manifest: Manifest | None = None, remote: ObjectStore | None = None
) -> Iterator[StoredShard]:
    """Every shard that is built, by name.

    Args:
        remote: where the frames are, if the folder has all but them.

    Raises:
        InputError: there is no store, or it cannot be read.
    """
    manifest = manifest or load_manifest(store)
    settings = read_settings(manifest)
    for name, record in sorted(manifest.shards.items()):
        if record.files is not None:
            yield StoredShard(store, name, settings, record, remote)


def find_video(store: Path, video_id: str) -> tuple[StoredShard, StoredVideo]:
    """The shard that holds a video, and the video.

    Raises:
        InputError: no built shard has it.
    """
    manifest = load_manifest(store)
    for name, record in manifest.shards.items():
        if video_id in record.videos and record.files is None:
            raise InputError(
                f"{video_id} is not built yet", found=f"the store at {store} has it planned, in {name}",
                todo="run its `python -m pipeline build` again; it goes on from there",
            )  # fmt: skip
        if video_id in record.videos:
            shard = StoredShard(store, name, read_settings(manifest), record)
            return shard, next(video for video in shard.videos if video.video_id == video_id)
    known = [video for record in manifest.shards.values() for video in record.videos]
    raise InputError(
        f"the store at {store} has no video {video_id!r}", found=f"{len(known)} videos, the first {known[:1]}",
        todo=did_you_mean(video_id, known, "choose a video of it: `python -m pipeline inspect STORE --browse` shows them"),
    )  # fmt: skip
