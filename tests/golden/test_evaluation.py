"""The original's frame detections, tubes and every figure of its evaluation, from the same tubelets."""

from __future__ import annotations

import numpy as np
import pytest

from tests.golden.eval_files import EvalFiles, read_eval_files
from trainer.detection.link import Tubes, link
from trainer.detection.tubelets import frame_detections
from trainer.metrics.frame import (
    BoxFindings,
    Detections,
    classification,
    find_boxes,
    judge_frames,
    mean_best_overlap,
)
from trainer.metrics.video import STRICT_TO_LOOSE, TubeDetections, overlap_tubes, video_ap

POINTS = 1e-4
"""Tolerance in points of 100; the original sums float32."""


@pytest.fixture(scope="module")
def files(golden) -> EvalFiles:
    return read_eval_files(golden)


@pytest.fixture(scope="module")
def detections(files) -> Detections:
    return Detections.of([frame_detections(tubelets) for tubelets in files.tubelets])


@pytest.fixture(scope="module")
def tubes(files) -> list[Tubes]:
    return [link(tubelets) for tubelets in files.tubelets]


def test_frame_detections_are_the_originals_in_its_order(files, detections):
    expected = files.frame_detections
    np.testing.assert_array_equal(detections.video, expected["video"])
    np.testing.assert_array_equal(detections.frame, expected["frame"] - 1)
    np.testing.assert_array_equal(detections.label, expected["label"])
    np.testing.assert_array_equal(detections.score, expected["score"])
    np.testing.assert_array_equal(detections.boxes * 4, expected["boxes4"])


@pytest.mark.parametrize("threshold", ["0.2", "0.5", "0.75"])
def test_frame_ap_with_ties_in_the_stable_order(files, detections, threshold):
    judged = judge_frames(detections, files.truth, files.classes, float(threshold))
    ap = 100 * np.array([verdicts.ap("act") for verdicts in judged])
    expected = files.expected["frameAP_unique_order"][threshold]
    np.testing.assert_allclose(ap, expected["per_class"], atol=POINTS)
    assert np.mean(ap) == pytest.approx(expected["mean"], abs=POINTS)


@pytest.mark.parametrize("threshold", ["0.2", "0.5", "0.75"])
def test_the_originals_own_frame_ap_lies_between_the_orders_of_its_ties(files, detections, threshold):
    """A tubelet gives one score to K frames and the original's sort is unstable: any order of ties lies between these
    two.
    """
    judged = judge_frames(detections, files.truth, files.classes, float(threshold))
    bounds = files.expected["frameAP_tie_bounds"][threshold]
    ours = 100 * np.array([verdicts.ap("act") for verdicts in judged])
    original = np.array(files.expected["frameAP_original"][threshold]["per_class"])
    for figure in (ours, original):
        assert (figure <= np.array(bounds["tp_first"]) + POINTS).all()
        assert (figure >= np.array(bounds["fp_first"]) - POINTS).all()


def test_error_split(files, detections):
    split = [verdicts.errors() for verdicts in judge_frames(detections, files.truth, files.classes, 0.5)]
    expected = files.expected["frameAP_error_fixed_0.5_unique_order"]
    for kind in split[0]:
        np.testing.assert_allclose([100 * one[kind] for one in split], expected[kind], atol=POINTS, err_msg=kind)
    np.testing.assert_allclose([sum(one.values()) for one in split], 1, atol=1e-5)


def test_best_overlaps_and_classification(files):
    found = [find_boxes(tubelets, files.truth.of_video(i)) for i, tubelets in enumerate(files.tubelets)]
    findings = BoxFindings.of(found)
    label = files.truth.label[files.truth.box_tube]
    mabo = 100 * mean_best_overlap(findings, label, files.classes)
    right = 100 * classification(findings, label, files.classes)
    np.testing.assert_allclose(mabo, files.expected["frameMABO"]["per_class"], atol=POINTS)
    np.testing.assert_allclose(right, files.expected["frameCLASSIF"]["per_class"], atol=POINTS)
    counted = np.bincount(label[findings.inside], minlength=files.classes)
    np.testing.assert_array_equal(counted, files.expected["frameMABO"]["n_gt_boxes"])


def test_every_tube_and_its_3d_nms(files, tubes):
    expected = files.tubes
    np.testing.assert_array_equal(
        np.repeat(np.arange(len(tubes)), [len(one.label) for one in tubes]), expected["video"]
    )
    joined = {
        name: np.concatenate([getattr(one, name) for one in tubes])
        for name in ("label", "score", "first", "boxes", "box_scores", "kept")
    }
    np.testing.assert_array_equal(joined["label"], expected["label"])
    np.testing.assert_array_equal(joined["first"], expected["begin"] - 1)
    np.testing.assert_array_equal(np.concatenate([np.diff(one.ptr) for one in tubes]), expected["length"])
    np.testing.assert_allclose(joined["score"], expected["score"], rtol=3e-7)
    np.testing.assert_allclose(joined["boxes"], expected["boxes_score"][:, :4], rtol=3e-7)
    np.testing.assert_allclose(joined["box_scores"], expected["boxes_score"][:, 4], rtol=3e-7)
    np.testing.assert_array_equal(joined["kept"], expected["nms3dt_keep"])


def test_video_ap_at_every_overlap(files, tubes):
    by_class = overlap_tubes(TubeDetections.of(tubes), files.truth, files.classes)
    for name, expected in files.expected["videoAP"].items():
        overlaps = STRICT_TO_LOOSE if ":" in name else (float(name),)
        ap = 100 * video_ap(by_class, overlaps).mean(0)
        np.testing.assert_allclose(ap, expected["per_class"], atol=POINTS, err_msg=name)
        assert np.mean(ap) == pytest.approx(expected["mean"], abs=POINTS)
        if "n_det" in expected:
            assert [len(one.rows) for one in by_class] == expected["n_det"]
