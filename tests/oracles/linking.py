"""Plain port of ACT's BuildTubes (ACT.py) on one video, and of the 3-D NMS (ACT_utils.py)."""

from __future__ import annotations

import numpy as np

from tests.oracles.detection import suppress_tubelets


def iou(boxes, box):
    """IoUs (inclusive pixels) of boxes (n, 4) with one box."""
    w = np.maximum(0, np.minimum(boxes[:, 2], box[2]) + 1 - np.maximum(boxes[:, 0], box[0]))
    h = np.maximum(0, np.minimum(boxes[:, 3], box[3]) + 1 - np.maximum(boxes[:, 1], box[1]))
    area = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    return w * h / (area + (box[2] - box[0] + 1) * (box[3] - box[1] + 1) - w * h)


def _score(tube):
    return np.mean(np.array([scored[1] for _, scored in tube], np.float32))


def build_tubes(starts, classes):
    """`starts`: per start frame (boxes (n, K, 4), scores (n, labels)). Returns per class a list of (frames, boxes,
    scores, score).
    """
    K = next((boxes.shape[1] for boxes, _ in starts), 1)
    result = []
    for label in range(classes):
        finished, current = [], []
        for frame, (all_boxes, all_scores) in enumerate(starts):
            score = all_scores[:, 1 + label]
            kept = suppress_tubelets(all_boxes, score, 0.3, 10)
            offered = [(all_boxes[i], score[i]) for i in kept]
            current = [current[i] for i in np.argsort([-_score(tube) for tube in current], kind="stable")]
            ended = []
            for place, tube in enumerate(current):
                last, (tail, _) = tube[-1]
                offset = frame - last
                if offered:
                    heads = np.stack([boxes for boxes, _ in offered])
                    if offset < K:
                        common = K - offset
                        overlaps = sum(iou(heads[:, k], tail[k + offset]) for k in range(common)) / np.float32(common)
                    else:
                        overlaps = iou(heads[:, 0], tail[-1])
                    fits = np.flatnonzero(overlaps >= np.float32(0.2))
                else:
                    fits = np.empty(0, np.int64)
                if fits.size:
                    best = fits[np.argmax([offered[i][1] for i in fits])]
                    tube.append((frame, offered.pop(best)))
                elif offset >= 5:
                    ended.append(place)
            for place in reversed(ended):
                finished.append(current.pop(place))
            current += [[(frame, one)] for one in offered]
        tubes = []
        for tube in finished + current:
            score, begin = _score(tube), tube[0][0]
            length = tube[-1][0] + K - begin
            if score < 0.01 or length < 15:
                continue
            total, covered = np.zeros((length, 5), np.float32), np.zeros((length, 1), np.int32)
            for start, (boxes, value) in tube:
                for k in range(K):
                    total[start - begin + k, :4] += boxes[k]
                    total[start - begin + k, 4] += value
                    covered[start - begin + k] += 1
            total = (total / covered).astype(np.float32)
            tubes.append((begin + np.arange(length), total[:, :4], total[:, 4], score))
        result.append(tubes)
    return result


def tube_iou(a, b):
    """`iou3dt` of two tubes (frames, boxes, ...)."""
    first, last = max(a[0][0], b[0][0]), min(a[0][-1], b[0][-1])
    if last < first:
        return np.float32(0)
    mine, theirs = a[1][first - a[0][0] : last + 1 - a[0][0]], b[1][first - b[0][0] : last + 1 - b[0][0]]
    overlaps = np.array([iou(one[None], other)[0] for one, other in zip(mine, theirs, strict=True)], np.float32)
    union = max(a[0][-1], b[0][-1]) - min(a[0][0], b[0][0]) + 1
    return np.mean(overlaps) * np.float32(np.float32(last - first + 1) / np.float32(union))


def suppress_tubes(tubes, overlap=0.3):
    """`nms3dt`: kept indices, best first."""
    order = np.argsort([tube[3] for tube in tubes], kind="stable")
    kept = []
    while order.size:
        i, rest = order[-1], order[:-1]
        kept.append(i)
        overlaps = np.array([tube_iou(tubes[j], tubes[i]) for j in rest], np.float32)
        order = rest[overlaps <= np.float32(overlap)]
    return kept
