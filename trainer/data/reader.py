"""Reads a store: any clip through any view, any frame of any video, each row's checksum checked each time it is read."""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import simplejpeg
from jaxtyping import Float32, Int16, Integer, UInt8

from data_manifests.errors import InputError
from data_manifests.layout import (
    ROOT,
    TABLES,
    Settings,
    check_version,
    digest,
    frame_crc32c,
    view_crc32c,
    view_heads,
)
from data_manifests.manifest import Manifest, check_file, load_manifest
from data_manifests.priors import read_priors
from data_manifests.shard_videos import ShardVideo, read_attributes
from data_manifests.tables import checked_table
from trainer.data.shard import Shard, Shards
from trainer.place import Place

VIEWS = ("rectangle", "mirrored", "sampler", "kept")
REPLICATED = True
"""A JPEG's half-size colour is repeated, not interpolated. FFmpeg made RGB of the video's in the same way, so the frames come
out nearer to those that were encoded (45.8 instead of 44.2 dB over 65 of UCF101), and sooner."""


class Targets(NamedTuple):
    """The targets of one view: positives ascending by prior, then ignored priors (label 255)."""

    prior: Integer[np.ndarray, " M"]
    label: Integer[np.ndarray, " M"]
    tube: Integer[np.ndarray, " M"]
    overlap: Float32[np.ndarray, " M"]
    loc: Float32[np.ndarray, "M K 4"]


class Sample(NamedTuple):
    """A clip seen through a view: K native frames, the view's rectangle and bit, its targets, and its name."""

    frames: UInt8[np.ndarray, "K height width 3"]
    rectangle: Int16[np.ndarray, "4"]
    mirrored: bool
    targets: Targets
    video_id: str
    first_frame: int
    view: int


