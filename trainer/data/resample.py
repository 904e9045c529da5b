"""From native frames and a view's rectangle to the network's input, resampled once."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Integer, UInt8

MEAN = (123, 117, 104)
"""RGB; what lies past the frame (the mean that the network subtracts, rounded)."""


def resample(
    frames: UInt8[np.ndarray, "K height width 3"],
    rectangle: Integer[np.ndarray, "4"],
    mirrored: bool,
    size: int = 300,
) -> UInt8[np.ndarray, "K size size 3"]:
    """The view's pixels at size x size: bilinear, half-pixel centres, no antialiasing; past the frame is the mean.

    Args:
        frames: native RGB frames.
        rectangle: x0 y0 x1 y1, half-open whole pixels, may reach past the frame.
        mirrored: flips the result left to right.
    """
    height, width = frames.shape[1:3]
    x0, y0, x1, y1 = (int(value) for value in rectangle)
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    whole = (left, top, right, bottom) == (x0, y0, x1, y1)
    views = np.empty((len(frames), size, size, 3), np.uint8)
    canvas = None if whole else np.full((y1 - y0, x1 - x0, 3), MEAN, np.uint8)
    for frame, view in zip(frames, views, strict=True):
        if canvas is None:
            source = frame[y0:y1, x0:x1]
        else:
            source = canvas
            if left < right and top < bottom:
                source[top - y0 : bottom - y0, left - x0 : right - x0] = frame[top:bottom, left:right]
        cv2.resize(source, (size, size), dst=view, interpolation=cv2.INTER_LINEAR)
        if mirrored:
            cv2.flip(view, 1, dst=view)
    return views
