"""Plain port of ACT's detection output layer (ACT_detection_output_layer.cpp, ACT_cuboid_util.cpp) and of ACT.py's
candidates.
"""

from __future__ import annotations

import numpy as np


def decode(loc, priors, variances):
    """(P, K, 4) offsets to normalised boxes, prior by prior."""
    out = np.empty_like(loc)
    for p, (x1, y1, x2, y2) in enumerate(priors):
        width, height, cx, cy = x2 - x1, y2 - y1, (x1 + x2) / 2, (y1 + y2) / 2
        for k, (tx, ty, tw, th) in enumerate(loc[p]):
            x, y = variances[0] * tx * width + cx, variances[1] * ty * height + cy
            w, h = np.exp(variances[2] * tw) * width, np.exp(variances[3] * th) * height
            out[p, k] = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    return out


def softmax(conf):
    """(P, labels) logits to float32 scores."""
    raised = np.exp(conf - conf.max(1, keepdims=True), dtype=np.float32)
    return raised / raised.sum(1, keepdims=True)


def _area(boxes):
    return np.maximum(0, boxes[..., 2] - boxes[..., 0]) * np.maximum(0, boxes[..., 3] - boxes[..., 1])


def _mean_overlap(tubelet, others):
    low, high = np.maximum(tubelet[:, :2], others[..., :2]), np.minimum(tubelet[:, 2:], others[..., 2:])
    sides = np.maximum(0, high - low)
    shared = sides[..., 0] * sides[..., 1]
    union = _area(tubelet) + _area(others) - shared
    ious = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
    total = np.zeros(len(others), np.float32)
    for k in range(ious.shape[1]):
        total += ious[:, k]
    return total / np.float32(ious.shape[1])


def suppress(boxes, scores, threshold=0.01, overlap=0.45, top=400):
    """Rows kept of one class, best first."""
    rows = np.flatnonzero(scores > np.float32(threshold))
    rows = rows[np.argsort(-scores[rows], kind="stable")][:top]
    kept: list[int] = []
    for row in rows:
        if not kept or (_mean_overlap(boxes[row], boxes[kept]) <= np.float32(overlap)).all():
            kept.append(row)
    return np.array(kept, np.int64)


def detection_output(boxes, scores, keep=200):
    """Priors, labels (1..) and scores of a clip's detections in the layer's output order."""
    found = [(label, row) for label in range(1, scores.shape[1]) for row in suppress(boxes, scores[:, label])]
    if len(found) > keep:
        found = sorted(found, key=lambda one: -scores[one[1], one[0]])[:keep]
        found.sort(key=lambda one: one[0])
    rows = np.array([row for _, row in found], np.int64)
    labels = np.array([label for label, _ in found], np.int64)
    return rows, labels, scores[rows, labels]


def pixels(boxes, width, height):
    """Boxes scaled to the frame and clipped to it."""
    size = np.array([width, height, width, height], np.float32)
    return np.maximum(0, np.minimum(size, boxes * size))


def suppress_tubelets(boxes, scores, overlap, top=None):
    """`nms_tubelets`: kept rows of pixel tubelets (N, K, 4), best first."""
    top = len(boxes) if top is None else top
    x1, y1, x2, y2 = (boxes[..., c].T for c in range(4))
    area = (x2 - x1 + 1) * (y2 - y1 + 1)
    order = np.argsort(scores, kind="stable")
    kept = []
    while order.size and len(kept) < top:
        i, rest = order[-1], order[:-1]
        kept.append(i)
        total = np.zeros(len(rest), np.float32)
        for k in range(boxes.shape[1]):
            w = np.maximum(0, np.minimum(x2[k, i], x2[k, rest]) - np.maximum(x1[k, i], x1[k, rest]) + 1)
            h = np.maximum(0, np.minimum(y2[k, i], y2[k, rest]) - np.maximum(y1[k, i], y1[k, rest]) + 1)
            total += w * h / (area[k, rest] + area[k, i] - w * h)
        order = rest[total <= np.float32(overlap * boxes.shape[1])]
    return np.array(kept, np.int64)
