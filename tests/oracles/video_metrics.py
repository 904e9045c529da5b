"""Plain port of ACT's video-AP (ACT.py)."""

from __future__ import annotations

import numpy as np

from tests.oracles.linking import tube_iou


def video_right(detections, truth, label, threshold):
    """Which of the class's tubes, best first, are right, and the number of its ground truths.

    `detections`: (video, label, score, first, boxes); `truth`: (video, label, first, boxes).
    """
    mine = [one for one in detections if one[1] == label]
    free: dict[int, list] = {}
    for video, its_label, first, boxes in truth:
        if its_label == label:
            free.setdefault(video, []).append((first + np.arange(len(boxes)), boxes))
    positives = sum(len(tubes) for tubes in free.values())
    right = []
    for i in np.argsort([-one[2] for one in mine], kind="stable"):
        video, _, _, first, boxes = mine[i]
        good = False
        if free.get(video):
            tube = (first + np.arange(len(boxes)), boxes)
            overlaps = [tube_iou(other, tube) for other in free[video]]
            if max(overlaps) >= threshold:
                free[video].pop(int(np.argmax(overlaps)))
                good = True
        right.append(good)
    return np.array(right, bool), positives
