from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.oracles import linking as plain
from tests.trainer.detection.tubelet_cases import random_tubelets, starts_of
from trainer.detection.link import LinkRule, link
from trainer.detection.overlap import mean_float32
from trainer.detection.tubelets import VideoTubelets


def _same(tubes, expected):
    flat = [(label, *tube) for label, of_class in enumerate(expected) for tube in of_class]
    assert tubes.label.tolist() == [label for label, *_ in flat]
    for t, (_, frames, boxes, scores, score) in enumerate(flat):
        mine = slice(tubes.ptr[t], tubes.ptr[t + 1])
        assert tubes.first[t] == frames[0]
        np.testing.assert_array_equal(tubes.boxes[mine], boxes)
        np.testing.assert_array_equal(tubes.box_scores[mine], scores)
        assert tubes.score[t] == score
    kept = [
        place
        for label, of_class in enumerate(expected)
        for place in (sum(map(len, expected[:label])) + i for i in plain.suppress_tubes(of_class))
    ]
    assert np.flatnonzero(tubes.kept).tolist() == sorted(kept)


@pytest.mark.parametrize(("seed", "K", "frames"), [(0, 6, 60), (1, 6, 200), (2, 8, 30), (3, 6, 15)])
def test_tubes_are_the_plain_linkings(seed, K, frames):
    tubelets = random_tubelets(seed, K=K, frames=frames)
    _same(link(tubelets), plain.build_tubes(starts_of(tubelets), tubelets.classes))


def test_starts_without_tubelets_are_misses():
    tubelets = random_tubelets(5, frames=80)
    counts = np.diff(tubelets.any_ptr)
    keep = np.ones(tubelets.starts, bool)
    keep[20:24], keep[40:47] = False, False
    rows = np.repeat(keep, counts)
    thinned = replace(
        tubelets,
        any_ptr=np.concatenate(([0], np.cumsum(np.where(keep, counts, 0)))).astype(np.int64),
        any_boxes=tubelets.any_boxes[rows],
        any_scores=tubelets.any_scores[rows],
    )
    _same(link(thinned), plain.build_tubes(starts_of(thinned), thinned.classes))


def test_a_gap_that_no_tubelet_covers_is_interpolated():
    """With K = 1 a tube may go over up to `misses` - 1 frames without tubelet; the original's K of 6 leaves none."""
    frames, K = 30, 1
    there = [f for f in range(frames) if f not in (10, 11, 12)]
    boxes = np.array([[[f, f, f + 50, f + 50]] for f in there], np.float32)
    ptr = np.searchsorted(there, np.arange(frames + 1)).astype(np.int64)
    scores = np.tile(np.array([0.2, 0.8], np.float32), (len(there), 1))
    empty = np.zeros(frames + 1, np.int64)
    tubelets = VideoTubelets(
        frames,
        empty,
        np.empty(0, np.int16),
        np.empty(0, np.float32),
        np.empty((0, K, 4), np.float32),
        ptr,
        scores,
        boxes,
    )
    tubes = link(tubelets)
    assert len(tubes.label) == 1
    np.testing.assert_allclose(tubes.boxes[:, 0], np.arange(frames), rtol=1e-6)
    np.testing.assert_allclose(tubes.box_scores, 0.8, rtol=1e-6)


@pytest.mark.parametrize("frames", [0, 3, 5])
def test_a_video_shorter_than_a_clip_has_no_tube(frames):
    tubes = link(random_tubelets(6, frames=frames))
    assert len(tubes.label) == len(tubes.boxes) == 0
    assert tubes.ptr.tolist() == [0]


def test_rules_drop_short_and_weak_tubes():
    tubelets = random_tubelets(7, frames=60)
    everything = link(tubelets, LinkRule(least_frames=1, least_score=0.0))
    some = link(tubelets, LinkRule(least_frames=30, least_score=0.2))
    lengths = np.diff(everything.ptr)
    assert len(some.label) == int(((lengths >= 30) & (everything.score >= 0.2)).sum())


@pytest.mark.parametrize("count", [1, 5, 8, 9, 127, 128, 129, 136, 1000, 5001])
def test_means_round_as_numpys(count):
    values = np.random.default_rng(count).uniform(0, 1, count).astype(np.float32)
    assert mean_float32(values, count) == np.mean(values)
