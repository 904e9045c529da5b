"""Text in pictures. OpenCV writes it, from 5 on in any of the common scripts: Pillow's own font has English letters only."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

Colour = tuple[int, int, int]
BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)
_FONT, _SIZE, _EDGE = cv2.FONT_HERSHEY_SIMPLEX, 0.38, 2
LINE = 16
"""Height of a line, pixels."""


def write_text(
    picture: Image.Image, place: tuple[float, float], text: str, ink: Colour = BLACK, *, paper: Colour | None = None
) -> None:
    """Writes a line of text into an RGB picture; what does not fit is cut off.

    Args:
        place: of the line's left upper corner, pixels.
        paper: fills the line's rectangle first.
    """
    (width, _), _ = cv2.getTextSize(text, _FONT, _SIZE, 1)
    left, top = round(place[0]), round(place[1])
    line = np.array(picture.crop((left, top, left + width + 2 * _EDGE, top + LINE)))
    if paper is not None:
        line[:] = paper
    cv2.putText(line, text, (_EDGE, LINE - 5), _FONT, _SIZE, ink, 1, cv2.LINE_AA)
    picture.paste(Image.fromarray(line), (left, top))
