"""Frames of any video file, folder of images or camera, one at a time, and a video file written from frames."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
from jaxtyping import UInt8

from data_manifests.containers import missing_bytes
from data_manifests.errors import InputError

IMAGES = (".jpg", ".jpeg", ".png", ".bmp")
DEFAULT_RATE = Fraction(25)
MEND = "get the file again, or keep the frames before the damage with --damaged keep"


def open_footage(
    source: str, *, keep: bool = False
) -> tuple[Fraction, Callable[[], Iterator[UInt8[np.ndarray, "h w 3"]]]]:
    """Frames a second, and a function that reads the RGB frames from the start, each time it is called.

    Args:
        source: a video file, a folder of images (ordered by the numbers in their names), or a camera's index.
        keep: of a damaged video, the frames before the damage.

    Raises:
        InputError: there is no such source, it is not a video or cut off; while it is read, that it is damaged.
    """
    path = Path(source)
    if path.is_dir():
        images = _images_in(path)
        return DEFAULT_RATE, lambda: _read_images(images)
    if path.is_file():
        missing = missing_bytes(path)
        if missing and not keep:
            raise InputError(
                f"{path} is cut off", found=f"{path.stat().st_size:,} bytes",
                wanted=f"at least {missing:,} bytes more, by its own container", todo=MEND,
            )  # fmt: skip
        return _file_rate(path), lambda: _of_one_size(_file_frames(path, keep))
    if source.isdigit():
        return DEFAULT_RATE, lambda: _camera_frames(int(source))
    raise InputError(
        f"{source} is not there", wanted="a video file, a folder of images or a camera's index", todo="check the path"
    )


def gaps_of(source: str) -> str:
    """What is odd about the numbers of a folder's images, in words; "" where nothing is."""
    images = _images_in(Path(source)) if Path(source).is_dir() else []
    numbers = [[int(digits) for digits in re.findall("[0-9]+", image.stem)] for image in images]
    if len(images) < 2:
        return ""
    taken = "they are taken for a video's frames as they come"
    counting = [column for column in zip(*numbers) if len(set(column)) > 1]
    if not counting or len(set(map(len, numbers))) > 1:
        return f"the images in {source} are not all numbered alike: {taken}"
    gaps = sum(after != before + 1 for before, after in zip(counting[-1], counting[-1][1:]))
    return f"the numbers of the images in {source} have {gaps} gaps: {taken}" if gaps else ""


def _images_in(folder: Path) -> list[Path]:
    images = [image for image in folder.iterdir() if image.suffix.lower() in IMAGES and not image.name.startswith(".")]
    if not images:
        raise InputError(
            f"{folder} holds no images", wanted=f"files that end in {', '.join(IMAGES)}",
            todo="give a folder of one video's images, or video files",
        )  # fmt: skip
    return sorted(
        images, key=lambda i: [int(part) if part.isdecimal() else part for part in re.split("([0-9]+)", i.name)]
    )


def _of_one_size(frames: Iterator[UInt8[np.ndarray, "_ _ 3"]]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Frames of another size than the first, as some streams have in their middle, are resized to it."""
    size = None
    for pixels in frames:
        size = size or (pixels.shape[1], pixels.shape[0])
        yield pixels if pixels.shape[1::-1] == size else cv2.resize(pixels, size)


def _not_a_video(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} is not a video",
        found=str(error),
        wanted="a file that FFmpeg decodes",
        todo="give another, or get it again",
    )


def _open(path: Path) -> av.container.InputContainer:
    place = str(path.absolute())  # of a relative one, what stands before a colon would be a protocol
    return av.open(place, container_options={"protocol_whitelist": "file"})  # a playlist names no other machine


def _file_rate(path: Path) -> Fraction:
    try:
        with _open(path) as container:
            if not container.streams.video:
                raise InputError(f"{path} has no video stream", todo="give a video file")
            return Fraction(container.streams.video[0].average_rate or DEFAULT_RATE)
    except (av.FFmpegError, ValueError) as error:
        raise _not_a_video(path, error) from error


def _file_frames(path: Path, keep: bool) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    number = 0
    try:
        with _open(path) as container:
            container.streams.video[0].thread_type = "AUTO"
            for frame in container.decode(video=0):
                if frame.is_corrupt:
                    raise _Damaged("the frame is damaged")
                if frame.rotation % 90:
                    raise _not_a_video(path, ValueError(f"it is rotated by {frame.rotation} degrees"))
                upright = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                yield np.ascontiguousarray(upright)
                number += 1
    except (av.FFmpegError, _Damaged) as error:
        if not number:
            raise _not_a_video(path, error) from error
        if not keep:
            raise InputError(f"{path} is damaged at frame {number}", found=str(error), todo=MEND) from error


class _Damaged(Exception):
    """A frame that FFmpeg flags."""


def _read_images(paths: Sequence[Path]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    size = None
    for path in paths:
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if pixels is None:
            raise InputError(f"{path} is not an image", todo="extract the video's frames again")
        height, width = pixels.shape[:2]
        size = size or (width, height)
        if (width, height) != size:
            raise InputError(
                f"{path} has another size than the images before it", found=f"{width} x {height}",
                wanted=f"{size[0]} x {size[1]}", todo="extract the video's frames again",
            )  # fmt: skip
        yield cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _camera_frames(index: int) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    camera = cv2.VideoCapture(index)
    if not camera.isOpened():
        raise InputError(f"camera {index} does not open", todo="give another index, or a video file")
    try:
        while True:
            read, pixels = camera.read()
            if not read:
                return
            yield cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    finally:
        camera.release()


def write_video(path: Path, frames: Iterable[UInt8[np.ndarray, "h w 3"]], rate: Fraction) -> int:
    """Writes RGB frames as an mp4 of their own size (an odd side gains a row or column), whole or not at all.

    Returns the number of frames.
    """
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}.mp4")
    count = 0
    try:
        with av.open(str(unfinished.absolute()), "w") as container:
            stream = cast(av.VideoStream, container.add_stream(codec, rate=rate))
            stream.pix_fmt = "yuv420p"
            for pixels in frames:
                height, width = pixels.shape[:2]
                even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
                if count == 0:
                    stream.height, stream.width = even.shape[:2]
                container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
                count += 1
            container.mux(stream.encode(None))
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count
