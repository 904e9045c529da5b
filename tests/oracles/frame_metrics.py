"""Plain port of ACT's frame detections, frame-AP and error analysis, MABO and classification (ACT.py)."""

from __future__ import annotations

import numpy as np

from tests.oracles.linking import iou


def suppress_boxes(boxes, scores, overlap=0.3):
    """`nms2d`: kept rows, best first."""
    x1, y1, x2, y2 = boxes.T
    areas = (x2 - x1 + 1) * (y2 - y1 + 1)
    order = np.argsort(scores, kind="stable")
    kept = []
    while order.size:
        i, rest = order[-1], order[:-1]
        kept.append(i)
        w = np.maximum(0, np.minimum(x2[i], x2[rest]) - np.maximum(x1[i], x1[rest]) + 1)
        h = np.maximum(0, np.minimum(y2[i], y2[rest]) - np.maximum(y1[i], y1[rest]) + 1)
        order = rest[w * h / (areas[i] + areas[rest] - w * h) <= np.float32(overlap)]
    return np.array(kept, np.int64)


def frame_detections(frames, starts, classes, overlap=0.3):
    """`starts`: per start (labels, scores, boxes (n, K, 4)). Returns rows (frame, label, score, x1, y1, x2, y2) of one
    video.
    """
    K = next((boxes.shape[1] for _, _, boxes in starts), 1)
    rows = []
    for frame in range(frames):
        covering = [(starts[s], frame - s) for s in range(max(0, frame - K + 1), min(frame, len(starts) - 1) + 1)]
        if not covering:
            continue
        labels = np.concatenate([labels for (labels, _, _), _ in covering])
        scores = np.concatenate([scores for (_, scores, _), _ in covering])
        boxes = np.concatenate([boxes[:, k] for (_, _, boxes), k in covering])
        for label in range(classes):
            mine = np.flatnonzero(labels == label)
            for i in mine[suppress_boxes(boxes[mine], scores[mine], overlap)]:
                rows.append((frame, label, scores[i], *boxes[i]))
    return np.array(rows, np.float32).reshape(-1, 7)


def class_frames(truth, label, equal=True):
    """(video, frame) -> boxes of that class (or of all others); `truth`: (video, label, first, boxes) of each tube."""
    found: dict[tuple[int, int], list] = {}
    for video, its_label, first, boxes in truth:
        if (its_label == label) == equal:
            for i, box in enumerate(boxes):
                found.setdefault((video, first + i), []).append(box.astype(np.float64))
    return {place: np.array(boxes) for place, boxes in found.items()}


def verdicts(detections, truth, label, threshold):
    """Kinds (0 right, 1 loc, 2 cls, 3 time, 4 other) of the class's detections, best first, and the number of its
    ground truths.

    `detections`: rows (video, frame, label, score, x1, y1, x2, y2).
    """
    mine = detections[detections[:, 2] == label]
    own, other = class_frames(truth, label), class_frames(truth, label, equal=False)
    shown = {video for video, its_label, _, _ in truth if its_label == label}
    free = dict(own)
    kinds = []
    for row in mine[np.argsort(-mine[:, 3], kind="stable")]:
        place, box = (int(row[0]), int(row[1])), row[4:8].astype(np.float64)
        if place in own:
            kind = 1
            if len(free[place]):
                overlaps = iou(free[place], box)
                if overlaps.max() >= threshold:
                    free[place] = np.delete(free[place], np.argmax(overlaps), 0)
                    kind = 0
        elif place in other:
            kind = 2 if iou(other[place], box).max() >= threshold else 4
        else:
            kind = 3 if place[0] in shown else 4
        kinds.append(kind)
    return np.array(kinds, np.int64), sum(len(boxes) for boxes in own.values())


def curve(kinds, positives):
    """Rows (precision, recall, loc, cls, time, other) after each detection, float32."""
    rows = [[1.0, 0, 0, 0, 0, 0]]
    counts = np.zeros(5, np.int64)
    for i, kind in enumerate(kinds, start=1):
        counts[kind] += 1
        rows.append([counts[0] / i, counts[0] / positives, *(counts[1:] / i)])
    return np.array(rows, np.float32)


def area_under(heights, recall):
    """`pr_to_ap`."""
    return float(np.sum((recall[1:] - recall[:-1]) * (heights[1:] + heights[:-1]) * np.float32(0.5)))
