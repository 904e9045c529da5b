"""Random tubelets that look like a detector's: a few moving actors, jittered around, scores to match."""

from __future__ import annotations

import numpy as np

from trainer.detection.tubelets import VideoTubelets


def random_tubelets(
    seed: int, *, frames: int = 40, K: int = 6, classes: int = 3, actors: int = 3, a_start: int = 30
) -> VideoTubelets:
    """A video of 320 x 240 pixels with `a_start` any-class tubelets a start, and about as many class tubelets."""
    random = np.random.default_rng(seed)
    starts = max(0, frames - K + 1)
    origin, step = random.uniform(20, 160, (actors, 2)), random.uniform(-2, 2, (actors, 2))
    size, label = random.uniform(20, 80, (actors, 2)), random.integers(0, classes, actors)
    boxes, scores, class_rows = [], [], []
    for start in range(starts):
        who = random.integers(0, actors, a_start)
        corner = origin[who, None] + step[who, None] * (start + np.arange(K))[None, :, None]
        corner = corner + random.normal(0, 6, (a_start, K, 2))
        sides = size[who, None] * random.uniform(0.7, 1.3, (a_start, 1, 2))
        both = np.concatenate((corner, corner + sides), -1)
        boxes.append(np.clip(both, 0, [320, 240, 320, 240]))
        logits = random.normal(0, 1, (a_start, classes + 1))
        logits[np.arange(a_start), 1 + label[who]] += random.uniform(0, 3, a_start)
        raised = np.exp(logits)
        scores.append(raised / raised.sum(1, keepdims=True))
        class_rows.append(
            np.stack([random.integers(0, a_start, a_start), np.sort(random.integers(0, classes, a_start))])
        )
    any_boxes = np.concatenate(boxes or [np.empty((0, K, 4))]).astype(np.float32)
    any_scores = np.concatenate(scores or [np.empty((0, classes + 1))]).astype(np.float32)
    rows = np.concatenate([one[0] + i * a_start for i, one in enumerate(class_rows)] or [np.empty(0, int)])
    labels = np.concatenate([one[1] for one in class_rows] or [np.empty(0, int)])
    bounds = np.arange(starts + 1, dtype=np.int64) * a_start
    return VideoTubelets(
        frames,
        bounds,
        labels.astype(np.int16),
        any_scores[rows, 1 + labels],
        any_boxes[rows],
        bounds,
        any_scores,
        any_boxes,
    )


def starts_of(tubelets: VideoTubelets) -> list[tuple[np.ndarray, np.ndarray]]:
    """The any-class tubelets as the linking oracle takes them."""
    ptr = tubelets.any_ptr
    return [
        (tubelets.any_boxes[ptr[s] : ptr[s + 1]], tubelets.any_scores[ptr[s] : ptr[s + 1]])
        for s in range(tubelets.starts)
    ]


def class_starts_of(tubelets: VideoTubelets) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The class tubelets as the frame oracle takes them."""
    ptr = tubelets.class_ptr
    return [
        tuple(
            values[ptr[s] : ptr[s + 1]] for values in (tubelets.class_label, tubelets.class_score, tubelets.class_boxes)
        )
        for s in range(tubelets.starts)
    ]
