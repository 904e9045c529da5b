"""The matching rule: which prior answers for which tube, and the offsets the network shall learn.

Kalogeiton et al. (ICCV 2017), section 3.2; `MatchCuboid` and `EncodeCuboid` of the original. In one rule set:

1. The overlap of a prior and a tube is the mean over the K frames of their IoU.
2. Greedy bipartite: while some free tube and free prior overlap at all, the pair with the largest overlap is matched.
3. Every prior left is matched to its best tube, if they overlap by at least `positive_overlap`.
4. A prior left now whose best overlap is at least `negative_overlap` is ignored, all others are background.

Ties go to the lowest prior, then to the lowest tube. All arithmetic is float32 in the original's order, so that every
decision and every offset is the original's, bit for bit. The kernels are `no_type_check`, since numba compiles them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, no_type_check

import numpy as np
from jaxtyping import Float32, Int64

from data_manifests.errors import InputError
from data_manifests.kernel import kernel
from data_manifests.prior_spec import PriorSpec
from data_manifests.priors import make_priors, prior_shapes
from pipeline.prior_search import best_prior, contains, make_scratch


@dataclass(frozen=True)
class MatchRule:
    """The thresholds and variances (`overlap_threshold`, `neg_overlap`, `variance` of the original's prototxt)."""

    positive_overlap: float = 0.5
    negative_overlap: float = 0.5
    variances: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)

    def __post_init__(self) -> None:
        if not 0 < self.negative_overlap <= self.positive_overlap <= 1:
            raise InputError(
                "the thresholds of the matching rule do not go together",
                found=f"negative_overlap {self.negative_overlap}, positive_overlap {self.positive_overlap}",
                wanted="0 < negative_overlap <= positive_overlap <= 1",
                todo="change one of the two",
            )
        if not all(variance > 0 for variance in self.variances):
            raise InputError("a variance is not above 0", found=str(self.variances), todo="change it")


class PriorGrid(NamedTuple):
    """The priors and the grids they stand on, as the kernels want them.

    Args:
        boxes: all priors, x1 y1 x2 y2.
        start: first prior of each layer, and their number at the end.
        side: cells a side of each layer.
        step: distance of two cells, in [0, 1] of the image.
        shape_start: first row of each layer in `shapes`, and their number at the end.
        shapes: width and height of a cell's priors, in [0, 1].
    """

    boxes: Float32[np.ndarray, "P 4"]
    start: Int64[np.ndarray, " layers_and_1"]
    side: Int64[np.ndarray, " layers"]
    step: Float32[np.ndarray, " layers"]
    shape_start: Int64[np.ndarray, " layers_and_1"]
    shapes: Float32[np.ndarray, "shapes 2"]


class Match(NamedTuple):
    """The matched priors of one clip, ascending, then the ignored ones, ascending.

    `tube` is the row of the clip's boxes, -1 for an ignored prior, whose `loc` is zero.
    """

    prior: Int64[np.ndarray, " M"]
    tube: Int64[np.ndarray, " M"]
    overlap: Float32[np.ndarray, " M"]
    loc: Float32[np.ndarray, "M K 4"]


def prior_grid(spec: PriorSpec) -> PriorGrid:
    """The priors of a network with their grids."""
    counts = [layer.grid * layer.grid * layer.priors_per_cell for layer in spec.layers]
    shapes = [prior_shapes(layer) / np.float32(spec.image_size) for layer in spec.layers]
    return PriorGrid(
        make_priors(spec),
        np.cumsum([0, *counts]).astype(np.int64),
        np.array([layer.grid for layer in spec.layers], np.int64),
        np.array([layer.step / spec.image_size for layer in spec.layers], np.float32),
        np.cumsum([0, *map(len, shapes)]).astype(np.int64),
        np.concatenate(shapes),
    )


def match_clip(boxes: Float32[np.ndarray, "G K 4"], grid: PriorGrid, rule: MatchRule) -> Match:
    """Matches one clip.

    Args:
        boxes: x1 y1 x2 y2 of the clip's G tubes at its K frames, in [0, 1] of the view.
    """
    thresholds = np.float32(rule.positive_overlap), np.float32(rule.negative_overlap)
    return Match(*_match_and_encode(boxes, grid, *thresholds, np.array(rule.variances, np.float32)))


@kernel
@no_type_check
def _match_and_encode(boxes, grid, positive, negative, variances):
    scratch = make_scratch(len(grid.boxes))
    M = match_rows(boxes, grid, positive, negative, scratch)
    prior, tube, overlap = scratch.prior[:M].copy(), scratch.tube[:M].copy(), scratch.overlap[:M].copy()
    loc = np.zeros((M, boxes.shape[1], 4), np.float32)
    encode_rows(boxes, grid.boxes, prior, tube, variances, loc)
    return prior, tube, overlap, loc


