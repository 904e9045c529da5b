"""One video, whole, in order: from a file or a folder of images to RGB frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

from data_manifests.containers import CONTAINERS
from data_manifests.errors import InputError
from data_manifests.layout import MOST_PIXELS
from pipeline.damage import DamagedVideo, check_whole
from pipeline.images import Picture, pictures

Frame = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class FrameSource:
    """Iterates over every frame of a video, in order, RGB. What comes out is the count; headers are not trusted.

    Args:
        path: the file or folder.
        decoder: `pyav` or `images`.
    """

    path: Path
    decoder: str

    def __iter__(self) -> Iterator[Frame]:
        """Raises DamagedVideo, naming file and frame, where the video does not decode to its end."""
        return (picture.pixels for picture in self.pictures())

    def pictures(self) -> Iterator[Picture]:
        """The frames, each with the JPEG that it lies there as, if it does. Raises as iterating does."""
        return pictures(self.path) if self.decoder == "images" else map(Picture, _video_frames(self.path))


def open_frames(path: Path, *, whole: bool = True) -> FrameSource:
    """A folder is read as images, a file by PyAV.

    decord is not used: on damaged UCF101 files it gives wrong frames without a word where FFmpeg flags them, and with one
    reformatter for the whole video PyAV is as fast (tests/benchmarks/bench_decode.py shows both).

    Args:
        whole: refuses a file that was cut off. Otherwise its frames may end without a word.

    Raises:
        InputError: the path is neither a (whole) video nor a folder.
    """
    if path.is_dir():
        return FrameSource(path, "images")
    if not path.is_file():
        raise InputError(f"video {path} is not there", todo="check the path, or build with --missing skip")
    if whole:
        check_whole(path)
    try:
        with _open(path) as container:
            if not container.streams.video:
                raise InputError(f"{path} has no video stream", todo="remove it from the lists, or replace the file")
            stream = container.streams.video[0]
            if stream.width * stream.height > MOST_PIXELS:
                raise InputError(
                    f"{path}: frames of {stream.width} x {stream.height} are refused",
                    wanted=f"at most {MOST_PIXELS:,} pixels",
                    todo="scale the video down, or replace the file",
                )
    except av.FFmpegError as error:
        raise InputError(f"{path} does not open as a video", found=str(error), todo="replace the file") from error
    return FrameSource(path, "pyav")


def _open(path: Path) -> av.container.InputContainer:
    return av.open(str(path), container_options={"format_whitelist": CONTAINERS, "protocol_whitelist": "file"})


def _broken(path: Path, frame: int, why: object) -> DamagedVideo:
    return DamagedVideo(
        f"{path} does not decode to its end",
        found=f"after frame {frame - 1}: {why}" if frame else str(why),
        wanted="a whole video",
        todo="replace the file, take the video out of the lists, or build with --damaged keep",
    )


def _video_frames(path: Path) -> Iterator[Frame]:
    count = 0
    reformatter = VideoReformatter()  # one a video: a new one a frame takes longer than the decoding
    try:
        with _open(path) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise _broken(path, count, "the frame is damaged")
                if frame.rotation % 90:
                    raise _broken(path, count, f"a rotation by {frame.rotation} degrees")
                image = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
                yield np.ascontiguousarray(np.rot90(image, frame.rotation // 90))
                count += 1
    except av.FFmpegError as error:
        raise _broken(path, count, error) from error
    if not count:
        raise _broken(path, 0, "no frame came out")
