"""Colour distortion: the draws, and one matrix for a clip's frames."""

from __future__ import annotations

import numpy as np
import torch

from tests.oracles.resample import resample_oracle
from trainer.data.photometric import BRIGHTNESS, CONTRAST, colour_matrix, distort
from trainer.data.resample import cover, resample

MEAN = torch.tensor([123.0, 117.0, 104.0]).view(3, 1, 1)


def test_draws_are_a_function_of_seed_and_position() -> None:
    assert np.array_equal(colour_matrix(1, 10), colour_matrix(1, 10))
    assert not np.array_equal(colour_matrix(1, 10), colour_matrix(2, 10))
    matrices = np.stack([colour_matrix(0, position) for position in range(400)])
    assert len({matrix.tobytes() for matrix in matrices}) > 350


def test_each_of_the_four_is_drawn_half_the_time_and_within_its_range() -> None:
    matrices = np.stack([colour_matrix(0, position) for position in range(1000)])
    contrast = matrices[:, :, :3] @ np.ones(3, np.float32)  # grey stays grey
    np.testing.assert_allclose(contrast, contrast[:, :1].repeat(3, 1), atol=1e-5)
    brightness = matrices[:, :, 3] / contrast  # it is added first: ACT's contrast * (level + brightness)
    np.testing.assert_allclose(brightness, brightness[:, :1].repeat(3, 1), atol=1e-3)
    assert BRIGHTNESS - 1 < np.abs(brightness).max() <= BRIGHTNESS + 1e-3
    assert 0.45 < (brightness[:, 0] != 0).mean() < 0.55
    assert contrast.min() >= CONTRAST[0] - 1e-5
    assert contrast.max() <= CONTRAST[1] + 1e-5
    untouched = (np.abs(matrices - np.eye(3, 4)).max((1, 2)) < 1e-6).mean()
    assert 0.03 < untouched < 0.1  # one in sixteen


def test_all_frames_of_a_clip_get_the_same_and_stay_in_range() -> None:
    frame = torch.randint(0, 256, (3, 8, 8)).float() - MEAN
    clips = frame.expand(2, 4, 3, 8, 8)
    matrices = torch.from_numpy(np.stack([colour_matrix(0, 3), colour_matrix(0, 8)]))
    distorted = distort(clips, matrices, torch.ones(2, 2, 8), MEAN)
    assert torch.equal(distorted, distorted[:, :1].expand_as(distorted))
    assert not torch.equal(distorted[0], distorted[1])
    levels = distorted + MEAN
    assert levels.min() >= -1e-3
    assert levels.max() <= 255.001


def test_the_identity_changes_nothing() -> None:
    clips = torch.randint(0, 256, (1, 2, 3, 8, 8)).float() - MEAN
    torch.testing.assert_close(distort(clips, torch.eye(3, 4)[None], torch.ones(1, 2, 8), MEAN), clips)


def test_the_frame_is_distorted_and_then_laid_on_the_mean() -> None:
    """As ACT does it; here both happen the other way round."""
    random = np.random.default_rng(0)
    rectangles = [(-20, -9, 70, 60), (5, -9, 40, 30), (-10, 3, 50, 33), (0, 0, 40, 30), (50, 0, 90, 30), (4, 3, 20, 20)]
    for position, rectangle in enumerate(rectangles * 2):
        mirrored, corners = position >= len(rectangles), np.array(rectangle, np.int16)
        frame = random.integers(90, 140, (30, 40, 3), np.uint8)  # so that nothing is clipped
        matrix = colour_matrix(0, position)
        colours = frame @ matrix[:, :3].T + matrix[:, 3]
        assert colours.min() > 0
        assert colours.max() < 255
        wanted = resample_oracle(colours, rectangle, mirrored, 24).transpose(2, 0, 1) - MEAN.numpy()
        views = torch.from_numpy(resample(frame[None], corners, mirrored, 24)).movedim(-1, -3).float()[None] - MEAN
        covers = torch.from_numpy(cover(corners, mirrored, (30, 40), 24).copy())[None]
        got = distort(views, torch.from_numpy(matrix)[None], covers, MEAN)[0, 0].numpy()
        assert np.abs(got - wanted).max() < 3  # the views were rounded, by a level at most, before they were distorted
        past = covers[0, 0, :, None] * covers[0, 1] == 0
        assert np.abs(got[:, past]).max(initial=0) < 1e-3