@kernel
@no_type_check
def match_rows(boxes, grid, positive, negative, scratch):
    """The rule. Fills prior, tube and overlap of the scratch, and returns the number of rows."""
    G = len(boxes)
    lowest = min(positive, negative)
    touched = np.int64(0)
    bipartite, overlaps = np.full(G, -1), np.zeros(G, np.float32)
    wish, wish_overlap = np.empty(G, np.int64), np.empty(G, np.float32)
    for g in range(G):
        touched, wish[g], wish_overlap[g] = best_prior(boxes, g, lowest, bipartite, grid, scratch, touched)
    for _ in range(G):
        tube = _next_pair(bipartite, wish, wish_overlap)
        if tube < 0:
            break
        bipartite[tube], overlaps[tube] = wish[tube], wish_overlap[tube]
        for g in range(G):
            if bipartite[g] < 0 and wish[g] == bipartite[tube]:
                touched, wish[g], wish_overlap[g] = best_prior(boxes, g, lowest, bipartite, grid, scratch, touched)

    matched = 0
    positives = np.empty(touched + G, np.int64)
    for i in range(touched):
        p = scratch.prior[i]
        if scratch.best_overlap[p] < positive:
            continue
        positives[matched] = p
        matched += 1
    for g in range(G):
        p = bipartite[g]
        if p < 0:
            continue
        if scratch.best[p] < 0 or scratch.best_overlap[p] < positive:
            positives[matched] = p
            matched += 1
        if scratch.best[p] < 0:
            scratch.prior[touched] = p
            touched += 1
    band = np.empty(touched, np.int64)
    ignores = 0
    for i in range(touched):
        p = scratch.prior[i]
        if scratch.best[p] >= 0 and negative <= scratch.best_overlap[p] < positive and not contains(bipartite, p):
            band[ignores] = p
            ignores += 1
    _sort(positives, matched)
    _sort(band, ignores)
    best, best_overlap = scratch.best, scratch.best_overlap
    result_tube = np.empty(matched, np.int64)
    result_overlap = np.empty(matched, np.float32)
    for i in range(matched):
        p = positives[i]
        result_tube[i], result_overlap[i] = best[p], best_overlap[p]
        for g in range(G):
            if bipartite[g] == p:
                result_tube[i], result_overlap[i] = g, overlaps[g]
    for i in range(touched):
        best[scratch.prior[i]] = -1
    for i in range(matched):
        scratch.prior[i], scratch.tube[i], scratch.overlap[i] = positives[i], result_tube[i], result_overlap[i]
    for i in range(ignores):
        scratch.prior[matched + i], scratch.tube[matched + i] = band[i], -1
        scratch.overlap[matched + i] = best_overlap[band[i]]
    return matched + ignores


@kernel
@no_type_check
def _next_pair(bipartite, wish, overlap):
    """Of the tubes without a prior, the one that overlaps its wish most; -1 if no wish is left."""
    tube = -1
    for g in range(len(wish)):
        if bipartite[g] >= 0 or wish[g] < 0:
            continue
        if tube < 0 or overlap[g] > overlap[tube] or (overlap[g] == overlap[tube] and wish[g] < wish[tube]):
            tube = g
    return tube


@kernel
@no_type_check
def _sort(values, n):
    """Sorts the first n in place, by Shell's method; np.sort alone takes numba a second to compile."""
    gap = n // 2
    while gap > 0:
        for i in range(gap, n):
            value, j = values[i], i
            while j >= gap and values[j - gap] > value:
                values[j] = values[j - gap]
                j -= gap
            values[j] = value
        gap //= 2


@kernel
@no_type_check
def encode_rows(boxes, priors, prior, tube, variances, loc):
    """`EncodeBBox` with CENTER_SIZE for each of the K frames (its logarithm is libm's logf); rows without a tube stay."""
    two = np.float32(2)
    for i in range(len(prior)):
        if tube[i] < 0:
            continue
        p = priors[prior[i]]
        width, height = p[2] - p[0], p[3] - p[1]
        x, y = (p[0] + p[2]) / two, (p[1] + p[3]) / two
        for k in range(boxes.shape[1]):
            b = boxes[tube[i], k]
            loc[i, k, 0] = ((b[0] + b[2]) / two - x) / width / variances[0]
            loc[i, k, 1] = ((b[1] + b[3]) / two - y) / height / variances[1]
            loc[i, k, 2] = np.log((b[2] - b[0]) / width) / variances[2]
            loc[i, k, 3] = np.log((b[3] - b[1]) / height) / variances[3]
