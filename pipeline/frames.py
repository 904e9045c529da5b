"""One video, whole, in order: from a file or a folder of images to RGB frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from jaxtyping import UInt8

from data_manifests.errors import InputError

IMAGES = (".jpg", ".jpeg", ".png", ".bmp")
MAX_PIXELS = 64_000_000
"""A frame larger than this is refused before it is decoded."""

Frame = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class FrameSource:
    """Iterates over every frame of a video, in order, RGB. What comes out is the count; headers are not trusted.

    Args:
        path: the file or folder.
        decoder: `decord`, `pyav` or `images`.
    """

    path: Path
    decoder: str

    def __iter__(self) -> Iterator[Frame]:
        """Raises InputError, naming file and frame, where the video does not decode to its end."""
        reader = {"decord": _decord_frames, "pyav": _pyav_frames, "images": _image_frames}[self.decoder]
        return reader(self.path)


def open_frames(path: Path) -> FrameSource:
    """Chooses the decoder.

    A folder is read as images. decord reads AVI files whose header counts as many frames as the file has packets: there
    it is exact and the fastest. PyAV reads all others: it knows rotation, edit lists, AV1, and trusts no count.

    Raises:
        InputError: the path is neither a video nor a folder of images.
    """
    if path.is_dir():
        return FrameSource(path, "images")
    if not path.is_file():
        raise InputError(f"video {path} is not there", todo="check the path, or build with --missing skip")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path} has no video stream", todo="remove it from the lists, or replace the file")
            stream = container.streams.video[0]
            if stream.width * stream.height > MAX_PIXELS:
                raise InputError(
                    f"{path}: frames of {stream.width} x {stream.height} are refused",
                    wanted=f"at most {MAX_PIXELS:,} pixels",
                    todo="scale the video down, or replace the file",
                )
            plain = container.format.name == "avi" and stream.frames > 0
            if plain and stream.frames == sum(packet.size > 0 for packet in container.demux(stream)):
                return FrameSource(path, "decord")
    except av.FFmpegError as error:
        raise InputError(f"{path} does not open as a video", found=str(error), todo="replace the file") from error
    return FrameSource(path, "pyav")


def _broken(path: Path, frame: int, why: object) -> InputError:
    return InputError(
        f"{path} does not decode to its end",
        found=f"after frame {frame - 1}: {why}" if frame else str(why),
        wanted="a whole video",
        todo="replace the file, or take the video out of the lists",
    )


def _decord_frames(path: Path) -> Iterator[Frame]:
    import decord  # here, because it costs 0.2 s

    count = 0
    try:
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        wanted = len(reader)
        for count in range(wanted):  # noqa: B007
            yield reader.next().asnumpy()
    except (decord.DECORDError, StopIteration) as error:
        raise _broken(path, count, str(error).splitlines()[0] if str(error) else "it ends there") from error


def _pyav_frames(path: Path) -> Iterator[Frame]:
    count = 0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise _broken(path, count, "the frame is damaged")
                image = frame.to_ndarray(format="rgb24")
                if frame.rotation % 90:
                    raise _broken(path, count, f"a rotation by {frame.rotation} degrees")
                yield np.ascontiguousarray(np.rot90(image, frame.rotation // 90)) if frame.rotation else image
                count += 1
    except av.FFmpegError as error:
        raise _broken(path, count, error) from error
    if not count:
        raise _broken(path, 0, "no frame came out")


def _image_frames(folder: Path) -> Iterator[Frame]:
    images = sorted((entry for entry in folder.iterdir() if entry.suffix.lower() in IMAGES), key=_number)
    if not images:
        raise InputError(f"{folder} has no images", wanted=", ".join(IMAGES), todo="extract the video's frames there")
    numbers = [_number(image) for image in images]
    gap = next((a for a, b in zip(numbers, numbers[1:], strict=False) if b != a + 1), None)
    if gap is not None:
        raise InputError(
            f"{folder}: the image after number {gap} is not number {gap + 1}", todo="extract the video's frames again"
        )
    size: tuple[int, ...] | None = None
    for image in images:
        pixels = cv2.imread(str(image), cv2.IMREAD_COLOR)
        if pixels is None:
            raise InputError(f"{image} does not decode as an image", todo="extract the video's frames again")
        if size is not None and pixels.shape != size:
            raise InputError(
                f"{image} has another size than the images before it",
                found=f"{pixels.shape[1]} x {pixels.shape[0]}",
                wanted=f"{size[1]} x {size[0]}",
                todo="extract the video's frames again",
            )
        size = pixels.shape
        yield cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _number(image: Path) -> int:
    digits = "".join(character for character in image.stem if character.isdigit())
    if not digits:
        raise InputError(f"{image}: no number in the name", wanted="00001.jpg and so on", todo="name it by its frame")
    return int(digits)
