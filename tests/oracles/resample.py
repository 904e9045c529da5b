"""Resampling by its definition, in float64, one output pixel at a time in each direction."""

import numpy as np

MEAN = (123.0, 117.0, 104.0)


def resample_oracle(frame: np.ndarray, rectangle: tuple[int, int, int, int], mirrored: bool, size: int) -> np.ndarray:
    """The rectangle is cut out of the frame, laid on the mean, then sampled bilinearly at half-pixel centres.

    A sample nearer to the rectangle's edge than half a source pixel takes the edge pixel's value.
    """
    x0, y0, x1, y1 = rectangle
    height, width = frame.shape[:2]
    source = np.empty((y1 - y0, x1 - x0, 3))
    for row in range(y0, y1):
        for column in range(x0, x1):
            inside = 0 <= row < height and 0 <= column < width
            source[row - y0, column - x0] = frame[row, column] if inside else MEAN
    rows, row_weights = _places(y1 - y0, size)
    columns, column_weights = _places(x1 - x0, size)
    tall = source[rows[:, 0]] * row_weights[:, :1, None] + source[rows[:, 1]] * row_weights[:, 1:, None]
    view = tall[:, columns[:, 0]] * column_weights[None, :, :1] + tall[:, columns[:, 1]] * column_weights[None, :, 1:]
    return view[:, ::-1] if mirrored else view


def _places(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    places, weights = np.zeros((size, 2), int), np.zeros((size, 2))
    for index in range(size):
        at = min(max((index + 0.5) * length / size - 0.5, 0.0), length - 1.0)
        low = int(at)
        places[index] = low, min(low + 1, length - 1)
        weights[index] = 1 - (at - low), at - low
    return places, weights
