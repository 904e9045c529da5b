"""One shard: the frames and targets of some whole videos, written all or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg

from data_manifests.errors import InputError
from data_manifests.layout import FORMAT_VERSION, Settings, frame_crc32c, view_crc32c
from data_manifests.manifest import ShardRecord, file_records, sync_folder
from data_manifests.tables import TUBES, VIDEOS, box_column
from pipeline.arrays import ByteStream, write_array, write_attributes
from pipeline.clips import valid_clips
from pipeline.frames import Frame, open_frames
from pipeline.matching import MatchRule, PriorGrid, prior_grid
from pipeline.reconcile import Decoded, Tube, reconcile
from pipeline.targets import ViewTargets, video_targets

BUILDING = ".building"


@dataclass(frozen=True)
class VideoJob:
    """One video of a shard: where it lies, and what its annotations say."""

    video_id: str
    path: str
    annotated_frames: int | None
    tubes: tuple[Tube, ...]


@dataclass(frozen=True)
class ShardJob:
    """All that a worker needs to build one shard; picklable.

    Args:
        name: of the shard.
        split: of its videos.
        root: of the dataset, on the worker's machine.
        store: where the shard is to be.
        settings: of the store.
        box_size: width and height that the annotated boxes were drawn in.
        videos: in order.
    """

    name: str
    split: str
    root: Path
    store: Path
    settings: Settings
    box_size: tuple[int, int]
    videos: tuple[VideoJob, ...]


@dataclass
class _Content:
    """What gathers while the videos of a shard are read."""

    frame_ends: list[int] = field(default_factory=lambda: [0])
    frame_crc: list[int] = field(default_factory=list)
    videos: list[dict[str, object]] = field(default_factory=list)
    notes: list[dict[str, object]] = field(default_factory=list)
    tubes: list[tuple[str, Tube]] = field(default_factory=list)
    clips: list[tuple[int, int, int, int]] = field(default_factory=list)  # video, first row, first frame, tubes
    targets: list[ViewTargets] = field(default_factory=list)


def build_shard(job: ShardJob, report: Callable[[int], None] | None = None) -> ShardRecord:
    """Builds a shard beside its place, flushes it, moves it there, and returns its record.

    A shard that lies in its place already was not recorded, and is replaced.

    Args:
        report: called with the number of frames since the last call.

    Raises:
        InputError: a video is damaged or does not fit its annotations; nothing is left behind then.
    """
    making = job.store / BUILDING / job.name
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    try:
        record = _write(job, making, report)
        place = job.store / "shards" / job.name
        place.parent.mkdir(exist_ok=True)
        if place.exists():
            shutil.rmtree(place)
        os.rename(making, place)
        sync_folder(place.parent)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return record


def _write(job: ShardJob, making: Path, report: Callable[[int], None] | None) -> ShardRecord:
    content = _Content()
    grid = prior_grid(job.settings.priors)
    with ByteStream(making, "frames/bytes") as stream:
        for video in job.videos:
            _add_video(job, video, stream, content, grid, report)
        stream.close()
    _write_frames(making, content)
    targets = _write_targets(job, making, content)
    _write_tables(making, job.split, content)
    attributes = {
        "format_version": FORMAT_VERSION,
        "shard": job.name,
        "settings_digest": job.settings.digest,
        "videos": content.notes,
    }
    write_attributes(making, attributes)
    for folder, _, files in os.walk(making):
        for name in files:
            _sync_file(Path(folder, name))
        sync_folder(Path(folder))
    ids = tuple(video.video_id for video in job.videos)
    return ShardRecord(job.split, ids, len(content.frame_crc), len(content.clips), targets, file_records(making))


def _sync_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _add_video(
    job: ShardJob,
    video: VideoJob,
    stream: ByteStream,
    content: _Content,
    grid: PriorGrid,
    report: Callable[[int], None] | None,
) -> None:
    settings = job.settings
    first_row = len(content.frame_crc)
    source = open_frames(job.root / video.path)
    for frame in _shrunk(source, settings.max_side):
        if content.frame_crc[first_row:] and frame.shape != shape:
            raise InputError(
                f"video {video.video_id} changes its frame size at frame {len(content.frame_crc) - first_row}",
                todo="replace the file, or take the video out of the lists",
            )
        shape = frame.shape
        encoded = encode_frame(frame, settings.frames)
        content.frame_crc.append(frame_crc32c(job.name, len(content.frame_crc), encoded))
        stream.append(encoded)
        content.frame_ends.append(stream.size)
        if report is not None and len(content.frame_crc) % 64 == 0:
            report(64)
    decoded = Decoded(len(content.frame_crc) - first_row, shape[1], shape[0], source.decoder)
    tubes, rules = reconcile(
        video.video_id,
        list(video.tubes),
        decoded,
        annotated_frames=video.annotated_frames,
        box_size=job.box_size,
    )
    first_frames = np.array([tube.first_frame for tube in tubes], np.int64)
    lengths = np.array([len(tube.boxes) for tube in tubes], np.int64)
    clips, tubes_of_clip = valid_clips(decoded.frames, first_frames, lengths, settings.K, settings.stride)
    content.targets.append(
        video_targets(
            video.video_id,
            [tube.boxes for tube in tubes],
            first_frames,
            np.array([tube.label for tube in tubes], np.int64),
            clips,
            width=decoded.width,
            height=decoded.height,
            K=settings.K,
            views=settings.views,
            seed=settings.seed,
            mirrored_label=settings.mirrored,
            grid=grid,
            rule=MatchRule(settings.positive_overlap, settings.negative_overlap, settings.variances),
        )
    )
    row = len(content.videos)
    content.clips += [(row, first_row + int(c), int(c), int(n)) for c, n in zip(clips, tubes_of_clip, strict=True)]
    content.tubes += [(video.video_id, tube) for tube in tubes]
    content.videos.append(
        {
            "video_id": video.video_id,
            "split": job.split,
            "frames": decoded.frames,
            "width": decoded.width,
            "height": decoded.height,
            "path": video.path,
        }
    )
    content.notes.append({"video_id": video.video_id, "first_row": first_row, "decoder": source.decoder, "rules": list(rules)})


def _shrunk(frames: Iterator[Frame] | object, max_side: int | None) -> Iterator[Frame]:
    for frame in frames:  # type: ignore[attr-defined]
        longer = max(frame.shape[:2])
        if max_side is not None and longer > max_side:
            size = tuple(max(1, round(side * max_side / longer)) for side in frame.shape[1::-1])
            yield cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        else:
            yield frame


def encode_frame(frame: Frame, codec: str) -> bytes:
    """A frame's stored bytes: a JPEG (4:2:0), or the RGB bytes themselves."""
    if codec == "raw":
        return frame.tobytes()
    quality = int(codec.removeprefix("jpeg:"))
    return simplejpeg.encode_jpeg(np.ascontiguousarray(frame), quality=quality, colorspace="RGB", colorsubsampling="420")


