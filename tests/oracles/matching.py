"""The matching rule twice: plain numpy over all priors (float32, the original's order of sums), and loops in float64."""

from __future__ import annotations

import numpy as np

LEAST_OVERLAP = 1e-6


def overlaps(boxes: np.ndarray, priors: np.ndarray) -> np.ndarray:
    """(P, G) float32 mean IoU of every prior and tube; boxes (G, K, 4)."""
    K = boxes.shape[1]
    total = np.zeros((len(priors), len(boxes)), np.float32)
    prior = priors[:, None]
    prior_area = (prior[..., 2] - prior[..., 0]) * (prior[..., 3] - prior[..., 1])
    for k in range(K):
        box = boxes[None, :, k]
        width = np.minimum(prior[..., 2], box[..., 2]) - np.maximum(prior[..., 0], box[..., 0])
        height = np.minimum(prior[..., 3], box[..., 3]) - np.maximum(prior[..., 1], box[..., 1])
        inter = np.maximum(width, np.float32(0)) * np.maximum(height, np.float32(0))
        area = (box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1])
        total += inter / (prior_area + area - inter)
    return total / np.float32(K)


def match(
    boxes: np.ndarray, priors: np.ndarray, positive: float = 0.5, negative: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prior, tube (-1: ignored) and overlap: matched rows ascending by prior, then ignored rows ascending."""
    overlap = overlaps(boxes, priors)
    overlap[overlap <= np.float32(LEAST_OVERLAP)] = 0
    tube_of = np.full(len(priors), -1)
    free = overlap.copy()
    for _ in range(len(boxes)):
        prior, tube = np.unravel_index(np.argmax(free), free.shape)
        if free[prior, tube] <= 0:
            break
        tube_of[prior] = tube
        free[prior], free[:, tube] = 0, 0
    if len(boxes) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    best = overlap.argmax(1)
    best_overlap = overlap[np.arange(len(priors)), best]
    left = tube_of < 0
    tube_of = np.where(left & (best_overlap >= np.float32(positive)), best, tube_of)
    prior = np.flatnonzero(tube_of >= 0)
    band = np.flatnonzero(left & (tube_of < 0) & (best_overlap >= np.float32(negative)))
    tube = np.concatenate([tube_of[prior], np.full(len(band), -1)])
    return (
        np.concatenate([prior, band]),
        tube,
        np.concatenate([overlap[prior, tube_of[prior]], best_overlap[band]]),
    )


def encode(boxes: np.ndarray, priors: np.ndarray, variances: tuple[float, ...]) -> np.ndarray:
    """(M, K, 4) float32 offsets of boxes (M, K, 4) to the priors (M, 4) beside them."""
    variance = np.array(variances, np.float32)
    prior = priors[:, None]
    size = prior[..., 2:] - prior[..., :2]
    centre = (prior[..., :2] + prior[..., 2:]) / np.float32(2)
    shift = ((boxes[..., :2] + boxes[..., 2:]) / np.float32(2) - centre) / size / variance[:2]
    stretch = np.log((boxes[..., 2:] - boxes[..., :2]) / size) / variance[2:]
    return np.concatenate([shift, stretch], -1)


def decode(loc: np.ndarray, priors: np.ndarray, variances: tuple[float, ...]) -> np.ndarray:
    """The inverse of `encode`, in float64."""
    prior, offsets = priors.astype(np.float64)[:, None], loc.astype(np.float64) * np.array(variances)
    size = prior[..., 2:] - prior[..., :2]
    centre = (prior[..., :2] + prior[..., 2:]) / 2 + offsets[..., :2] * size
    half = np.exp(offsets[..., 2:]) * size / 2
    return np.concatenate([centre - half, centre + half], -1)


def match_by_loops(
    boxes: list, priors: list, positive: float, negative: float
) -> tuple[dict[int, int], set[int], float]:
    """The rule in float64, loop by loop: (tube of each matched prior, ignored priors, smallest margin of a decision)."""

    def iou(a: list, b: list) -> float:
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        if width <= 0 or height <= 0:
            return 0.0
        inter = width * height
        return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)

    G, P = len(boxes), len(priors)
    table = [[sum(iou(prior, box) for box in tube) / len(tube) for tube in boxes] for prior in priors]
    edges = (positive, negative, 1e-6)
    margin = min((abs(o - edge) for row in table for o in row if o > 0 for edge in edges), default=1.0)
    tube_of: dict[int, int] = {}
    free = set(range(G))
    while free:
        pairs = sorted(((table[p][g], -p, -g) for p in range(P) if p not in tube_of for g in free), reverse=True)
        if not pairs or pairs[0][0] <= 1e-6:
            break
        if len(pairs) > 1:
            margin = min(margin, pairs[0][0] - pairs[1][0])
        tube_of[-pairs[0][1]] = -pairs[0][2]
        free.remove(-pairs[0][2])
    ignored = set()
    for p in range(P):
        if p in tube_of or G == 0:
            continue
        ordered = sorted(table[p], reverse=True)
        if ordered[0] >= positive:
            tube_of[p] = table[p].index(ordered[0])
            margin = min(margin, ordered[0] - ordered[1] if G > 1 else 1.0)
        elif ordered[0] >= negative:
            ignored.add(p)
    return tube_of, ignored, margin
