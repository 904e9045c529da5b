"""Reads a store: any clip through any view, any frame of any video, each row's checksum checked each time it is read."""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import simplejpeg
from jaxtyping import Float32, Int16, Integer, UInt8

from data_manifests.errors import InputError
from data_manifests.layout import (
    ARRAYS,
    PRIORS,
    ROOT,
    TABLES,
    Settings,
    check_version,
    digest,
    file_crc32c,
    frame_crc32c,
    view_crc32c,
)
from data_manifests.manifest import FileRecord, Manifest, load_manifest


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


class Video(NamedTuple):
    """One video of the store, and where its frames lie."""

    video_id: str
    frames: int
    width: int
    height: int
    shard: str
    first_row: int


@dataclass(frozen=True)
class _Shard:
    """One shard's arrays, memory-mapped."""

    name: str
    folder: Path
    arrays: dict[str, np.ndarray]
    videos: tuple[Video, ...]
    clips: int


class Store:
    """An open store, or one split of it.

    Attributes:
        meta: the settings that decided its content.
        priors: (P, 4) in [0, 1].
        clips: number of clips of the split, numbered from 0.
        videos, tubes: the split's tables (schemas in `data_manifests.tables`), videos in the order of the shards.
        content_digest: equal for stores of equal bytes.
    """

    def __init__(self, path: Path, split: str | None) -> None:
        """See `Store.open`."""
        self.path = path
        manifest = load_manifest(path)
        if manifest.unfinished:
            raise InputError(
                f"the store at {path} is not finished",
                found=f"{len(manifest.unfinished)} of {len(manifest.shards)} shards are to be built",
                todo="run its `python -m pipeline build` again; it goes on from there",
            )
        self.meta = _read_settings(path, manifest)
        self.priors: Float32[np.ndarray, "P 4"] = _read_priors(path, manifest)
        records = {n: r for n, r in sorted(manifest.shards.items()) if split in (None, r.split)}
        if not records:
            there = sorted({record.split for record in manifest.shards.values()})
            raise InputError(
                f"the store at {path} has no {split} videos", found=f"only {', '.join(there)}",
                todo=f"use --split {there[0]}, or build the {split} split too" if there else "build it again",
            )  # fmt: skip
        self._shards = tuple(_open_shard(path, n, r.files or {}, manifest.settings_digest) for n, r in records.items())
        self._by_name = {shard.name: shard for shard in self._shards}
        self._clip_ends = np.cumsum([shard.clips for shard in self._shards]).tolist()
        self.clips: int = self._clip_ends[-1]
        self._video = {video.video_id: video for shard in self._shards for video in shard.videos}
        wanted = pa.array(self._video, pa.string())
        tables = {name: _read_table(path, place, manifest) for name, place in TABLES.items()}
        self.videos, self.tubes = (
            tables[name].filter(pc.is_in(tables[name]["video_id"], wanted)) for name in ("videos", "tubes")
        )
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

    def sample(self, clip: int, view: int) -> Sample:
        """One clip through one view (0 is the whole frame).

        Raises:
            InputError: a checksum does not fit, naming shard, array, row and video.
        """
        shard, local = self._locate(clip)
        arrays, row = shard.arrays, local * (1 + self.meta.views) + view
        video_row, first_row = int(arrays["clips/video"][local]), int(arrays["clips/first_row"][local])
        first_frame = int(arrays["clips/first_frame"][local])
        begin, end = (int(value) for value in arrays["targets/offsets"][row : row + 2])
        rectangle, mirrored = arrays["views/rectangle"][local, view], int(arrays["views/mirrored"][local, view])
        whole = 0 <= begin <= end <= len(arrays["targets/prior"]) and 0 <= video_row < len(shard.videos)
        targets = Targets(*(arrays[f"targets/{name}"][begin:end] for name in Targets._fields))
        crc = whole and view_crc32c(
            shard.name,
            row,
            (video_row, first_row, first_frame),
            rectangle,
            mirrored,
            int(arrays["views/sampler"][local, view]),
            int(arrays["views/kept"][local, view]),
            targets,
        )
        if not whole or crc != arrays["targets/crc32c"][row]:
            raise self._damaged(shard, "targets", row, f"clip {local} of the shard, view {view}")
        video = shard.videos[video_row]
        frames = self._decode(shard, video, first_row, first_row + self.meta.K)
        return Sample(frames, rectangle, bool(mirrored), targets, video.video_id, first_frame, view)

    def frames(self, video_id: str, start: int, stop: int) -> UInt8[np.ndarray, "n height width 3"]:
        """Frames `start` to `stop` of a video, RGB, native size.

        Raises:
            InputError: a checksum does not fit, naming shard, row and video.
        """
        video = self._video[video_id]
        if not 0 <= start <= stop <= video.frames:
            raise IndexError(f"frames {start} to {stop} of {video_id}, which has {video.frames}")
        return self._decode(self._by_name[video.shard], video, video.first_row + start, video.first_row + stop)

    def clip_name(self, clip: int, view: int) -> tuple[str, int, int]:
        """(video_id, first frame, view), for messages."""
        shard, local = self._locate(clip)
        video = shard.videos[int(shard.arrays["clips/video"][local])]
        return video.video_id, int(shard.arrays["clips/first_frame"][local]), view

    def _locate(self, clip: int) -> tuple[_Shard, int]:
        if not 0 <= clip < self.clips:
            raise IndexError(f"clip {clip} of a store of {self.clips}")
        index = bisect_right(self._clip_ends, clip)
        return self._shards[index], clip - (self._clip_ends[index - 1] if index else 0)

    def _decode(self, shard: _Shard, video: Video, begin: int, end: int) -> UInt8[np.ndarray, "n height width 3"]:
        offsets, stream, crcs = (shard.arrays[f"frames/{name}"] for name in ("offsets", "bytes", "crc32c"))
        images = np.empty((end - begin, video.height, video.width, 3), np.uint8)
        raw = self.meta.frames == "raw"
        for i, row in enumerate(range(begin, end)):
            first, last = (offsets[row : row + 2].tolist() if 0 <= row < len(crcs) else (0, -1))
            encoded = stream[first:last].tobytes() if 0 <= first <= last <= len(stream) else b""
            if not encoded or frame_crc32c(shard.name, row, encoded) != crcs[row]:
                raise self._damaged(shard, "frames", row, f"frame {row - video.first_row} of video {video.video_id}")
            if raw:
                images[i] = np.frombuffer(encoded, np.uint8).reshape(images[i].shape)
            else:
                images[i] = simplejpeg.decode_jpeg(encoded, colorspace="RGB")
        return images

    def _damaged(self, shard: _Shard, array: str, row: int, what: str) -> InputError:
        return InputError(
            f"{shard.folder / array}, row {row} is damaged ({what})",
            found="its checksum does not fit",
            todo=f"python -m pipeline verify {self.path} --repair",
        )


