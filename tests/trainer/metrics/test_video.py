from __future__ import annotations

import numpy as np
import pytest

from tests.oracles import video_metrics as plain
from tests.trainer.detection.tubelet_cases import random_tubelets
from tests.trainer.metrics.test_frame import CLASSES
from trainer.detection.link import link
from trainer.metrics.truth import Truth
from trainer.metrics.video import TubeDetections, overlap_tubes, video_ap


def _case(seed: int, videos: int = 5, frames: int = 40):
    tubes = [link(random_tubelets(seed * 100 + i, frames=frames)) for i in range(videos)]
    found = TubeDetections.of(tubes)
    random = np.random.default_rng(seed)
    truth = []
    for t in sorted(random.choice(len(found.label), 12, replace=False)):
        boxes = found.boxes[found.ptr[t] : found.ptr[t + 1]]
        shifted = (boxes + random.uniform(-15, 15, 4))[: int(random.integers(8, len(boxes) + 1))].astype(np.float32)
        truth.append((int(found.video[t]), int(found.label[t]), int(found.first[t]), shifted))
    return found, truth, Truth.of([frames] * videos, truth)


@pytest.mark.parametrize("seed", range(4))
def test_right_tubes_are_the_plain_ones(seed):
    found, tubes, truth = _case(seed)
    detections = [
        (int(found.video[t]), int(found.label[t]), found.score[t], int(found.first[t]), found.boxes[found.ptr[t] : found.ptr[t + 1]])
        for t in range(len(found.label))
    ]  # fmt: skip
    for label, of_class in enumerate(overlap_tubes(found, truth, CLASSES)):
        for threshold in (0.1, 0.2, 0.5, 0.75):
            right, positives = plain.video_right(detections, tubes, label, threshold)
            np.testing.assert_array_equal(of_class.right(threshold, "act"), right)
            assert of_class.positives == positives


def test_truth_as_its_own_detection_scores_one_and_nothing_scores_zero():
    found, _, truth = _case(1)
    perfect = TubeDetections(
        truth.video, truth.label, np.ones(len(truth.label), np.float32), truth.first, truth.ptr, truth.boxes
    )
    for rule in ("act", "voc", "coco"):
        ap = video_ap(overlap_tubes(perfect, truth, CLASSES), (0.95,), rule)
        assert np.nanmin(ap) == pytest.approx(1)
        none = video_ap(overlap_tubes(TubeDetections.of([]), truth, CLASSES), (0.5,), rule)
        assert np.nanmax(none) == 0
    without = video_ap(overlap_tubes(found, Truth.of([40] * 5, []), CLASSES), (0.5,))
    assert np.isnan(without).all()
