"""Detections of one clip from 8396 priors and 24 classes, against the plain port of the original's layer."""

from __future__ import annotations

import numpy as np
import torch

from tests.benchmarks.harness import Row, compare
from tests.oracles import detection as plain
from trainer.detection.clip_output import class_detections
from trainer.detection.decode import class_scores, decode
from trainer.detection.find import clip_tubelets


def trained_clip(seed: int = 0, P: int = 8396, K: int = 6, classes: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and scores as a trained detector gives them: background nearly everywhere, a few clusters of high scores."""
    random = np.random.default_rng(seed)
    centre, size = random.uniform(0, 1, (P, 2)), np.exp(random.uniform(-3, -0.7, (P, 2)))
    priors = torch.from_numpy(np.concatenate((centre - size / 2, centre + size / 2), 1).astype(np.float32))
    loc = torch.from_numpy(random.normal(0, 0.5, (P, K, 4)).astype(np.float32))
    conf = random.normal(0, 1.2, (P, classes + 1)).astype(np.float32)
    conf[:, 0] += 7
    for actor in random.uniform(0.2, 0.8, (3, 2)):
        near = np.flatnonzero(np.abs(centre - actor).max(1) < 0.08)
        conf[near, int(random.integers(1, classes + 1))] += 8
    return decode(loc, priors, (0.1, 0.1, 0.2, 0.2)).numpy(), class_scores(torch.from_numpy(conf)).numpy()


def bench() -> list[Row]:
    """Class NMS and best 200; then with the any-class NMS that tubes are built from."""
    boxes, scores = trained_clip()
    weak_boxes, _ = trained_clip(1)
    weak = np.random.default_rng(1).dirichlet(np.ones(25), len(boxes)).astype(np.float32)

    def plain_clip() -> None:
        plain.detection_output(boxes, scores)
        pixels = plain.pixels(boxes, 320, 240)
        plain.suppress_tubelets(pixels, scores[:, 1:].max(1), 0.7, 300)

    return [
        compare(
            "detection output of a clip, as a trained network gives it",
            lambda: class_detections(boxes, scores),
            lambda: plain.detection_output(boxes, scores),
            peer_name="plain layer",
            samples=5,
            subject_repeat=20,
            wanted=10,
        ),
        compare(
            "detection output of a clip, every class above the threshold everywhere",
            lambda: class_detections(weak_boxes, weak),
            lambda: plain.detection_output(weak_boxes, weak),
            peer_name="plain layer",
            samples=3,
            subject_repeat=3,
            wanted=10,
        ),
        compare(
            "a clip's class tubelets and candidates, in pixels",
            lambda: clip_tubelets(boxes, scores, 320, 240),
            plain_clip,
            peer_name="plain layer and nms_tubelets",
            samples=5,
            subject_repeat=20,
            wanted=10,
        ),
    ]
