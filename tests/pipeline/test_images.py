"""A folder of numbered images as a video."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data_manifests.errors import InputError
from pipeline.frames import open_frames
from pipeline.images import pictures
from tests.pipeline.own_data import moving_square

PICTURE = moving_square(1)[0]
JPEG = cv2.imencode(".jpg", PICTURE[:, :, ::-1])[1].tobytes()


def write(folder: Path, **files: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(("suffix", "most"), [("jpg", 3), ("png", 0), ("bmp", 0), ("JPEG", 3)])
@pytest.mark.parametrize(("first", "name"), [(0, "{}"), (1, "{:05d}"), (1, "cam2_{:06d}"), (1, "img-{}")])
def test_images_come_in_the_order_of_their_numbers(
    suffix: str, most: int, first: int, name: str, tmp_path: Path
) -> None:
    pictures = moving_square(12)
    for number, picture in enumerate(pictures, first):
        encoded = cv2.imencode(f".{suffix.lower()}", picture[:, :, ::-1])[1].tobytes()
        (tmp_path / f"{name.format(number)}.{suffix}").write_bytes(encoded)
    (tmp_path / "._00001.jpg").write_bytes(b"what macOS leaves beside a file")
    (tmp_path / "notes.txt").write_text("3")
    source = open_frames(tmp_path)
    frames = list(source)
    assert source.decoder == "images"
    assert len(frames) == 12
    for frame, picture in zip(frames, pictures, strict=True):
        assert np.abs(frame.astype(int) - picture).mean() <= most


def test_a_jpeg_decodes_as_opencv_decodes_it(tmp_path: Path) -> None:
    (frame,) = open_frames(write(tmp_path, **{"1.jpg": JPEG}))
    np.testing.assert_array_equal(frame, cv2.imdecode(np.frombuffer(JPEG, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1])


def test_grey_images_become_rgb(tmp_path: Path) -> None:
    grey = cv2.imencode(".png", PICTURE[:, :, 0])[1].tobytes()
    (frame,) = open_frames(write(tmp_path, **{"1.png": grey}))
    np.testing.assert_array_equal(frame, PICTURE[:, :, [0, 0, 0]])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), r"has no images"),
        (("5.jpg", "6.jpg"), "the first image has number 5"),
        (("1.jpg", "3.jpg"), "no image 2"),
        (("1.jpg", "01.jpg"), "two images have number 1"),
        (("1_of_1.jpg", "2_of_1.jpg"), "two images have number 1"),
        (("1.jpg", "a.jpg"), r"a\.jpg: no number in the name"),
        (("1.jpg", "².jpg"), "no number in the name"),
    ],
)
def test_numbers_without_a_gap(files: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        list(open_frames(write(tmp_path / "frames", **dict.fromkeys(files, JPEG))))


def bomb(side: int) -> bytes:
    """A png of a few bytes that says that it is large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def as_format(name: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, name)
    return buffer.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def of_a_telephone(damage: int = 0) -> bytes:
    """Two pictures in one file; bytes of the first are zeroed."""
    pictures, buffer = [Image.fromarray(np.kron(PICTURE, np.ones((8, 8, 1), np.uint8)))] * 2, io.BytesIO()
    pictures[0].save(buffer, "MPO", save_all=True, append_images=pictures[1:])
    content, middle = buffer.getvalue(), len(buffer.getvalue()) // 4
    return content[:middle] + bytes(damage) + content[middle + damage :]


def test_of_two_pictures_in_one_file_the_first_is_the_frame_and_not_stored_as_it_is(tmp_path: Path) -> None:
    content = of_a_telephone()
    (picture,) = pictures(write(tmp_path, **{"1.jpg": content}))
    with Image.open(io.BytesIO(content)) as both:
        assert both.format == "MPO"
        assert np.abs(np.array(both).astype(int) - picture.pixels).mean() < 1
    assert picture.jpeg is None


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("2.jpg", JPEG[: len(JPEG) // 2], "does not decode as an image"),
        ("2.jpg", b"", "does not decode as an image"),
        ("2.png", cv2.imencode(".png", PICTURE)[1].tobytes()[:-60], "does not decode as an image"),
        (
            "2.png",
            cv2.imencode(".png", PICTURE[:, :, 0].astype(np.uint16) * 257)[1].tobytes(),
            r"more than 8 bits[\s\S]*I;16",
        ),
        ("2.jpg", of_a_telephone(40), "does not decode as an image"),
        ("2.jpg", turned(), "is marked as rotated"),
        ("2.png", cv2.imencode(".png", PICTURE[:40])[1].tobytes(), r"has another size[\s\S]*64 x 40[\s\S]*64 x 48"),
        ("2.png", bomb(8001), "an image of 8001 x 8001 is refused"),
        ("2.png", bomb(10_000), "an image of 10000 x 10000 is refused"),
        ("2.png", bomb(60_000), "does not decode as an image"),
        ("2.png", as_format("EPS"), "does not decode as an image"),
        ("2.png", as_format("TIFF"), "does not decode as an image"),
        ("2.jpg", as_format("GIF"), "does not decode as an image"),
    ],
)
def test_a_wrong_image_is_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    frames = iter(open_frames(write(tmp_path, **{"1.jpg": JPEG, name: content})))
    next(frames)
    with pytest.raises(InputError, match=rf"{name}.*{message}"):
        next(frames)
