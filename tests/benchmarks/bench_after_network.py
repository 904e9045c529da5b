"""All that a video needs behind the network, against the network's own time: width 1, 24 classes, K = 6."""

from __future__ import annotations

from unittest.mock import patch

import torch

from data_manifests.prior_spec import ACT300
from data_manifests.priors import make_priors
from tests.benchmarks.harness import Row, compare
from trainer.detection.find import Detector
from trainer.detection.link import link
from trainer.detection.tubelets import frame_detections
from trainer.detection.windows import sliding_heads
from trainer.model import ActNet
from trainer.model.initial import initialise

CLASSES, K, FRAMES = 24, 6, 37


def bench() -> list[Row]:
    """Random weights, so every prior is a candidate of several classes: a trained network leaves less to do."""
    model = ActNet(ACT300, CLASSES, K, 1.0).eval()
    initialise(model, 0)
    detector = Detector(model, torch.from_numpy(make_priors(ACT300)), (0.1, 0.1, 0.2, 0.2), torch.device("cpu"))
    random = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (FRAMES, 300, 300, 3), dtype=torch.uint8, generator=random)
    outputs = list(sliding_heads(model, frames.split(8)))

    def after() -> None:
        with patch("trainer.detection.find.sliding_heads", lambda *_: iter(outputs)):
            tubelets = detector.video([], FRAMES, 320, 240, "video")
        link(tubelets)
        frame_detections(tubelets)

    return [
        compare(
            f"decode, NMS, linking and frame detections of {FRAMES} frames",
            after,
            lambda: list(sliding_heads(model, frames.split(8))),
            peer_name="the network, features once a frame",
            samples=3,
            wanted=10,
        )
    ]
