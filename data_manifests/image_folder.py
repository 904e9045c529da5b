"""A video as a folder of numbered images."""

from __future__ import annotations

from pathlib import Path

from data_manifests.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")


def images_in(folder: Path) -> list[Path]:
    """The images of a folder by the numbers in their names. Hidden files are passed over.

    Raises:
        InputError: there is none, a name has no number, or a number is missing or twice there.
    """
    images = sorted((entry for entry in folder.iterdir() if _is_image(entry)), key=number_of)
    if not images:
        raise InputError(f"{folder} has no images", wanted=", ".join(SUFFIXES), todo="extract the video's frames there")
    numbers = [number_of(image) for image in images]
    for before, after in zip(numbers, numbers[1:], strict=False):
        if after != before + 1:
            raise InputError(
                f"{folder}: " + (f"two images have number {after}" if after == before else f"no image {before + 1}"),
                wanted="one image a frame, numbered without a gap",
                todo="extract the video's frames again",
            )
    return images


def number_of(image: Path) -> int:
    """The number that the digits of an image's name make.

    Raises:
        InputError: the name has none.
    """
    digits = "".join(character for character in image.stem if character in "0123456789")
    if not digits:
        raise InputError(f"{image}: no number in the name", wanted="00001.jpg and so on", todo="name it by its frame")
    return int(digits)


def _is_image(entry: Path) -> bool:
    return entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".")
