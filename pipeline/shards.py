"""One shard: the frames and targets of some whole videos, written beside its place, all or nothing."""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Integer

from data_manifests.errors import InputError, InputErrors
from data_manifests.layout import (
    ARRAYS,
    FORMAT_VERSION,
    SHARDS,
    Settings,
    digest,
    frame_crc32c,
    view_crc32c,
    view_heads,
)
from data_manifests.manifest import ShardRecord, file_records, sync_path, sync_tree
from data_manifests.tables import TUBES, VIDEOS, box_column
from pipeline.arrays import RowStream, write_groups
from pipeline.clips import valid_clips
from pipeline.damage import DamagedVideo
from pipeline.decoding import STRICT, Decoding, Request, StoredFrame, stored_frames
from pipeline.matching import MatchRule, PriorGrid, prior_grid
from pipeline.reconcile import Decoded, Tube, reconcile
from pipeline.targets import ViewTargets, video_targets

BUILDING = ".building"
CLIPS_AT_ONCE = 512
"""Clips whose targets are in memory at a time, whatever a video's length."""
_VIEWS = ("rectangle", "mirrored", "sampler", "kept")
_TARGETS = ("prior", "label", "tube", "overlap", "loc")


@dataclass(frozen=True)
class VideoJob:
    """One video of a shard: where it lies, and what its annotations say.

    Args:
        annotated_frames: None where the annotation format does not count them.
        box_size: width and height that the boxes were drawn in; None: the video's own.
        counted_from: the number of its first frame in the annotations, for messages.
    """

    video_id: str
    path: str
    annotated_frames: int | None
    box_size: tuple[int, int] | None
    tubes: tuple[Tube, ...]
    counted_from: int = 0


@dataclass(frozen=True)
class ShardJob:
    """All that a worker needs to build one shard; picklable.

    Args:
        name: of the shard.
        split: of its videos.
        root: of the dataset, on the worker's machine.
        store: where the shard is to be.
        settings: of the store.
        videos: in order.
        decoding: what becomes of awkward ones.
    """

    name: str
    split: str
    root: Path
    store: Path
    settings: Settings
    videos: tuple[VideoJob, ...]
    decoding: Decoding = STRICT

    @property
    def annotations_digest(self) -> str:
        """Equal for equal annotations of the shard's videos."""
        videos = [
            (
                video.video_id,
                video.annotated_frames,
                [(t.index, t.label, t.first_frame, google_crc32c.value(t.boxes.tobytes())) for t in video.tubes],
            )
            for video in self.videos
        ]
        sizes = [video.box_size for video in self.videos]
        return digest([self.split, sizes[0] if len(set(sizes)) == 1 else sizes, videos])


@dataclass(frozen=True)
class BuiltShard:
    """A finished shard that waits beside the store's shards: nobody sees it before it is placed and recorded."""

    name: str
    record: ShardRecord
    folder: Path


def build_shard(job: ShardJob) -> BuiltShard:
    """Builds a shard beside its place, and flushes it. The build that holds the store's lock puts it there.

    Raises:
        InputErrors: videos are damaged or do not fit their annotations; nothing is left behind then.
        InputError: the store or the dataset is not on this machine.
    """
    for folder in (job.store, job.root):
        if not folder.is_dir():
            raise InputError(
                f"{folder} is not there on {os.uname().nodename}, which was to build {job.name}",
                wanted="a store and a dataset at the same paths on all machines",
                todo="use a file system that all of them share",
            )
    making = job.store / BUILDING / f"{job.name}.{uuid.uuid4().hex}"  # a killed build's worker may still write its own
    making.mkdir(parents=True)
    try:
        return BuiltShard(job.name, _ShardWriter(job, making).write(), making)
    except BaseException as error:
        shutil.rmtree(making, ignore_errors=True)
        if isinstance(error, OSError):
            error.filename = error.filename or str(job.store)  # a full disk names no file
        raise


