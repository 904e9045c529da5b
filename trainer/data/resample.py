"""From native frames and a view's rectangle to the network's input, resampled once."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from jaxtyping import Float32, Integer, UInt8

MEAN = (123, 117, 104)
"""RGB; what lies past the frame (the mean that the network subtracts, rounded)."""


def resample(
    frames: UInt8[np.ndarray, "K height width 3"],
    rectangle: Integer[np.ndarray, "4"],
    mirrored: bool,
    size: int = 300,
    into: UInt8[np.ndarray, "K size size 3"] | None = None,
) -> UInt8[np.ndarray, "K size size 3"]:
    """The view's pixels at size x size: bilinear, half-pixel centres, no antialiasing; past the frame is the mean.

    Args:
        frames: native RGB frames.
        rectangle: x0 y0 x1 y1, half-open whole pixels, may reach past the frame.
        mirrored: flips the result left to right.
        into: where to write the result, contiguous; by default a new array.
    """
    views = np.empty((len(frames), size, size, 3), np.uint8) if into is None else into
    with _intels_kernels():
        _resample(frames, [int(value) for value in rectangle], mirrored, size, views)
    return views


def cover(
    rectangle: Integer[np.ndarray, "4"], mirrored: bool, frame: tuple[int, int], size: int = 300
) -> Float32[np.ndarray, "2 size"]:
    """How much of each of a view's rows, then of each of its columns, is of the frame, 0 to 1; the rest is the mean.

    A pixel has their product of the frame, as `resample` weighs what it lies between.

    Args:
        rectangle, mirrored: as `resample` has them.
        frame: height and width, pixels.
    """
    x0, y0, x1, y1 = (int(value) for value in rectangle)
    rows, columns = _cover(y0, y1, frame[0], size), _cover(x0, x1, frame[1], size)
    return np.stack([rows, columns[::-1] if mirrored else columns])


def _cover(start: int, stop: int, length: int, size: int) -> Float32[np.ndarray, " size"]:
    places = (np.arange(size) + 0.5) * ((stop - start) / size) - 0.5 + start
    places = places.clip(start, stop - 1)
    return ((places + 1).clip(0, 1) * (length - places).clip(0, 1)).astype(np.float32)


@contextmanager
def _intels_kernels() -> Iterator[None]:
    """OpenCV resizes by Intel's kernels, where it has them: half the time of its own, and nearer to the rule.

    In this thread, and for as long as this lasts: others count on OpenCV's own bits.
    """
    before = cv2.ipp.useIPP_NotExact()
    cv2.ipp.setUseIPP_NotExact(True)
    try:
        yield
    finally:
        cv2.ipp.setUseIPP_NotExact(before)


def _resample(frames: np.ndarray, rectangle: list[int], mirrored: bool, size: int, views: np.ndarray) -> None:
    height, width = frames.shape[1:3]
    x0, y0, x1, y1 = rectangle
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if (left, top, right, bottom) == (x0, y0, x1, y1):
        for frame, view in zip(frames, views, strict=True):
            _stretch(frame[y0:y1, x0:x1], view, mirrored)
        return
    tall, wide = y1 - y0, x1 - x0
    canvas = _canvas.of(tall, max(wide, size))[:, :wide]
    inside = canvas[max(0, top - y0) : max(0, bottom - y0), max(0, left - x0) : max(0, right - x0)]
    source_rows, rows = _reached(bottom - y0, tall, size)
    source_columns, columns = _reached(right - x0, wide, size)
    much = 2 * source_rows * source_columns > tall * wide  # a part is resampled at half the speed of the whole
    try:
        for frame, view in zip(frames, views, strict=True):
            inside[:] = frame[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
            if much:
                _stretch(canvas, view, mirrored)
                continue
            cv2.resize(
                canvas[:source_rows, :source_columns], None, dst=view[:rows, :columns], fx=size / wide, fy=size / tall,
                interpolation=cv2.INTER_LINEAR,
            )  # fmt: skip
            view[:rows, columns:] = _canvas.row[: size - columns]
            view[rows:] = _canvas.row[:size]
            if mirrored:
                cv2.flip(view, 1, dst=view)
    finally:
        inside[:] = _canvas.row[: inside.shape[1]]


def _reached(end: int, length: int, size: int) -> tuple[int, int]:
    """Lines of the canvas, past whose line `end` is only the mean, to resample; and how many of the view they make.

    The last ones of both are the mean already, so what lies behind them need not be resampled.
    """
    scale = size / length
    lines = min(length, max(0, end) + 1 + math.ceil(1 / scale))
    return lines, round(lines * scale)  # as cv2 rounds it


def _stretch(source: np.ndarray, view: np.ndarray, mirrored: bool) -> None:
    cv2.resize(source, view.shape[1::-1], dst=view, interpolation=cv2.INTER_LINEAR)
    if mirrored:
        cv2.flip(view, 1, dst=view)


class _Canvas(threading.local):
    """A scratch surface of the mean, one a thread: to fill one anew for each clip takes longer than the resampling."""

    def __init__(self) -> None:
        self._pixels = np.empty((0, 0, 3), np.uint8)
        self.row = np.empty((0, 3), np.uint8)

    def of(self, height: int, width: int) -> np.ndarray:
        """A corner of it; whoever draws on it wipes it clean."""
        have = self._pixels.shape
        if have[0] < height or have[1] < width:
            self.row = np.tile(np.array(MEAN, np.uint8), (max(width, have[1]), 1))
            self._pixels = np.tile(self.row, (max(height, have[0]), 1, 1))
        return self._pixels[:height, :width]


_canvas = _Canvas()
