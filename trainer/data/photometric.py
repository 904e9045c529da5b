"""Colour distortion on the device: one 3 x 4 matrix a clip, the same for its K frames.

Brightness, then contrast, saturation and hue as SSD and ACT draw them (each with probability 1/2: +-32 levels, factors
of 0.5 to 1.5, +-18 degrees). Saturation and hue act linearly, in the YIQ plane, so that all four are one matrix; other
than in HSV, the luma of a colour stays as it is. What lies past the frame is not distorted: ACT lays the distorted frame on the mean.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = 32.0, (0.5, 1.5), (0.5, 1.5), math.radians(18)
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_RGB = np.linalg.inv(_YIQ)


def colour_matrix(seed: int, position: int) -> Float32[np.ndarray, "3 4"]:
    """The distortion of the clip at a position of the run: a pure function of both."""
    random = np.random.default_rng((seed, position))
    wanted = random.random(4) < 0.5
    brightness = random.uniform(-BRIGHTNESS, BRIGHTNESS) * wanted[0]
    contrast = random.uniform(*CONTRAST) if wanted[1] else 1.0
    saturation = random.uniform(*SATURATION) if wanted[2] else 1.0
    hue = random.uniform(-HUE, HUE) * wanted[3]
    turn = saturation * np.array([[math.cos(hue), -math.sin(hue)], [math.sin(hue), math.cos(hue)]])
    chroma = np.eye(3)
    chroma[1:, 1:] = turn
    matrix = contrast * _RGB @ chroma @ _YIQ
    return np.concatenate([matrix, np.full((3, 1), contrast * brightness)], 1).astype(np.float32)


def distort(
    images: Float32[Tensor, "B K 3 size size"],
    matrices: Float32[Tensor, "B 3 4"],
    cover: Float32[Tensor, "B 2 size"],
    mean: Float32[Tensor, "3 1 1"],
) -> Float32[Tensor, "B K 3 size size"]:
    """Applies each clip's matrix to what its images have of their frames; values are clipped to 0..255 as SSD does.

    Args:
        images: RGB minus the mean.
        matrices: of `colour_matrix`.
        cover: how much of each row, and of each column, is of the frame; the rest is the mean.
        mean: what was subtracted.
    """
    matrix, offset = matrices[:, :, :3], matrices[:, :, 3, None, None]
    past = 1 - cover[:, 0, :, None] * cover[:, 1, None, :]
    # the matrix is applied to what a pixel has of the mean, too: what that made of the mean is taken back
    made = torch.einsum("bij,jhw->bihw", matrix, mean) + offset - mean
    colours = torch.einsum("bij,bkjhw->bkihw", matrix, images + mean)
    return colours.add_((offset - made * past[:, None])[:, None]).clamp_(0, 255).sub_(mean)