def _write_frames(making: Path, content: _Content) -> None:
    write_array(making, "frames/offsets", np.array(content.frame_ends, np.int64))
    write_array(making, "frames/crc32c", np.array(content.frame_crc, np.uint32))
    clips = np.array(content.clips, np.int64).reshape(-1, 4)
    for column, name in enumerate(("video", "first_row", "first_frame", "tubes")):
        write_array(making, f"clips/{name}", clips[:, column])


def _write_targets(job: ShardJob, making: Path, content: _Content) -> int:
    """Writes views and targets with a checksum a row; returns the number of targets."""
    parts = content.targets
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("rectangle", "mirrored", "sampler", "kept", "prior", "label", "tube", "overlap", "loc")
    }
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    views = 1 + job.settings.views
    crc = np.zeros(len(counts), np.uint32)
    for row in range(len(counts)):
        clip, view = divmod(row, views)
        here = slice(offsets[row], offsets[row + 1])
        crc[row] = view_crc32c(
            job.name,
            row,
            content.clips[clip][:3],
            columns["rectangle"][clip, view],
            columns["mirrored"][clip, view],
            columns["sampler"][clip, view],
            columns["kept"][clip, view],
            tuple(columns[name][here] for name in ("prior", "label", "tube", "overlap", "loc")),
        )
    for name in ("rectangle", "mirrored", "sampler", "kept"):
        write_array(making, f"views/{name}", columns[name])
    for name in ("prior", "label", "tube", "overlap", "loc"):
        write_array(making, f"targets/{name}", columns[name])
    write_array(making, "targets/offsets", offsets)
    write_array(making, "targets/crc32c", crc)
    return int(offsets[-1])


def _write_tables(making: Path, split: str, content: _Content) -> None:
    tubes = [tube for _, tube in content.tubes]
    columns = [
        pa.array([video_id for video_id, _ in content.tubes], pa.string()),
        pa.array([tube.index for tube in tubes], pa.int32()),
        pa.array([tube.label for tube in tubes], pa.int32()),
        pa.array([tube.first_frame for tube in tubes], pa.int32()),
        box_column([tube.boxes for tube in tubes]),
    ]
    pq.write_table(pa.Table.from_pylist(content.videos, VIDEOS), making / "videos.parquet")
    pq.write_table(pa.Table.from_arrays(columns, schema=TUBES), making / "tubes.parquet")
