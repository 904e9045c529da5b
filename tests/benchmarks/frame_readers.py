"""Ways to keep a video's frames, each read at random windows: ours, memory, and what others use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import decord
import numpy as np
import simplejpeg
import zarr
from litdata import StreamingDataset
from litdata.streaming.writer import BinaryWriter

from trainer.data.reader import REPLICATED, Store
from trainer.data.resample import resample


@dataclass(frozen=True)
class Window:
    """K frames of a video, and the view they are seen through.

    Args:
        clip, view: of the store.
        video_id, first_frame: what they stand for.
        row: the first frame's number, counted over all videos.
        rectangle, mirrored: the view's.
    """

    clip: int
    view: int
    video_id: str
    first_frame: int
    row: int
    rectangle: np.ndarray
    mirrored: bool


Reader = Callable[[Window], np.ndarray]


def draw_windows(store: Store, count: int, seed: int = 0) -> list[Window]:
    """Random clips through random views."""
    random, first_rows, row = np.random.default_rng(seed), {}, 0
    for video in store.videos.to_pylist():
        first_rows[video["video_id"]] = row
        row += video["frames"]
    windows = []
    for _ in range(count):
        clip, view = int(random.integers(store.clips)), int(random.integers(1 + store.meta.views))
        sample = store.sample(clip, view)
        row = first_rows[sample.video_id] + sample.first_frame
        place = (clip, view, sample.video_id, sample.first_frame, row)
        windows.append(Window(*place, sample.rectangle, sample.mirrored))
    return windows


def write_copies(store: Store, folder: Path) -> None:
    """The store's JPEG bytes as files and for litdata, and its pixels for zarr."""
    writer = BinaryWriter(str(_made(folder / "litdata")), chunk_bytes="64MB")
    images, arrays, row = _made(folder / "images"), zarr.open_group(folder / "zarr", mode="w"), 0
    for video in store.videos.to_pylist():
        for encoded in jpegs(store, video["video_id"], 0, video["frames"]):
            (images / f"{row:06d}.jpg").write_bytes(encoded)
            writer[row] = encoded
            row += 1
        pixels = store.frames(video["video_id"], 0, video["frames"])
        arrays.create_array(f"default/{video['video_id']}", data=pixels)
        arrays.create_array(f"a-frame/{video['video_id']}", data=pixels, chunks=(1, *pixels.shape[1:]))
    writer.done()
    writer.merge()


def jpegs(store: Store, video_id: str, start: int, stop: int) -> list[bytes]:
    """Encoded frames of a video, unchecked."""
    shard = store.shards[store.shards.of_video[video_id]]
    video, arrays = shard.video(video_id), shard.arrays
    ends = arrays["frames/offsets"][video.first_row + start : video.first_row + stop + 1].tolist()
    return [arrays["frames/bytes"][a:b].tobytes() for a, b in zip(ends, ends[1:], strict=False)]


def open_readers(store: Store, folder: Path, root: Path, windows: list[Window]) -> dict[str, Callable[[], None]]:
    """For each way a call that reads, decodes and resamples all windows."""
    K, arrays = store.meta.K, zarr.open_group(folder / "zarr", mode="r")
    paths = {video["video_id"]: root / video["path"] for video in store.videos.to_pylist()}
    memory = {(w.video_id, w.first_frame): jpegs(store, w.video_id, w.first_frame, w.first_frame + K) for w in windows}
    sizes = {video["video_id"]: (video["height"], video["width"]) for video in store.videos.to_pylist()}
    streamed = StreamingDataset(str(folder / "litdata"))
    seekers = {video_id: decord.VideoReader(str(path), num_threads=1) for video_id, path in paths.items()}

    def decoded(encoded: list[bytes], window: Window) -> np.ndarray:
        frames = np.empty((K, *sizes[window.video_id], 3), np.uint8)
        for content, frame in zip(encoded, frames, strict=True):
            simplejpeg.decode_jpeg(content, colorspace="RGB", fastupsample=REPLICATED, buffer=frame)
        return frames

    def image_files(window: Window) -> np.ndarray:
        names = (str(folder / "images" / f"{window.row + k:06d}.jpg") for k in range(K))
        return np.stack([cv2.imread(name, cv2.IMREAD_COLOR_RGB) for name in names])

    def zarr_array(chunks: str) -> Reader:
        opened = {video_id: arrays[f"{chunks}/{video_id}"] for video_id in paths}
        return lambda window: opened[window.video_id][window.first_frame : window.first_frame + K]  # type: ignore[index, return-value]

    readers: dict[str, Reader] = {
        "memory": lambda w: decoded(memory[w.video_id, w.first_frame], w),
        "cv2.imread, a JPEG file a frame": image_files,
        "decord, kept open": lambda w: (
            seekers[w.video_id].get_batch(list(range(w.first_frame, w.first_frame + K))).asnumpy()
        ),
        "zarr, default chunks and codec": zarr_array("default"),
        "zarr, a chunk a frame": zarr_array("a-frame"),
        "litdata, JPEG bytes": lambda w: decoded([streamed[w.row + k] for k in range(K)], w),
    }

    def ours() -> None:
        for window in windows:
            sample = store.sample(window.clip, window.view)
            resample(sample.frames, sample.rectangle, sample.mirrored)

    def every(read: Reader) -> Callable[[], None]:
        def call() -> None:
            for window in windows:
                resample(read(window), window.rectangle, window.mirrored)

        return call

    return {"store": ours, **{name: every(read) for name, read in readers.items()}}


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
