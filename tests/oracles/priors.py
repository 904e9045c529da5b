"""Priors in plain loops, after Caffe's `prior_box_layer.cpp`."""

from __future__ import annotations

import numpy as np

from data_manifests.prior_spec import PriorSpec


def priors(spec: PriorSpec) -> np.ndarray:
    """(P, 4) float32: sizes and centres in float32, corners in float64."""
    f = np.float32
    rows = []
    for layer in spec.layers:
        small, large = f(layer.min_size), f(layer.max_size)
        sizes = [(small, small), (np.sqrt(small * large), np.sqrt(small * large))]
        for ratio in layer.ratios:
            for r in (f(ratio), f(1) / f(ratio)):
                sizes.append((small * np.sqrt(r), small / np.sqrt(r)))
        for row in range(layer.grid):
            for column in range(layer.grid):
                x, y = (f(column) + f(0.5)) * f(layer.step), (f(row) + f(0.5)) * f(layer.step)
                for w, h in sizes:
                    left, top = float(x) - float(w) / 2.0, float(y) - float(h) / 2.0
                    right, bottom = float(x) + float(w) / 2.0, float(y) + float(h) / 2.0
                    rows.append([f(edge / spec.image_size) for edge in (left, top, right, bottom)])
    return np.array(rows, np.float32)
