from __future__ import annotations

import pytest
import torch

from data_manifests.prior_spec import ACT300
from data_manifests.priors import make_priors
from trainer.detection.decode import class_scores, decode
from trainer.detection.find import blocks_of
from trainer.detection.windows import sliding_heads
from trainer.model import ActNet
from trainer.model.initial import initialise


@pytest.mark.parametrize(("K", "block"), [(3, 4), (3, 2), (1, 4)])
def test_heads_over_cached_features_equal_the_network_on_each_clip(K, block):
    torch.manual_seed(0)
    model = ActNet(ACT300, 2, K, 1 / 16).eval()
    frames = torch.randint(0, 256, (7, 300, 300, 3), dtype=torch.uint8)
    found = list(sliding_heads(model, frames.split(block), windows=2))
    loc, conf = torch.cat([one[0] for one in found]), torch.cat([one[1] for one in found])
    clips = torch.stack([frames[i : i + K] for i in range(len(frames) - K + 1)])
    with torch.no_grad():
        naive_loc, naive_conf = model(model.normalise(clips))
    torch.testing.assert_close(loc, naive_loc, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(conf, naive_conf, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dilation", ["6", "act-released"])
def test_bfloat16_scores_and_boxes_are_near_those_of_float32(dilation):
    """Scores within 0.05, boxes within 0.02 of the frame's side, of an untrained network on noise."""
    torch.manual_seed(0)
    model = ActNet(ACT300, 2, 2, 1 / 16, fc6_dilation=dilation)
    initialise(model, 0)
    model.eval()
    frames = torch.randint(0, 256, (4, 300, 300, 3), dtype=torch.uint8)
    priors = torch.from_numpy(make_priors(ACT300))
    (exact_loc, exact_conf), (loc, conf) = (
        [torch.cat(parts) for parts in zip(*sliding_heads(model, frames.split(3), amp=amp), strict=True)]
        for amp in (False, True)
    )
    assert (exact_conf.dtype, conf.dtype) == (torch.float32, torch.bfloat16)
    boxes, exact_boxes = (decode(one.float(), priors, (0.1, 0.1, 0.2, 0.2)) for one in (loc, exact_loc))
    scores, exact_scores = class_scores(conf.float()), class_scores(exact_conf)
    torch.testing.assert_close(scores, exact_scores, rtol=0, atol=0.05)
    torch.testing.assert_close(boxes, exact_boxes, rtol=0, atol=0.02)
    assert not torch.equal(scores, exact_scores)


def test_on_a_gpu_float32_is_float32(monkeypatch):
    model, seen = ActNet(ACT300, 2, 2, 1 / 16).eval(), []
    features = model.features

    def watched(images):
        seen.append(torch.backends.cudnn.allow_tf32)
        return features(images)

    monkeypatch.setattr(model, "features", watched)
    before = torch.backends.cudnn.allow_tf32
    for _ in sliding_heads(model, [torch.zeros(3, 300, 300, 3, dtype=torch.uint8)]):
        assert torch.backends.cudnn.allow_tf32 is before
    assert seen == [False]


def test_fewer_frames_than_a_clip_give_nothing():
    model = ActNet(ACT300, 2, 3, 1 / 16).eval()
    assert list(sliding_heads(model, [torch.zeros((2, 300, 300, 3), dtype=torch.uint8)])) == []


@pytest.mark.parametrize("frames", [0, 1, 16, 33])
def test_blocks_cover_the_video_once(frames):
    import numpy as np

    def read(start, stop):
        return (
            np.full((stop - start, 2, 2, 3), start, np.uint8)
            + np.arange(stop - start, dtype=np.uint8)[:, None, None, None]
        )

    seen = [int(frame[0, 0, 0]) for block in blocks_of(read, frames) for frame in block]
    assert seen == list(range(frames))
