"""A video as a folder of numbered images."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image

from data_manifests.errors import InputError
from data_manifests.layout import MOST_PIXELS
from pipeline.damage import DamagedVideo

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
_FORMATS = ("JPEG", "PNG", "BMP")
"""What a file may be, whatever its name says: PIL would run Ghostscript for others."""
_JPEGS = ("JPEG", "MPO")
"""MPO: a telephone's, with a second picture, of the depth perhaps, behind the first."""
_DEEP = ("I", "I;16", "I;16B", "I;16L", "F")
_ORIENTATION = 0x0112


class Picture(NamedTuple):
    """A decoded image, RGB; its file's bytes, if they are a JPEG in colour, alone, which can be stored as it is; and whether it
    is of a video file of which a packet up to here held two frames (packed B-frames).
    """

    pixels: UInt8[np.ndarray, "height width 3"]
    jpeg: bytes | None = None
    packed: bool = False


def pictures(folder: Path) -> Iterator[Picture]:
    """The folder's images by the last number in their names. Numbers start at 0 or 1 and have no gap; hidden files are
    passed over.

    Raises:
        InputError: a number is missing or twice there, an image is damaged, or of another size than those before it.
    """
    images = sorted((entry for entry in folder.iterdir() if _is_image(entry)), key=_number)
    if not images:
        raise InputError(f"{folder} has no images", wanted=", ".join(SUFFIXES), todo="extract the video's frames there")
    _check_numbers(folder, [_number(image) for image in images])
    size: tuple[int, int] | None = None
    for image in images:
        picture = _decode(image)
        here = picture.pixels.shape[1], picture.pixels.shape[0]
        if size is not None and here != size:
            raise InputError(
                f"{image} has another size than the images before it",
                found=f"{here[0]} x {here[1]}",
                wanted=f"{size[0]} x {size[1]}",
                todo="extract the video's frames again",
            )
        size = here
        yield picture


def _is_image(entry: Path) -> bool:
    return entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".")


def _number(image: Path) -> int:
    numbers = re.findall("[0-9]+", image.stem)
    if not numbers:
        raise InputError(f"{image}: no number in the name", wanted="00001.jpg and so on", todo="name it by its frame")
    return int(numbers[-1])


def _check_numbers(folder: Path, numbers: list[int]) -> None:
    if numbers[0] not in (0, 1):
        raise InputError(
            f"{folder}: the first image has number {numbers[0]}",
            wanted="0 or 1, as the last number in its name",
            todo="extract the video's frames again; or number them from 1, if none is missing",
        )
    for before, after in zip(numbers, numbers[1:], strict=False):
        if after != before + 1:
            raise InputError(
                f"{folder}: " + (f"two images have number {after}" if after == before else f"no image {before + 1}"),
                wanted="one image a frame; the last numbers in their names have no gap",
                todo="extract the video's frames again",
            )


def _decode(path: Path) -> Picture:
    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as header:  # reads no pixels yet
            width, height = header.size
            if width * height > MOST_PIXELS:
                raise InputError(
                    f"{path}: an image of {width} x {height} is refused",
                    wanted=f"at most {MOST_PIXELS:,} pixels",
                    todo="replace the file",
                )
            if header.getexif().get(_ORIENTATION, 1) != 1:
                raise InputError(f"{path} is marked as rotated", todo="extract the video's frames upright")
            if header.format in _JPEGS:  # strict: PIL passes over damage within a JPEG
                pixels = simplejpeg.decode_jpeg(content, colorspace="RGB", strict=True)
                whole = header.format == "JPEG" and header.mode == "RGB"
                return Picture(pixels, content if whole else None)
            if header.mode in _DEEP:  # PIL would cut them off at 255
                raise InputError(
                    f"{path} has more than 8 bits a pixel of grey", found=f"PIL's mode {header.mode}",
                    todo="make 8 bits of them as they are meant to be seen (ffmpeg -pix_fmt gray), in all images of the video",
                )  # fmt: skip
            return Picture(np.array(header.convert("RGB")))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DamagedVideo(
            f"{path} does not decode as an image", found=str(error), todo="extract the video's frames again"
        ) from error
