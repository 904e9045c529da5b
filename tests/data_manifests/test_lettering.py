"""Text in pictures."""

import cv2
import numpy as np
import pytest
from PIL import Image

from data_manifests.lettering import LINE, write_text


def written(text: str, place: tuple[float, float] = (0, 0), **options: tuple[int, int, int]) -> np.ndarray:
    """A red picture of 60 x 30 pixels with a text."""
    picture = Image.new("RGB", (60, 30), (255, 0, 0))
    write_text(picture, place, text, **options)
    return np.array(picture)


@pytest.mark.skipif(int(cv2.__version__.split(".")[0]) < 5, reason="OpenCV 4 writes ASCII alone")
def test_letters_of_many_scripts_are_told_apart() -> None:
    pictures = [written(letter) for letter in "OÖßéыжλ跳走"]
    for place, picture in enumerate(pictures):
        assert not any(np.array_equal(picture, other) for other in pictures[:place])


def test_only_the_line_is_written_on() -> None:
    plain, changed = written(""), written("Run", (10, 5))
    rows, columns = np.nonzero((changed != plain).any(2))
    assert 5 <= rows.min() < rows.max() < 5 + LINE
    assert 10 <= columns.min() < columns.max() < 40
    on_paper = written("Run", (10, 5), paper=(0, 255, 0))
    assert (on_paper[5 : 5 + LINE, 10:20, 0] < 255).all()
    np.testing.assert_array_equal(on_paper[:5], plain[:5])


@pytest.mark.parametrize("place", [(50.6, 22.4), (-8, -5), (70, 40), (-300, 5)])
def test_what_does_not_fit_is_cut_off(place: tuple[float, float]) -> None:
    assert written("a long text that does not fit", place).shape == (30, 60, 3)
