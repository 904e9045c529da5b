"""The pass over a whole video against its parts, one view at a time, and what it refuses."""

from typing import Any

import numpy as np
import pytest

from data_manifests.errors import InputError
from data_manifests.layout import IGNORED
from data_manifests.prior_spec import ACT300
from pipeline.clips import valid_clips
from pipeline.matching import MatchRule, match_clip, prior_grid
from pipeline.targets import ViewTargets, video_targets
from pipeline.views import project

GRID = prior_grid(ACT300)
WIDTH, HEIGHT = 320, 240


def _video(seed: int, T: int, frames: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    first = random.integers(0, 3, T) * 12
    boxes = []
    for start in first:
        low = random.uniform(0, 120, 2) + np.cumsum(random.normal(0, 1, (frames - start, 2)), 0)
        box = np.concatenate([low, low + random.uniform(15, 110, 2)], -1)
        boxes.append(np.clip(box, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT]).astype(np.float32))
    return boxes, first, random.integers(0, 3, T)


def _targets(seed: int = 0, T: int = 4, frames: int = 50, **changes: Any) -> tuple[ViewTargets, tuple]:
    boxes, first, labels = _video(seed, T, frames)
    arguments: dict[str, Any] = {
        "width": WIDTH, "height": HEIGHT, "K": 6, "views": 3, "seed": 0, "mirrored_label": (1, 0, 2), "grid": GRID,
        "rule": MatchRule(),
    } | changes  # fmt: skip
    clips, _ = valid_clips(frames, first, np.array([len(box) for box in boxes], np.int64), arguments["K"])
    return video_targets("Class/name", boxes, first, labels, clips, **arguments), (boxes, first, labels, clips)


@pytest.mark.parametrize(("K", "rule"), [(1, MatchRule()), (6, MatchRule(0.5, 0.2)), (16, MatchRule())])
def test_every_view_has_the_targets_of_its_rectangle(K: int, rule: MatchRule) -> None:
    targets, (boxes, first, labels, clips) = _targets(K=K, rule=rule)
    assert len(clips) > 5
    for clip, start in enumerate(clips):
        covering = [t for t in range(len(boxes)) if first[t] <= start and start + K <= first[t] + len(boxes[t])]
        tubes = np.array([boxes[t][start - first[t] : start - first[t] + K] for t in covering])
        for view in range(4):
            projected, flip = np.empty_like(tubes), bool(targets.mirrored[clip, view])
            kept = int(project(tubes, targets.rectangle[clip, view].astype(np.int64), flip, projected))
            assert kept == targets.kept[clip, view] > 0
            owners = np.array([t for i, t in enumerate(covering) if kept >> i & 1])
            match = match_clip(projected[: len(owners)], GRID, rule)
            rows = slice(*targets.offsets[clip * 4 + view :][:2])
            np.testing.assert_array_equal(targets.prior[rows], match.prior)
            np.testing.assert_array_equal(targets.overlap[rows], match.overlap)
            np.testing.assert_array_equal(targets.loc[rows], match.loc)
            positive = match.tube >= 0
            of_tube = owners[match.tube]
            label = np.array([1, 0, 2])[labels[of_tube]] if flip else labels[of_tube]
            np.testing.assert_array_equal(targets.label[rows], np.where(positive, label + 1, IGNORED))
            np.testing.assert_array_equal(targets.tube[rows], np.where(positive, of_tube, 255))
            assert positive.any()


def test_view_0_is_the_whole_frame() -> None:
    targets, _ = _targets()
    assert (targets.rectangle[:, 0] == [0, 0, WIDTH, HEIGHT]).all()
    assert not targets.mirrored[:, 0].any()
    assert not targets.sampler[:, 0].any()


def test_a_view_does_not_depend_on_the_others() -> None:
    few, _ = _targets(views=1)
    many, _ = _targets(views=5)
    np.testing.assert_array_equal(few.rectangle, many.rectangle[:, :2])
    boxes, first, labels, clips = _targets()[1]
    other = video_targets(
        "Class/name", boxes, first, labels, clips, width=WIDTH, height=HEIGHT, K=6, views=1, seed=1,
        mirrored_label=(1, 0, 2), grid=GRID, rule=MatchRule(),
    )  # fmt: skip
    assert (few.rectangle[:, 1] != other.rectangle[:, 1]).any()


def test_more_ignored_priors_than_the_first_room_holds() -> None:
    targets, _ = _targets(rule=MatchRule(0.5, 0.001), views=8, frames=30)
    assert targets.offsets[-1] == len(targets.prior) > 16_384


def test_a_video_without_clips_has_no_targets() -> None:
    targets, _ = _targets(T=0)
    assert targets.rectangle.shape == (0, 4, 4)
    assert targets.offsets.tolist() == [0]


@pytest.mark.parametrize(
    ("T", "width", "message"), [(256, 320, "Class/name has 256 tubes"), (65, 320, "65 tubes"), (1, 8192, "8192 x 240")]
)
def test_what_a_target_cannot_name_is_refused(T: int, width: int, message: str) -> None:
    boxes, first = [np.tile(np.float32([0, 0, 9, 9]), (6, 1))] * T, np.zeros(T, np.int64)
    with pytest.raises(InputError, match=message):
        video_targets(
            "Class/name", boxes, first, first, np.zeros(1, np.int32), width=width, height=240, K=6, views=1, seed=0,
            mirrored_label=(0,), grid=GRID, rule=MatchRule(),
        )  # fmt: skip


def test_an_empty_box_is_refused_with_its_frame() -> None:
    box = np.tile(np.float32([0, 0, 9, 9]), (6, 1))
    box[4, 2] = 0
    with pytest.raises(InputError, match="tube 0 has an empty box at frame 7"):
        video_targets(
            "Class/name", [box], np.array([3]), np.array([0]), np.zeros(0, np.int32), width=320, height=240, K=6,
            views=1, seed=0, mirrored_label=(0,), grid=GRID, rule=MatchRule(),
        )  # fmt: skip
