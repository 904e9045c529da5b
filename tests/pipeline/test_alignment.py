"""Boxes against motion: corrupted annotations of made-up videos are told, right ones are not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.alignment import SHIFT, Evidence, VideoMotion, judge, measure_alignment
from pipeline.stored import built_shards

WIDTH, HEIGHT, FRAMES, SIDE = 96, 72, 60, 20


def _video(seed: int) -> tuple[VideoMotion, np.ndarray]:
    """A textured patch that swings over a still, textured ground, and its boxes."""
    draw = np.random.default_rng(seed)

    def texture(width: int, height: int) -> np.ndarray:
        return cv2.GaussianBlur(draw.uniform(0, 255, (height, width)).astype(np.float32), (0, 0), 1.2).astype(np.uint8)

    ground, patch = texture(WIDTH, HEIGHT), texture(SIDE, SIDE)
    time = np.arange(FRAMES)
    x = 16 + 10 * np.sin(time / draw.uniform(3, 5) + draw.uniform(0, 6)) + draw.uniform(-2, 2)
    y = 38 + 8 * np.sin(time / draw.uniform(3, 5) + draw.uniform(0, 6))
    frames = []
    for left, top in np.rint(np.stack([x, y], 1)).astype(int):
        frame = ground.copy()
        frame[top : top + SIDE, left : left + SIDE] = patch
        frames.append(frame)
    return VideoMotion(frames), np.stack([x, y, x + SIDE, y + SIDE], 1)


@pytest.fixture(scope="module")
def videos() -> list[tuple[VideoMotion, np.ndarray]]:
    return [_video(seed) for seed in range(10)]


def _later(frames: int):
    return lambda boxes: (max(0, frames), boxes[max(0, -frames) :])


@pytest.mark.parametrize(
    ("corrupt", "warning"),
    [
        (_later(0), None),
        (_later(1), "1.0 frames earlier"),
        (_later(-1), "1.0 frames later"),
        (_later(5), "5.0 frames earlier"),
        (lambda boxes: (0, boxes * 340 / 320), "scaled by 320/340"),
        (lambda boxes: (0, boxes[:, [1, 0, 3, 2]]), "with x and y swapped"),
        (lambda boxes: (0, np.array([WIDTH, 0, WIDTH, 0]) + boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1]), "mirrored"),
    ],
)
def test_what_was_done_to_boxes_is_told(videos, corrupt, warning: str | None) -> None:
    verdict = judge([motion.evidence([corrupt(boxes)]) for motion, boxes in videos])
    if warning is None:
        assert verdict.warnings == []
        assert verdict.place > 0.3
        assert abs(verdict.shift[0]) < 0.3
    else:
        assert len(verdict.warnings) == 1
        assert warning in verdict.warnings[0]


def test_what_cannot_tell_says_so(videos, small_store: Path) -> None:
    motion, boxes = videos[0]
    assert motion.evidence([(FRAMES, boxes)]) is None
    assert motion.evidence([(0, boxes[:SHIFT])]).time is None
    few = judge([motion.evidence([(0, boxes)])] * 7)
    assert few.warnings == []
    assert "too few videos" in few.summary
    short = judge([motion.evidence([(0, boxes[:SHIFT])])] * 8)
    assert short.shift is None
    assert "no shift can be told" in short.summary
    even = judge([Evidence(np.zeros(5), np.eye(2 * SHIFT + 1)[2] * 0.09)] * 8)
    assert even.shift is None
    assert judge([Evidence(np.zeros(5), np.eye(2 * SHIFT + 1)[2] * 0.11)] * 8).warnings
    assert measure_alignment([]).videos == 0
    assert measure_alignment(list(built_shards(small_store))).videos == 8


def test_copies_of_one_video_prove_no_more_than_it_does() -> None:
    place = np.array([0.30, 0.305, 0.1, 0.1, 0.1])
    hardly = judge([Evidence(place, None)] * 8)
    assert hardly.warnings == []
    assert hardly.gains["mirrored"] == pytest.approx(0.5 * 8**0.5)
    assert judge([Evidence(place + np.eye(5)[1] * 0.01, None)] * 8).warnings


def test_a_still_video_fits_nothing() -> None:
    still = VideoMotion([np.full((HEIGHT, WIDTH), 90, np.uint8)] * 30)
    evidence = still.evidence([(0, np.tile([10.0, 10, 30, 30], (30, 1)))])
    assert np.allclose(evidence.place, 0)
    assert np.allclose(evidence.time, 0)
