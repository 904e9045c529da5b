from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.oracles import detection as plain
from trainer.detection.clip_output import DetectionRule, candidates, class_detections, to_pixels
from trainer.detection.decode import class_scores, decode
from trainer.detection.find import clip_tubelets

VARIANCES = (0.1, 0.1, 0.2, 0.2)


def _clip(seed: int, P: int = 700, K: int = 3, classes: int = 5):
    random = np.random.default_rng(seed)
    centre, size = random.uniform(0.1, 0.9, (P, 2)), random.uniform(0.05, 0.4, (P, 2))
    priors = np.concatenate((centre - size / 2, centre + size / 2), 1).astype(np.float32)
    loc = random.normal(0, 1, (P, K, 4)).astype(np.float32)
    conf = random.normal(0, 2, (P, classes + 1)).astype(np.float32)
    return priors, loc, conf


@pytest.mark.parametrize(("seed", "K"), [(0, 3), (1, 1), (2, 6)])
def test_a_clip_gives_what_the_plain_layer_gives(seed, K):
    priors, loc, conf = _clip(seed, K=K)
    boxes = decode(torch.from_numpy(loc), torch.from_numpy(priors), VARIANCES).numpy()
    scores = class_scores(torch.from_numpy(conf)).numpy()
    np.testing.assert_allclose(boxes, plain.decode(loc, priors, VARIANCES), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scores, plain.softmax(conf), rtol=3e-6)

    for ours, theirs in zip(class_detections(boxes, scores), plain.detection_output(boxes, scores), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    pixels = plain.pixels(boxes, 320, 240)
    np.testing.assert_array_equal(to_pixels(boxes, 320, 240), pixels)
    np.testing.assert_array_equal(
        candidates(pixels, scores), plain.suppress_tubelets(pixels, scores[:, 1:].max(1), 0.7, 300)
    )


def test_degenerate_boxes_are_kept_and_overlap_nothing():
    """caffe's CPU layer guards empty areas where its GPU one divides 0 by 0 and drops the box (QUIRKS 19)."""
    boxes = np.zeros((4, 2, 4), np.float32)
    boxes[1] = boxes[2] = [0.2, 0.2, 0.4, 0.4]
    boxes[3] = [0.4, 0.4, 0.2, 0.2]
    scores = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]], np.float32)
    rows, labels, _ = class_detections(boxes, scores)
    assert rows.tolist() == [0, 1, 3]
    assert labels.tolist() == [1, 1, 1]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_never_detections(broken):
    priors, loc, conf = _clip(3)
    boxes = decode(torch.from_numpy(loc), torch.from_numpy(priors), VARIANCES).numpy()
    scores = class_scores(torch.from_numpy(conf)).numpy()
    clean = class_detections(boxes, scores)[0]
    boxes[clean[0], 1, 2] = broken
    scores[clean[1]] = np.nan
    found = clip_tubelets(boxes, scores, 320, 240)
    assert np.isfinite(found.class_boxes).all()
    assert not np.isnan(found.any_scores).any()
    assert not {int(clean[0]), int(clean[1])} & set(class_detections(boxes, scores)[0].tolist())


def test_nothing_above_the_threshold_gives_empty_arrays():
    scores = np.zeros((50, 4), np.float32)
    scores[:, 0] = 1
    rows, labels, values = class_detections(np.zeros((50, 2, 4), np.float32), scores)
    assert len(rows) == len(labels) == len(values) == 0


def test_keep_takes_the_best_of_all_classes():
    priors, loc, conf = _clip(4)
    boxes = decode(torch.from_numpy(loc), torch.from_numpy(priors), VARIANCES).numpy()
    scores = class_scores(torch.from_numpy(conf)).numpy()
    everything = class_detections(boxes, scores, DetectionRule(keep=10**6))[2]
    best = class_detections(boxes, scores, DetectionRule(keep=7))[2]
    np.testing.assert_array_equal(np.sort(best), np.sort(everything)[-7:])
