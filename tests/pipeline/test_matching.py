"""The matching rule against plain numpy, bit for bit, and against loops in float64."""

from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data_manifests.errors import InputError
from data_manifests.prior_spec import ACT300, PriorLayer, PriorSpec
from pipeline.matching import MatchRule, match_clip, prior_grid
from tests.data_manifests.test_priors import SSD512
from tests.oracles import matching as plain

SMALL = PriorSpec(100, (PriorLayer("a", 5, 20, 20.0, 40.0, (2.0,)), PriorLayer("b", 2, 50, 50.0, 90.0, (2.0, 3.0))))
GRIDS = {spec.image_size: prior_grid(spec) for spec in (ACT300, SSD512, SMALL)}
THRESHOLDS = st.sampled_from([(0.5, 0.5), (0.5, 0.3), (0.7, 0.1), (0.3, 0.02), (1.0, 1.0)])


@st.composite
def clips(draw: st.DrawFn) -> np.ndarray:
    """0 to 20 tubes of 1 to 16 frames, some of them identical, still, tiny or huge."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    G, K = draw(st.integers(0, 20)), draw(st.integers(1, 16))
    size = np.exp(random.uniform(np.log(0.003), 0, (G, K if draw(st.booleans()) else 1, 2))) * np.ones((G, K, 1))
    low = random.uniform(0, 1 - size[:, :1]) + random.normal(0, draw(st.sampled_from([0, 0.01, 0.2])), (G, K, 2))
    boxes = np.concatenate([low, low + size], -1)
    if G and draw(st.booleans()):
        boxes = boxes[random.integers(0, G, G)]
    return np.round(boxes * 240).astype(np.float32) / 240 if draw(st.booleans()) else boxes.astype(np.float32)


def distinct_clips(most: int) -> st.SearchStrategy[np.ndarray]:
    """Tubes among which no overlap ties but by chance."""

    def make(seed: int, G: int, K: int) -> np.ndarray:
        random = np.random.default_rng(seed)
        low = random.uniform(0, 0.6, (G, K, 2))
        return np.concatenate([low, low + random.uniform(0.05, 0.6, (G, K, 2))], -1).astype(np.float32)

    return st.builds(make, st.integers(0, 2**32 - 1), st.integers(0, most), st.integers(1, 16))


@settings(max_examples=150, deadline=None)
@given(clips(), st.sampled_from([300, 512, 100]), THRESHOLDS)
def test_rows_are_those_of_plain_numpy_to_the_bit(
    boxes: np.ndarray, size: int, thresholds: tuple[float, float]
) -> None:
    assume((boxes[..., 2:] > boxes[..., :2]).all())
    match = match_clip(boxes, GRIDS[size], MatchRule(*thresholds))
    prior, tube, overlap = plain.match(boxes, GRIDS[size].boxes, *thresholds)
    np.testing.assert_array_equal(match.prior, prior)
    np.testing.assert_array_equal(match.tube, tube)
    np.testing.assert_array_equal(match.overlap.view(np.uint32), overlap.view(np.uint32))
    assert not match.loc[match.tube < 0].any()


@settings(max_examples=40, deadline=None)
@given(distinct_clips(3), THRESHOLDS)
def test_decisions_are_those_of_loops_in_float64(boxes: np.ndarray, thresholds: tuple[float, float]) -> None:
    grid = GRIDS[100]
    tube_of, ignored, margin = plain.match_by_loops(boxes.tolist(), grid.boxes.tolist(), *thresholds)
    assume(margin > 1e-6)
    match = match_clip(boxes, grid, MatchRule(*thresholds))
    assert dict(zip(match.prior[match.tube >= 0].tolist(), match.tube[match.tube >= 0].tolist())) == tube_of
    assert set(match.prior[match.tube < 0].tolist()) == ignored


@settings(max_examples=40, deadline=None)
@given(distinct_clips(8), st.randoms(use_true_random=False))
def test_permuting_the_tubes_permutes_the_matches(boxes: np.ndarray, random: Random) -> None:
    grid = GRIDS[100]
    overlap = plain.overlaps(boxes, grid.boxes)
    positive = np.sort(overlap[overlap > 1e-6])
    assume(len(np.unique(positive)) == len(positive))  # no ties
    order = list(range(len(boxes)))
    random.shuffle(order)
    one, other = match_clip(boxes, grid, MatchRule()), match_clip(boxes[order], grid, MatchRule())
    np.testing.assert_array_equal(one.prior, other.prior)
    np.testing.assert_array_equal(one.tube, np.array(order, np.int64)[other.tube])
    np.testing.assert_array_equal(one.loc, other.loc)


@settings(max_examples=40, deadline=None)
@given(distinct_clips(6))
def test_a_target_decodes_to_its_box(boxes: np.ndarray) -> None:
    grid, rule = GRIDS[300], MatchRule()
    match = match_clip(boxes, grid, rule)
    decoded = plain.decode(match.loc, grid.boxes[match.prior], rule.variances)
    np.testing.assert_allclose(decoded * 300, boxes[match.tube] * 300, atol=1e-4)


@pytest.mark.parametrize("thresholds", [(0.5, 0.6), (0.5, 0.0), (1.5, 0.5)])
def test_thresholds_that_contradict_are_refused(thresholds: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="threshold"):
        MatchRule(*thresholds)
