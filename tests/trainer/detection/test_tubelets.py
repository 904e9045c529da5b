from __future__ import annotations

import numpy as np
import pytest

from tests.oracles import frame_metrics as plain
from tests.trainer.detection.tubelet_cases import class_starts_of, random_tubelets
from trainer.detection.tubelets import frame_detections


@pytest.mark.parametrize(("seed", "K", "frames"), [(0, 6, 40), (1, 1, 20), (2, 8, 25)])
def test_frame_detections_are_the_plain_ones(seed, K, frames):
    tubelets = random_tubelets(seed, K=K, frames=frames)
    found = frame_detections(tubelets)
    expected = plain.frame_detections(frames, class_starts_of(tubelets), tubelets.classes)
    np.testing.assert_array_equal(found.frame, expected[:, 0])
    np.testing.assert_array_equal(found.label, expected[:, 1])
    np.testing.assert_array_equal(found.score, expected[:, 2])
    np.testing.assert_array_equal(found.boxes, expected[:, 3:])


def test_a_video_shorter_than_a_clip_has_no_detection():
    assert len(frame_detections(random_tubelets(3, frames=4)).frame) == 0
