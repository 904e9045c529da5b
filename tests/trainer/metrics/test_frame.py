from __future__ import annotations

import numpy as np
import pytest

from tests.oracles import frame_metrics as plain
from tests.trainer.detection.tubelet_cases import random_tubelets
from trainer.detection.tubelets import frame_detections
from trainer.metrics.frame import Detections, find_boxes, judge_frames, mean_best_overlap
from trainer.metrics.truth import Truth

CLASSES = 3


def random_tubes(seed: int, videos: int, frames: int) -> list[tuple[int, int, int, np.ndarray]]:
    random = np.random.default_rng(seed)
    tubes = []
    for video in range(videos):
        for _ in range(int(random.integers(0, 4))):
            first, length = int(random.integers(0, frames - 5)), int(random.integers(5, frames))
            corner = random.uniform(20, 160, 2) + random.uniform(-2, 2, 2) * np.arange(length)[:, None]
            boxes = np.concatenate((corner, corner + random.uniform(20, 80, 2)), 1).astype(np.float32)
            tubes.append((video, int(random.integers(0, CLASSES)), first, boxes[: frames - first]))
    return tubes


def _case(seed: int, videos: int = 6, frames: int = 30):
    found = Detections.of([frame_detections(random_tubelets(seed * 100 + i, frames=frames)) for i in range(videos)])
    tubes = random_tubes(seed, videos, frames)
    rows = np.column_stack((found.video, found.frame, found.label, found.score, found.boxes))
    return found, tubes, Truth.of([frames] * videos, tubes), rows


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [0.2, 0.5])
def test_verdicts_and_errors_are_the_plain_ones(seed, threshold):
    found, tubes, truth, rows = _case(seed)
    for label, judged in enumerate(judge_frames(found, truth, CLASSES, threshold)):
        kinds, positives = plain.verdicts(rows, tubes, label, threshold)
        np.testing.assert_array_equal(judged.verdict, kinds)
        assert judged.positives == positives
        if positives:
            curve = plain.curve(kinds, positives)
            split = judged.errors()
            assert split["AP"] == pytest.approx(plain.area_under(curve[:, 0], curve[:, 1]), abs=1e-6)
            for column, kind in enumerate(("loc", "cls", "time", "other"), start=2):
                assert split[kind] == pytest.approx(plain.area_under(curve[:, column], curve[:, 1]), abs=1e-6)
            assert sum(split.values()) == pytest.approx(1, abs=1e-5)


def test_annotated_frames_leave_out_detections_elsewhere():
    found, tubes, truth, rows = _case(1)
    shown = {(video, first + i) for video, _, first, boxes in tubes for i in range(len(boxes))}
    inside = np.array([(int(row[0]), int(row[1])) in shown for row in rows])
    by_rule = judge_frames(found, truth, CLASSES, 0.5, frames="annotated")
    by_hand = judge_frames(found.where(inside), truth, CLASSES, 0.5)
    assert [one.ap("act") for one in by_rule] == [one.ap("act") for one in by_hand]


def test_rules_differ_on_a_second_detection():
    """ACT lets a second detection take a second ground truth; VOC calls it wrong."""
    boxes = np.array([[10, 10, 50, 50]], np.float32)
    near = boxes + np.float32(8)
    truth = Truth.of([1], [(0, 0, 0, boxes), (0, 0, 0, near)])
    twice = Detections(
        np.zeros(2, np.int32),
        np.zeros(2, np.int32),
        np.zeros(2, np.int16),
        np.array([0.9, 0.8], np.float32),
        np.concatenate((boxes, boxes)),
    )
    act = judge_frames(twice, truth, 1, 0.4)[0]
    voc = judge_frames(twice, truth, 1, 0.4, rule="voc")[0]
    assert act.verdict.tolist() == [0, 0]
    assert voc.verdict.tolist() == [0, 1]
    assert act.ap("act") == pytest.approx(1)
    assert voc.ap("voc") == pytest.approx(0.5)
    assert voc.ap("coco") == pytest.approx(51 / 101)


def test_classes_without_truth_or_detections_are_defined():
    found, _, _, _ = _case(2)
    nothing = Truth.of([30] * 6, [])
    for judged in judge_frames(found, nothing, CLASSES, 0.5):
        assert np.isnan(judged.ap("act"))
        assert np.isnan(judged.ap("voc"))
        assert all(np.isnan(value) for value in judged.errors().values())
    one_tube = Truth.of([30], random_tubes(3, 1, 30)[:1] or [(0, 0, 0, np.ones((5, 4), np.float32))])
    for judged in judge_frames(Detections.of([]), one_tube, CLASSES, 0.5):
        for rule in ("act", "voc", "coco"):
            assert np.isnan(judged.ap(rule)) if judged.positives == 0 else judged.ap(rule) == 0
        if judged.positives:
            assert judged.errors()["missed"] == 1


def test_annotations_past_the_end_of_a_video_are_missed_boxes():
    boxes = np.tile(np.array([[10, 10, 50, 50]], np.float32), (5, 1))
    truth = Truth.of([3], [(0, 0, 0, boxes)])
    found = Detections(
        np.zeros(3, np.int32), np.arange(3, dtype=np.int32), np.zeros(3, np.int16), np.ones(3, np.float32), boxes[:3]
    )
    assert judge_frames(found, truth, 1, 0.5)[0].errors()["missed"] == pytest.approx(0.4)
    seen = find_boxes(random_tubelets(1, frames=3), truth)
    assert seen.inside.tolist() == [True, True, True, False, False]
    means = mean_best_overlap(seen, truth.label[truth.box_tube], 2)
    assert means[0] == 0
    assert np.isnan(means[1])