class Store:
    """An open store, or one split of it.

    Attributes:
        path: of the folder that it is read from.
        place: to open it from again.
        split: None for all of it.
        meta: the settings that decided its content.
        priors: (P, 4) in [0, 1].
        clips: number of clips of the split, numbered from 0.
        shards: those of the split.
        content_digest: equal for stores of equal bytes.
    """

    def __init__(self, path: Path, split: str | None) -> None:
        """See `Store.open`."""
        self.path, self.split = path, split
        self.place: Place = path
        manifest = load_manifest(path)
        check_finished(manifest, str(path))
        self.meta = _read_settings(path, manifest)
        self.priors: Float32[np.ndarray, "P 4"] = read_priors(path, manifest, self.meta.priors)
        records = {n: r for n, r in sorted(manifest.shards.items()) if split in (None, r.split)}
        if not records:
            there = sorted({record.split for record in manifest.shards.values()})
            raise InputError(
                f"the store at {path} has no {split} videos", found=f"only {', '.join(there)}",
                todo=f"use --split {there[0]}, or build the {split} split too" if there else "build it again",
            )  # fmt: skip
        self.shards = Shards(path, records, self.meta)
        self._clip_ends = np.cumsum([record.clips for record in records.values()]).tolist()
        self.clips: int = self._clip_ends[-1]
        for table in TABLES.values():
            check_file(path, table, manifest.files, deep=True)
        self._files = manifest.files
        crcs = {name: {p: f.crc32c for p, f in (r.files or {}).items()} for name, r in records.items()}
        self.content_digest = digest({"settings": manifest.settings_digest, "shards": crcs})

    @classmethod
    def open(cls, path: Path | str, split: str | None = None) -> Store:
        """Opens a store: sizes of all files and checksums of the small ones are checked here, rows when they are read.

        Args:
            split: only its clips and videos; None for all.

        Raises:
            InputError: there is none, it is unfinished, of another version, damaged, or lacks the split.
        """
        return cls(Path(path), split)

    @cached_property
    def videos(self) -> pa.Table:
        """The split's videos, in the order of the shards (schema in `data_manifests.tables`).

        Raises:
            InputError: their table was damaged or replaced since the store was opened.
        """
        return self._table("videos")

    @cached_property
    def tubes(self) -> pa.Table:
        """The split's tubes (schema in `data_manifests.tables`). Raises as `videos` does."""
        return self._table("tubes")

    def sample(self, clip: int, view: int) -> Sample:
        """One clip through one view (0 is the whole frame).

        Raises:
            InputError: a checksum does not fit, naming shard, array, row and video.
        """
        name, local = self._locate(clip)
        shard = self.shards[name]
        arrays, row = shard.arrays, local * (1 + self.meta.views) + view
        clip_row = np.array(
            [[arrays[f"clips/{name}"][local] for name in ("video", "first_row", "first_frame")]], np.int64
        )
        of_view = [arrays[f"views/{name}"][local, view][None, None].copy() for name in VIEWS]
        begin, end = arrays["targets/offsets"][row : row + 2].tolist()
        video_row, first_row, first_frame = clip_row[0].tolist()
        if not 0 <= begin <= end <= len(arrays["targets/prior"]) or not 0 <= video_row < len(shard.videos):
            raise self._damaged(shard, "targets", row, f"clip {local} of the shard, view {view}")
        targets = Targets(*(arrays[f"targets/{name}"][begin:end].copy() for name in Targets._fields))
        crc = view_crc32c(
            shard.name, row, view_heads(clip_row, *of_view).tobytes(), [part.tobytes() for part in targets]
        )
        if crc != arrays["targets/crc32c"][row]:
            raise self._damaged(shard, "targets", row, f"clip {local} of the shard, view {view}")
        video = shard.videos[video_row]
        frames = self._decode(shard, video, first_row, first_row + self.meta.K)
        return Sample(frames, of_view[0][0, 0], bool(of_view[1][0, 0]), targets, video.video_id, first_frame, view)

    def frames(self, video_id: str, start: int, stop: int) -> UInt8[np.ndarray, "n height width 3"]:
        """Frames `start` to `stop` of a video, RGB, native size.

        Raises:
            InputError: a checksum does not fit, naming shard, row and video.
        """
        shard = self.shards[self.shards.of_video[video_id]]
        video = shard.video(video_id)
        if not 0 <= start <= stop <= video.frames:
            raise IndexError(f"frames {start} to {stop} of {video_id}, which has {video.frames}")
        return self._decode(shard, video, video.first_row + start, video.first_row + stop)

    def _locate(self, clip: int) -> tuple[str, int]:
        """The name of its shard, and which clip of that it is."""
        if not 0 <= clip < self.clips:
            raise IndexError(f"clip {clip} of a store of {self.clips}")
        index = bisect_right(self._clip_ends, clip)
        return self.shards.names[index], clip - (self._clip_ends[index - 1] if index else 0)

    def _table(self, name: str) -> pa.Table:
        table = checked_table(self.path, TABLES[name], self._files)
        return table.filter(pc.is_in(table["video_id"], pa.array(self.shards.of_video, pa.string())))

    def _decode(self, shard: Shard, video: ShardVideo, begin: int, end: int) -> UInt8[np.ndarray, "n height width 3"]:
        offsets, stream, crcs = (shard.arrays[f"frames/{name}"] for name in ("offsets", "bytes", "crc32c"))
        images = np.empty((end - begin, video.height, video.width, 3), np.uint8)
        for image, row in zip(images, range(begin, end), strict=True):
            first, last = offsets[row : row + 2].tolist() if 0 <= row < len(crcs) else (0, -1)
            encoded = stream[first:last].tobytes() if 0 <= first <= last <= len(stream) else b""
            if not encoded or frame_crc32c(shard.name, row, encoded) != crcs[row]:
                raise self._damaged(shard, "frames", row, f"frame {row - video.first_row} of video {video.video_id}")
            try:
                if self.meta.frames == "raw":
                    image[:] = np.frombuffer(encoded, np.uint8).reshape(image.shape)
                else:
                    simplejpeg.decode_jpeg(encoded, colorspace="RGB", fastupsample=REPLICATED, buffer=image)
            except ValueError as error:  # of another size, or no JPEG, and yet with a good checksum: not our writer's
                raise self._damaged(shard, "frames", row, f"video {video.video_id}, {error}") from error
        return images

    def _damaged(self, shard: Shard, array: str, row: int, what: str) -> InputError:
        return InputError(
            f"{shard.folder / array}, row {row} is damaged ({what})",
            found="its checksum does not fit",
            todo=f"python -m pipeline verify {self.path} --repair",
        )


def check_finished(manifest: Manifest, where: str) -> None:
    """Raises InputError, naming where the store lies, if a part of it is to be built yet."""
    if manifest.lacks:
        raise InputError(
            f"the store at {where} is not finished",
            found=f"{manifest.lacks} are to be built",
            todo="wait for its `python -m pipeline build`, or run it again; it goes on from there",
        )


def _read_settings(store: Path, manifest: Manifest) -> Settings:
    attributes = read_attributes(check_file(store, ROOT, manifest.files, deep=True))
    check_version(attributes.get("format_version"), str(store))
    settings = Settings.from_json(attributes.get("settings", {}))
    if settings.digest != manifest.settings_digest:
        raise InputError(
            f"the manifest of {store} belongs to a store of other settings",
            todo="put its own manifest back, or rebuild",
        )
    return settings
