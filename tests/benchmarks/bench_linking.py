"""Tubes of one video with 300 tubelets a start, against the plain port of BuildTubes."""

from __future__ import annotations

from tests.benchmarks.harness import Row, compare
from tests.oracles.linking import build_tubes
from tests.trainer.detection.tubelet_cases import random_tubelets, starts_of
from trainer.detection.link import link

STARTS = 40


def bench() -> list[Row]:
    """24 classes, 300 tubelets a start, K = 6."""
    tubelets = random_tubelets(0, frames=STARTS + 5, classes=24, actors=6, a_start=300)
    starts = starts_of(tubelets)
    return [
        compare(
            f"linking, {STARTS} starts of 300 tubelets, 24 classes",
            lambda: link(tubelets),
            lambda: build_tubes(starts, 24),
            peer_name="plain BuildTubes",
            samples=3,
            subject_repeat=5,
            wanted=50,
        )
    ]
