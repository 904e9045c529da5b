"""From the network's numbers to boxes and scores."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def decode(
    loc: Float[Tensor, "*batch P K 4"], priors: Float[Tensor, "P 4"], variances: tuple[float, float, float, float]
) -> Float[Tensor, "*batch P K 4"]:
    """Boxes x1 y1 x2 y2 in [0, 1] of the view, not clipped, from SSD's centre-size offsets (caffe's DecodeBBox).

    centre = variance x offset x prior size + prior centre; size = exp(variance x offset) x prior size; one prior for
    all K frames.
    """
    size = priors[:, 2:] - priors[:, :2]
    middle = (priors[:, :2] + priors[:, 2:]) / 2
    scale = torch.tensor(variances, dtype=loc.dtype, device=loc.device)
    size, middle = size[:, None], middle[:, None]
    centre = scale[:2] * loc[..., :2] * size + middle
    half = torch.exp(scale[2:] * loc[..., 2:]) * size / 2
    return torch.cat((centre - half, centre + half), -1)


def class_scores(conf: Float[Tensor, "*batch labels"]) -> Float[Tensor, "*batch labels"]:
    """Softmax over background (0) and the classes."""
    return torch.softmax(conf, -1)
