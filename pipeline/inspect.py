"""Looks into a store with plain zarr and pyarrow: what it holds, and a picture of any clip."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import zarr
from jaxtyping import Float32, Integer, UInt8
from PIL import Image, ImageDraw

from data_manifests.errors import InputError
from data_manifests.layout import IGNORED, SHARDS, Settings, frame_crc32c
from data_manifests.manifest import Manifest, load_manifest

MEAN = (123, 117, 104)
COLOURS = ((255, 90, 80), (80, 200, 120), (90, 160, 255), (255, 200, 60), (220, 120, 255), (90, 230, 230))


@dataclass(frozen=True)
class ClipPicture:
    """One clip through one view: its frames as the network sees them, what was matched, and what it should predict.

    `boxes` are the tubes' boxes decoded back from the targets, in [0, 1] of the view.
    """

    title: str
    frames: list[Image.Image]
    labels: list[str]
    tubes: Integer[np.ndarray, " M"]
    priors: Float32[np.ndarray, "M 4"]
    boxes: Float32[np.ndarray, "M K 4"]


def describe_store(store: Path) -> dict[str, Any]:
    """What a store holds, for a person or a machine."""
    manifest = load_manifest(store)
    settings = _settings(store)
    splits: dict[str, dict[str, Any]] = {}
    rules: dict[str, list[str]] = {}
    for name, record in manifest.shards.items():
        row = splits.setdefault(
            record.split, dict.fromkeys(("shards", "videos", "frames", "clips", "views", "targets", "bytes"), 0)
        )
        row["shards"] += 1
        row["videos"] += len(record.videos)
        row["frames"] += record.frames
        row["clips"] += record.clips
        row["views"] += record.clips * (1 + settings.views)
        row["targets"] += record.targets
        row["bytes"] += sum(file.size for file in (record.files or {}).values())
        if record.files is not None:
            attributes: Any = zarr.open_group(store / SHARDS / name, mode="r").attrs
            for note in attributes["videos"]:
                for rule in note["rules"]:
                    rules.setdefault(rule, []).append(note["video_id"])
    for row in splits.values():
        row["targets_per_view"] = row["targets"] / max(1, row["views"])
    shown = ("dataset", "K", "stride", "views", "seed", "positive_overlap", "negative_overlap", "frames", "max_side")
    return {
        "title": settings.title,
        "settings": {**{name: getattr(settings, name) for name in shown}, "classes": ", ".join(settings.classes)},
        "settings_digest": settings.digest,
        "splits": splits,
        "rules": rules,
        "skipped": len(manifest.skipped),
        "unfinished": manifest.unfinished,
    }


def find_clip(store: Path, clip: str, view: int) -> ClipPicture:
    """The clip named VIDEO_ID:FIRST_FRAME, seen through a view.

    Raises:
        InputError: there is no such video, clip or view, or a frame's checksum does not fit.
    """
    manifest, settings = load_manifest(store), _settings(store)
    video_id, _, first = clip.rpartition(":")
    if not video_id or not first.isdigit():
        raise InputError(
            f"--clip {clip}", wanted="VIDEO_ID:FIRST_FRAME, like Surfing/v_Surfing_g08_c01:30", todo="mend it"
        )
    if not 0 <= view <= settings.views:
        raise InputError(f"--view {view}", wanted=f"0 to {settings.views}", todo="choose another")
    name = _shard_of(store, manifest, video_id)
    shard: Any = zarr.open_group(store / SHARDS / name, mode="r")
    videos = pq.read_table(store / SHARDS / name / "videos.parquet")["video_id"].to_pylist()
    of_video = np.flatnonzero(shard["clips/video"][:] == videos.index(video_id))
    starts = shard["clips/first_frame"][:][of_video]
    place = np.flatnonzero(starts == int(first))
    if not len(place):
        near = starts[np.argsort(np.abs(starts - int(first)))[:5]].tolist()
        raise InputError(
            f"video {video_id} has no valid clip at frame {first}",
            found=f"{len(starts)} clips, the nearest at frames {near}",
            todo="choose one of those",
        )
    row = int(of_video[place[0]])
    rectangle = shard["views/rectangle"][row, view]
    mirrored = bool(shard["views/mirrored"][row, view])
    first_row = int(shard["clips/first_row"][row])
    size = settings.image_size
    frames = [_see(_frame(shard, name, first_row + k, settings), rectangle, mirrored, size) for k in range(settings.K)]
    at = row * (1 + settings.views) + view
    begin, end = shard["targets/offsets"][at : at + 2]
    prior, label = shard["targets/prior"][begin:end], shard["targets/label"][begin:end]
    root: Any = zarr.open_group(store, mode="r")
    priors = root["priors"][:][prior]
    boxes = decode(shard["targets/loc"][begin:end], priors, settings.variances)
    names = ["ignored" if value == IGNORED else settings.classes[value - 1] for value in label]
    return ClipPicture(f"{clip} view {view}", frames, names, shard["targets/tube"][begin:end], priors, boxes)


def decode(
    loc: Float32[np.ndarray, "M K 4"], priors: Float32[np.ndarray, "M 4"], variances: tuple[float, ...]
) -> Float32[np.ndarray, "M K 4"]:
    """The boxes that encoded offsets stand for, x1 y1 x2 y2 in [0, 1] (SSD's CENTER_SIZE code)."""
    centre, size = ((priors[:, :2] + priors[:, 2:]) / 2)[:, None], (priors[:, 2:] - priors[:, :2])[:, None]
    variance = np.array(variances, np.float32)
    middle = loc[..., :2] * variance[:2] * size + centre
    half = np.exp(loc[..., 2:] * variance[2:]) * size / 2
    return np.concatenate([middle - half, middle + half], -1)


def draw_clip(picture: ClipPicture, path: Path) -> None:
    """Two rows of frames: the tubes as the targets decode, and the matched priors (ignored ones in grey) below."""
    size = picture.frames[0].width
    sheet = Image.new("RGB", (size * len(picture.frames), 2 * size + 20), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((4, 4), f"{picture.title}: {len(picture.labels)} matched priors", fill="black")
    for k, frame in enumerate(picture.frames):
        for below in (0, 1):
            sheet.paste(frame, (k * size, 20 + below * size))
        for row, label in enumerate(picture.labels):
            colour = (150, 150, 150) if label == "ignored" else COLOURS[int(picture.tubes[row]) % len(COLOURS)]
            corner = np.array([k * size, 20.0] * 2)
            pen.rectangle(
                (_inside(picture.priors[row] * size, size) + corner + [0, size, 0, size]).tolist(), outline=colour
            )
            if label == "ignored" or row != int(np.argmax(picture.tubes == picture.tubes[row])):
                continue
            box = _inside(picture.boxes[row, k] * size, size) + corner
            pen.rectangle(box.tolist(), outline=colour, width=2)
            pen.text((box[0] + 3, box[1] + 2), label, fill=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, format="PNG")


def _inside(box: Float32[np.ndarray, "4"], size: int) -> np.ndarray:
    return np.clip(box, 0, size - 1)


def _settings(store: Path) -> Settings:
    return Settings.from_json(zarr.open_group(store, mode="r").attrs["settings"])  # type: ignore[arg-type]


def _shard_of(store: Path, manifest: Manifest, video_id: str) -> str:
    for name, record in manifest.shards.items():
        if video_id in record.videos and record.files is not None:
            return name
    known = [video for record in manifest.shards.values() for video in record.videos]
    raise InputError(
        f"the store at {store} has no video {video_id!r}", found=f"{len(known)} videos, the first {known[:1]}",
        todo="choose a video of its tables/videos.parquet",
    )  # fmt: skip


def _frame(shard: Any, name: str, row: int, settings: Settings) -> UInt8[np.ndarray, "height width 3"]:
    begin, end = shard["frames/offsets"][row : row + 2]
    encoded = shard["frames/bytes"][begin:end].tobytes()
    if frame_crc32c(name, row, encoded) != int(shard["frames/crc32c"][row]):
        raise InputError(f"shard {name}: frame row {row} is damaged", todo="python -m pipeline verify STORE --repair")
    if settings.frames != "raw":
        return np.asarray(Image.open(io.BytesIO(encoded)))
    table = pq.read_table(Path(str(shard.store.root)) / "videos.parquet")
    ends = np.cumsum(table["frames"].to_numpy())
    video = table.slice(int(np.searchsorted(ends, row, "right")), 1).to_pylist()[0]
    return np.frombuffer(encoded, np.uint8).reshape(video["height"], video["width"], 3)


def _see(
    frame: UInt8[np.ndarray, "height width 3"], rectangle: Integer[np.ndarray, "4"], mirrored: bool, size: int
) -> Image.Image:
    x0, y0, x1, y1 = (int(value) for value in rectangle)
    canvas = Image.new("RGB", (x1 - x0, y1 - y0), MEAN)
    canvas.paste(Image.fromarray(frame), (-x0, -y0))
    seen = canvas.resize((size, size), Image.Resampling.BILINEAR)
    return seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else seen
