"""The prior boxes of a checkpoint's network, where no store is at hand to read them from."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from data_manifests.prior_spec import PriorSpec


def priors_of(spec: PriorSpec) -> Float32[np.ndarray, "P 4"]:
    """x1 y1 x2 y2 in [0, 1], ordered by layer, row, column, prior: the bytes of `STORE/priors`.

    Sizes and centres in float32, corners in float64, rounded to float32 (caffe's PriorBoxLayer).
    """
    parts = []
    for layer in spec.layers:
        small, middle = np.float32(layer.min_size), np.sqrt(np.float32(layer.min_size) * np.float32(layer.max_size))
        sides = [(small, small), (middle, middle)]
        for ratio in layer.ratios:
            for r in (np.float32(ratio), np.float32(1) / np.float32(ratio)):
                sides.append((small * np.sqrt(r), small / np.sqrt(r)))
        half = np.array(sides, np.float32).astype(np.float64) / 2
        place = (np.arange(layer.grid, dtype=np.float32) + np.float32(0.5)) * np.float32(layer.step)
        centre = np.stack(np.meshgrid(place, place), -1)[:, :, None].astype(np.float64)
        corners = np.concatenate((centre - half, centre + half), -1) / spec.image_size
        parts.append(corners.reshape(-1, 4).astype(np.float32))
    return np.concatenate(parts)