def _check_file(folder: Path, name: str, files: dict[str, FileRecord], *, deep: bool) -> Path:
    path = folder / name
    todo = "verify the store with `python -m pipeline verify`, and repair or rebuild it"
    record = files.get(name)
    if record is None or not path.is_file():
        raise InputError(f"{path} is missing" if record else f"the manifest lacks {path}", todo=todo)
    size = path.stat().st_size
    if size != record.size:
        raise InputError(f"{path} has another size", found=f"{size} bytes", wanted=f"{record.size}", todo=todo)
    if deep and file_crc32c(path) != record.crc32c:
        raise InputError(f"{path} is damaged", found="its checksum does not fit the manifest", todo=todo)
    return path


def _read_settings(store: Path, manifest: Manifest) -> Settings:
    attributes = json.loads(_check_file(store, ROOT, manifest.files, deep=True).read_bytes())["attributes"]
    check_version(attributes.get("format_version"), str(store))
    settings = Settings.from_json(attributes["settings"])
    if settings.digest != manifest.settings_digest:
        raise InputError(
            f"the manifest of {store} belongs to a store of other settings", todo="put its own manifest back, or rebuild"
        )
    return settings


def _read_table(store: Path, place: str, manifest: Manifest) -> pa.Table:
    return pq.read_table(_check_file(store, place, manifest.files, deep=True))


def _read_priors(store: Path, manifest: Manifest) -> Float32[np.ndarray, "P 4"]:
    for name in manifest.files:
        if name.startswith(f"{PRIORS}/"):
            _check_file(store, name, manifest.files, deep=True)
    shape = json.loads((store / PRIORS / "zarr.json").read_bytes())["shape"]
    return np.fromfile(store / PRIORS / "c" / "0" / "0", "<f4").reshape(shape)


def _open_shard(store: Path, name: str, files: dict[str, FileRecord], settings_digest: str) -> _Shard:
    folder = store / "shards" / name
    for path in files:
        _check_file(folder, path, files, deep=path.endswith((".json", ".parquet")))
    attributes = json.loads(_check_file(folder, ROOT, files, deep=True).read_bytes())["attributes"]
    if attributes["shard"] != name or attributes["settings_digest"] != settings_digest:
        raise InputError(
            f"{folder} is a shard of another store or place",
            found=f"{attributes['shard']}, settings {attributes['settings_digest'][:12]}",
            wanted=f"{name}, settings {settings_digest[:12]}",
            todo="python -m pipeline verify STORE --repair",
        )
    arrays = {array: _map(folder, array) for array in ARRAYS}
    rows = pq.read_table(folder / "videos.parquet").to_pylist()
    videos = tuple(
        Video(row["video_id"], row["frames"], row["width"], row["height"], name, note["first_row"])
        for row, note in zip(rows, attributes["videos"], strict=True)
    )
    return _Shard(name, folder, arrays, videos, len(arrays["clips/video"]))


def _map(folder: Path, array: str) -> np.ndarray:
    shape = json.loads((folder / array / "zarr.json").read_bytes())["shape"]
    dtype = np.dtype(ARRAYS[array][0]).newbyteorder("<")
    if 0 in shape:
        return np.zeros(shape, dtype)
    return np.memmap(folder / array / "c" / "/".join("0" * len(shape)), dtype, "r", 0, tuple(shape))
