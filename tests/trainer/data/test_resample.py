"""Resampling against its definition, to one level; and that frames do not leak into one another."""

import numpy as np
import pytest

from tests.oracles.resample import MEAN, resample_oracle
from trainer.data.resample import cover, resample

RECTANGLES = {
    "whole frame": (0, 0, 64, 48),
    "inside": (10, 5, 50, 40),
    "one pixel": (20, 20, 21, 21),
    "past every edge": (-40, -30, 150, 120),
    "past the left": (-13, 4, 31, 40),
    "past the bottom right": (30, 20, 131, 88),
    "touches from outside": (64, 0, 100, 48),
    "apart": (-90, -80, -20, -10),
    "far apart": (300, 200, 340, 260),
    "one row past": (0, 0, 64, 49),
}


def frames(count: int = 3) -> np.ndarray:
    """Noise: the hardest to interpolate."""
    return np.random.default_rng(0).integers(0, 256, (count, 48, 64, 3), np.uint8)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("size", [30, 75])
@pytest.mark.parametrize("name", RECTANGLES)
def test_within_one_level_of_the_definition(name: str, size: int, mirrored: bool) -> None:
    source, rectangle = frames(), RECTANGLES[name]
    got = resample(source, np.array(rectangle, np.int16), mirrored, size)
    assert got.shape == (3, size, size, 3)
    for frame, view in zip(source, got, strict=True):
        assert np.abs(view - resample_oracle(frame, rectangle, mirrored, size)).max() <= 1


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("size", [30, 75])
@pytest.mark.parametrize("name", RECTANGLES)
def test_the_cover_is_what_a_pixel_has_of_the_frame(name: str, size: int, mirrored: bool) -> None:
    white, rectangle = np.full((48, 64, 3), 255, np.uint8), RECTANGLES[name]
    share = (resample_oracle(white, rectangle, mirrored, size) - MEAN) / (255 - np.array(MEAN))
    rows, columns = cover(np.array(rectangle, np.int16), mirrored, (48, 64), size)
    np.testing.assert_allclose(rows[:, None] * columns, share[..., 0], atol=1e-6)


def test_random_rectangles() -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        corner, extent = rng.integers(-60, 60, 2), rng.integers(1, 150, 2)
        rectangle = (*corner.tolist(), *(corner + extent).tolist())
        mirrored = bool(rng.integers(2))
        view = resample(frames(1), np.array(rectangle, np.int16), mirrored, 40)[0]
        assert np.abs(view - resample_oracle(frames(1)[0], rectangle, mirrored, 40)).max() <= 1


def test_nothing_is_left_of_the_frames_before() -> None:
    """The canvas is used again and again: what one clip drew on it must not show in the next."""
    white = np.full((6, 48, 64, 3), 255, np.uint8)
    for rectangle in RECTANGLES.values():
        resample(white, np.array(rectangle, np.int16), False, 30)
    view = resample(white, np.array(RECTANGLES["apart"], np.int16), False, 30)
    assert (view == np.array(MEAN, np.uint8)).all()


def test_the_default_size_is_the_networks() -> None:
    assert resample(frames(6), np.array((0, 0, 64, 48), np.int16), False).shape == (6, 300, 300, 3)