def place_shard(built: BuiltShard, store: Path) -> None:
    """Moves a finished shard to its place. What lies there was never recorded, or is being repaired."""
    place = store / SHARDS / built.name
    place.parent.mkdir(exist_ok=True)
    if place.exists():
        os.rename(place, built.folder.with_name(f"{built.folder.name}.old"))
    os.rename(built.folder, place)
    sync_path(place.parent)


@dataclass
class _ShardWriter:
    """Writes one shard, video by video."""

    job: ShardJob
    folder: Path
    videos: list[dict[str, object]] = field(default_factory=list)
    notes: list[dict[str, object]] = field(default_factory=list)
    tubes: list[tuple[str, Tube]] = field(default_factory=list)
    streams: dict[str, RowStream] = field(default_factory=dict)

    def write(self) -> ShardRecord:
        settings = self.job.settings
        grid = prior_grid(settings.priors)
        with ExitStack() as stack:
            for name in ARRAYS:
                stream = RowStream(self.folder, name, settings.K, settings.views)
                self.streams[name] = stack.enter_context(stream)
            for name in ("frames/offsets", "targets/offsets"):
                self.streams[name].append(np.zeros(1, np.int64))
            refused: list[InputError] = []
            for video in self.job.videos:
                try:
                    self._add_video(video, grid)
                except InputError as error:
                    refused.append(error)  # the others are looked at too, so that all are told of at once
                except Exception as error:
                    error.add_note(f"while building video {video.video_id} into shard {self.job.name}")
                    raise
            if refused:
                raise InputErrors(refused)
            for stream in self.streams.values():
                stream.close()
        self._write_tables()
        attributes = {
            "format_version": FORMAT_VERSION,
            "shard": self.job.name,
            "settings_digest": settings.digest,
            "videos": self.notes,
        }
        write_groups(self.folder, attributes)
        sync_tree(self.folder)
        files = file_records(self.folder)
        for stream in self.streams.values():
            stream.check(files)
        return ShardRecord(
            self.job.split,
            tuple(video.video_id for video in self.job.videos),
            self.job.annotations_digest,
            self.streams["frames/crc32c"].rows,
            self.streams["clips/video"].rows,
            self.streams["targets/prior"].rows,
            files,
        )

    def _add_video(self, video: VideoJob, grid: PriorGrid) -> None:
        first_row = self.streams["frames/crc32c"].rows
        decoded, native = self._add_frames(video)
        tubes, rules = reconcile(
            video.video_id,
            list(video.tubes),
            decoded,
            annotated_frames=video.annotated_frames,
            box_size=video.box_size or native,
            counted_from=video.counted_from,
        )
        self._add_clips(video.video_id, decoded, tubes, first_row, grid)
        self.tubes += [(video.video_id, tube) for tube in tubes]
        size = {"frames": decoded.frames, "width": decoded.width, "height": decoded.height}
        self.videos.append({"video_id": video.video_id, "split": self.job.split, **size, "path": video.path})
        note = {"video_id": video.video_id, "first_row": first_row, "decoder": decoded.decoder, "rules": list(rules)}
        self.notes.append(note)

    def _add_frames(self, video: VideoJob) -> tuple[Decoded, tuple[int, int]]:
        """What was stored, and the file's own width and height."""
        settings, stream, decoding = self.job.settings, self.streams["frames/bytes"], self.job.decoding
        row = self.streams["frames/crc32c"].rows
        path, keep = self.job.root / video.path, decoding.damaged == "keep"
        request = Request(video.video_id, path, settings.frames, settings.max_side, keep)
        frame: StoredFrame | None = None
        ends: list[int] = []
        crcs: list[int] = []
        damaged = as_found = False
        try:
            for frame in stored_frames(request, decoding.limit):
                stream.append_bytes(frame.content)
                crcs.append(frame_crc32c(self.job.name, row + len(crcs), frame.content))
                ends.append(stream.rows)
                as_found |= frame.as_found
        except DamagedVideo:
            damaged = True
            if not keep or frame is None:
                raise
        if frame is None:
            raise InputError(
                f"video {video.video_id} has no frames", todo="replace the file, or take the video out of the lists"
            )
        self.streams["frames/offsets"].append(np.array(ends, np.int64))
        self.streams["frames/crc32c"].append(np.array(crcs, np.uint32))
        decoded = Decoded(
            len(ends), *frame.size, "images" if path.is_dir() else "pyav", damaged, as_found, frame.packed
        )
        return decoded, frame.native

    def _add_clips(self, video_id: str, decoded: Decoded, tubes: list[Tube], first_row: int, grid: PriorGrid) -> None:
        settings = self.job.settings
        first_frames = np.array([tube.first_frame for tube in tubes], np.int64)
        lengths = np.array([len(tube.boxes) for tube in tubes], np.int64)
        clips, counts = valid_clips(decoded.frames, first_frames, lengths, settings.K, settings.stride)
        for begin in range(0, len(clips), CLIPS_AT_ONCE):
            here = slice(begin, begin + CLIPS_AT_ONCE)
            targets = video_targets(
                video_id,
                [tube.boxes for tube in tubes],
                first_frames,
                np.array([tube.label for tube in tubes], np.int64),
                clips[here],
                index=np.array([tube.index for tube in tubes], np.int64),
                width=decoded.width,
                height=decoded.height,
                K=settings.K,
                views=settings.views,
                seed=settings.seed,
                mirrored_label=settings.mirrored,
                grid=grid,
                rule=MatchRule(settings.positive_overlap, settings.negative_overlap, settings.variances),
            )
            video = np.full(len(clips[here]), len(self.videos), np.int64)
            frames = clips[here].astype(np.int64)
            self._add_targets(np.stack([video, first_row + frames, frames], 1), targets)
            for name, column in (("video", video), ("first_row", first_row + frames), ("first_frame", frames)):
                self.streams[f"clips/{name}"].append(column)
            self.streams["clips/tubes"].append(counts[here])

    def _add_targets(self, clips: Integer[np.ndarray, "C 3"], targets: ViewTargets) -> None:
        """A row a view, with its checksum, for clips (video, first row, first frame)."""
        columns = [getattr(targets, name) for name in _TARGETS]
        heads = view_heads(clips, *(getattr(targets, name) for name in _VIEWS)).reshape(-1, 10)
        first = self.streams["targets/crc32c"].rows
        head_bytes, size = heads.tobytes(), heads.itemsize * 10
        parts = [(memoryview(column.reshape(-1).view(np.uint8)), column[:1].nbytes) for column in columns]
        offsets = targets.offsets.tolist()
        crcs = [
            view_crc32c(
                self.job.name,
                first + row,
                head_bytes[row * size : (row + 1) * size],
                [part[begin * width : end * width] for part, width in parts],
            )
            for row, (begin, end) in enumerate(zip(offsets, offsets[1:], strict=False))
        ]
        self.streams["targets/offsets"].append(self.streams["targets/prior"].rows + targets.offsets[1:])
        self.streams["targets/crc32c"].append(np.array(crcs, np.uint32))
        for name in _VIEWS:
            self.streams[f"views/{name}"].append(getattr(targets, name))
        for name, column in zip(_TARGETS, columns, strict=True):
            self.streams[f"targets/{name}"].append(column)

    def _write_tables(self) -> None:
        tubes = [tube for _, tube in self.tubes]
        columns = [
            pa.array([video_id for video_id, _ in self.tubes], pa.string()),
            pa.array([tube.index for tube in tubes], pa.int32()),
            pa.array([tube.label for tube in tubes], pa.int32()),
            pa.array([tube.first_frame for tube in tubes], pa.int32()),
            box_column([tube.boxes for tube in tubes]),
        ]
        pq.write_table(pa.Table.from_pylist(self.videos, VIDEOS), self.folder / "videos.parquet")
        pq.write_table(pa.Table.from_arrays(columns, schema=TUBES), self.folder / "tubes.parquet")
