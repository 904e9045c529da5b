"""The search for the priors that overlap a tube: on their grids (`pipeline.matching.PriorGrid`), only near the tube.

A prior whose mean IoU with a tube is at least t has IoU >= t in some frame, so its area is t to 1/t times the box's, and
it intersects the box by t times the larger area. The kernels are `no_type_check`, since numba compiles them.
"""

from __future__ import annotations

from typing import NamedTuple, no_type_check

import numpy as np
from jaxtyping import Float32, Int64

from data_manifests.kernel import kernel

LEAST_OVERLAP = np.float32(1e-6)
"""`MatchCuboid`: overlaps up to here count as none."""


class Scratch(NamedTuple):
    """Memory that the kernels reuse from clip to clip; `best` is all -1 between two calls."""

    prior: Int64[np.ndarray, " P"]
    tube: Int64[np.ndarray, " P"]
    overlap: Float32[np.ndarray, " P"]
    best: Int64[np.ndarray, " P"]
    best_overlap: Float32[np.ndarray, " P"]


@kernel
@no_type_check
def make_scratch(P):
    """Scratch for P priors."""
    return Scratch(
        np.empty(P, np.int64), np.empty(P, np.int64), np.empty(P, np.float32), np.full(P, -1), np.empty(P, np.float32)
    )


@kernel
@no_type_check
def iou(a, b):
    """`JaccardOverlap` of the original: normalised boxes, no +1."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return np.float32(0)
    inter = width * height
    size_a = (a[2] - a[0]) * (a[3] - a[1])
    size_b = (b[2] - b[0]) * (b[3] - b[1])
    return inter / (size_a + size_b - inter)


@kernel
@no_type_check
def mean_iou(prior, boxes):
    """The overlap of a prior (4,) and a tube's boxes (K, 4): the mean over the K frames of their IoU."""
    total = np.float32(0)
    for k in range(len(boxes)):
        total += iou(prior, boxes[k])
    return total / np.float32(len(boxes))


@kernel
@no_type_check
def _reach(low, high, extent, span, step, side):
    """Cells whose centre c can give a prior of that extent an intersection of `span` or more with some box of a range."""
    first = np.ceil((low - extent / 2 + span) / step - 0.5 - 1e-3)
    last = np.floor((high + extent / 2 - span) / step - 0.5 + 1e-3)
    return max(0, int(first)), min(side - 1, int(last))


@kernel
@no_type_check
def best_prior(boxes, g, lowest, taken, grid, scratch, touched):
    """The best prior of tube g that is not taken, -1 if none overlaps; one below t is looked for with a lower t."""
    t = lowest
    while True:
        touched, prior, overlap = _visit(boxes, g, t, lowest, taken, grid, scratch, touched)
        if overlap >= t or t <= LEAST_OVERLAP:
            return touched, prior if overlap > LEAST_OVERLAP else -1, overlap
        t = max(t / np.float32(4), LEAST_OVERLAP)


@kernel
@no_type_check
def _visit(boxes, g, t, lowest, taken, grid, scratch, touched):
    """Visits every prior that can overlap tube g by t; keeps each prior's best tube from `lowest` on.

    Returns the priors touched so far, and g's best of those that are not taken. A tube may be visited again.
    """
    tube = boxes[g]
    K = len(tube)
    prior_of_tube, overlap_of_tube = -1, np.float32(0)
    for layer in range(len(grid.side)):
        n = grid.shape_start[layer + 1] - grid.shape_start[layer]
        side, step = grid.side[layer], grid.step[layer]
        for j in range(n):
            width, height = grid.shapes[grid.shape_start[layer] + j]
            area = width * height
            left, right, top, bottom = np.inf, -np.inf, np.inf, -np.inf
            span_x, span_y = np.inf, np.inf
            for k in range(K):
                box = tube[k]
                box_width, box_height = box[2] - box[0], box[3] - box[1]
                box_area = box_width * box_height
                if min(area, box_area) < t * max(area, box_area) * 0.999:
                    continue
                least = t * max(area, box_area) * 0.999
                left, right = min(left, box[0]), max(right, box[2])
                top, bottom = min(top, box[1]), max(bottom, box[3])
                span_x = min(span_x, least / min(height, box_height))
                span_y = min(span_y, least / min(width, box_width))
            if left > right:
                continue
            x_first, x_last = _reach(left, right, width, span_x, step, side)
            y_first, y_last = _reach(top, bottom, height, span_y, step, side)
            for y in range(y_first, y_last + 1):
                for x in range(x_first, x_last + 1):
                    p = grid.start[layer] + (y * side + x) * n + j
                    overlap = mean_iou(grid.boxes[p], tube)
                    better = overlap > overlap_of_tube or (overlap == overlap_of_tube and 0 <= p < prior_of_tube)
                    if better and not contains(taken, p):
                        prior_of_tube, overlap_of_tube = p, overlap
                    if overlap < lowest or overlap <= LEAST_OVERLAP:
                        continue
                    if scratch.best[p] < 0:
                        scratch.prior[touched] = p
                        touched += 1
                    elif overlap <= scratch.best_overlap[p]:
                        continue
                    scratch.best[p], scratch.best_overlap[p] = g, overlap
    return touched, prior_of_tube, overlap_of_tube


@kernel
@no_type_check
def contains(values, value):
    """Whether a value is among some."""
    for other in values:  # noqa: SIM110  (numba has no any())
        if other == value:
            return True
    return False
