from __future__ import annotations

import pytest
import torch

from data_manifests.prior_spec import ACT300
from trainer.detection.find import blocks_of
from trainer.detection.windows import sliding_heads
from trainer.model import ActNet


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
