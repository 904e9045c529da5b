"""A folder's JPEGs are stored as they are; whatever else a frame comes as is encoded."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from pipeline.inspect import describe_store
from tests.pipeline.own_data import moving_square, tube_rows, write_own
from tests.pipeline.small_store import build_small
from trainer.data.reader import Store

FRAMES = 8
PICTURES = moving_square(FRAMES)


def write_frames(root: Path, suffix: str, *options: int, grey: bool = False) -> list[bytes]:
    """One video as a folder of images, and their bytes."""
    write_own(root, tube_rows("Run/a", 1, FRAMES))
    folder = root / "frames" / "Run" / "a"
    folder.mkdir(parents=True)
    files = []
    for number, picture in enumerate(PICTURES, 1):
        shown = picture[:, :, 0] if grey else picture[:, :, ::-1]
        files.append(cv2.imencode(suffix, shown, options)[1].tobytes())
        (folder / f"{number:05d}{suffix}").write_bytes(files[-1])
    return files


def stored(store: Path) -> list[bytes]:
    shard = Store.open(store).shards["train-00000"]
    ends = shard.arrays["frames/offsets"].tolist()
    return [shard.arrays["frames/bytes"][begin:end].tobytes() for begin, end in zip(ends, ends[1:], strict=False)]


@pytest.mark.parametrize(
    "options",
    [
        (cv2.IMWRITE_JPEG_QUALITY, 70),
        (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    ],
)
def test_jpegs_are_stored_as_they_are_and_the_store_says_so(options: tuple[int, ...], tmp_path: Path) -> None:
    files = write_frames(tmp_path / "d", ".jpg", *options)
    build_small(tmp_path / "d", tmp_path / "s")
    assert stored(tmp_path / "s") == files
    assert describe_store(tmp_path / "s")["rules"] == {"jpegs-as-found": ["Run/a"]}
    frames = Store.open(tmp_path / "s").frames("Run/a", 0, FRAMES)
    for frame, file in zip(frames, files, strict=True):
        np.testing.assert_array_equal(frame, simplejpeg.decode_jpeg(file, colorspace="RGB", fastupsample=True))


def test_a_jpeg_that_is_shrunk_is_encoded_anew(tmp_path: Path) -> None:
    write_frames(tmp_path / "d", ".jpg")
    build_small(tmp_path / "d", tmp_path / "s", max_side=32)
    assert {simplejpeg.decode_jpeg_header(frame)[:2] for frame in stored(tmp_path / "s")} == {(24, 32)}
    assert describe_store(tmp_path / "s")["rules"] == {"scaled-boxes": ["Run/a"]}


@pytest.mark.parametrize(("suffix", "grey"), [(".png", False), (".jpg", True)])
def test_other_images_are_encoded(suffix: str, grey: bool, tmp_path: Path) -> None:
    """A grey JPEG too: a stored frame has three colours."""
    files = write_frames(tmp_path / "d", suffix, grey=grey)
    build_small(tmp_path / "d", tmp_path / "s")
    for frame, file in zip(stored(tmp_path / "s"), files, strict=True):
        assert frame != file
        assert simplejpeg.decode_jpeg_header(frame)[2:] == ("YCbCr", "420")
    assert describe_store(tmp_path / "s")["rules"] == {}


def test_raw_frames_are_raw(tmp_path: Path) -> None:
    write_frames(tmp_path / "d", ".jpg")
    build_small(tmp_path / "d", tmp_path / "s", frames="raw")
    assert {len(frame) for frame in stored(tmp_path / "s")} == {PICTURES[0].nbytes}
    assert describe_store(tmp_path / "s")["rules"] == {}
