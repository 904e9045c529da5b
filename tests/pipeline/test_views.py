"""Views: distributions of the draws against SSD's sampler and against the original's recorded draws, and `project`."""

from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, ks_2samp, kstest

from pipeline.philox import video_key
from pipeline.views import WHOLE_FRAME, draw_view, project
from tests.oracles import views as plain

WIDTH, HEIGHT, LEVEL = 320, 240, 1e-4
BOX = np.tile(np.array([110, 60, 200, 190], np.float32), (1, 6, 1))


class Drawn:
    """What `draw_view` gave for views 1, 2, ... of one clip."""

    def __init__(self, count: int, boxes: np.ndarray) -> None:
        stream, key = np.zeros(9, np.uint64), video_key(0, "Class/name")
        rectangle, projected = np.zeros(4, np.int64), np.empty_like(boxes)
        rows = []
        for view in range(1, count + 1):
            mirrored, sampler, kept = draw_view(stream, *key, 7, view, boxes, WIDTH, HEIGHT, rectangle, projected)
            rows.append((*rectangle, mirrored, sampler, kept))
        self.rectangle = np.array([row[:4] for row in rows])
        self.mirrored, self.sampler, self.kept = (np.array([int(row[i]) for row in rows]) for i in (4, 5, 6))


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    return Drawn(6000, BOX)


def _plain_draws(count: int, original: bool) -> tuple[np.ndarray, np.ndarray]:
    """Crops in native pixels and samplers, by the oracle; views that lose the tube are drawn again."""
    random, crops, samplers = np.random.default_rng(1), [], []
    while len(crops) < count:
        ratio, x, y = plain.draw_canvas(random)
        canvas = np.array([WIDTH, HEIGHT] * 2) * ratio
        place = np.array([x, y] * 2) * (canvas - np.array([WIDTH, HEIGHT] * 2))
        crop, sampler = plain.draw_crop(random, (BOX + place) / canvas, original)
        native = crop * canvas - place
        centre = (BOX[0, 0, :2] + BOX[0, 0, 2:]) / 2
        if (native[:2] <= centre).all() and (centre <= native[2:]).all():
            crops.append(native)
            samplers.append(sampler)
    return np.array(crops), np.array(samplers)


@pytest.fixture(scope="module")
def by_oracle() -> tuple[np.ndarray, np.ndarray]:
    return _plain_draws(500, original=False)


def test_places_sizes_and_samplers_are_distributed_as_ssds(drawn: Drawn, by_oracle: tuple) -> None:
    crops, samplers = by_oracle
    shares = [np.bincount(s, minlength=7) for s in (drawn.sampler, samplers)]
    expected = shares[1] / len(samplers)
    pooled = (shares[0] + shares[1]) / (len(drawn.sampler) + len(samplers))
    error = np.sqrt(pooled * (1 - pooled) * (1 / len(drawn.sampler) + 1 / len(samplers)))
    assert (abs(shares[0] / len(drawn.sampler) - expected) <= 4.5 * error).all()
    random = np.random.default_rng(2)
    for edge in range(4):  # the oracle's edges are not whole: both get a jitter of one pixel
        ours = drawn.rectangle[:, edge] + random.uniform(-0.5, 0.5, len(drawn.rectangle))
        theirs = np.rint(crops[:, edge]) + random.uniform(-0.5, 0.5, len(crops))
        assert ks_2samp(ours, theirs).pvalue > LEVEL


def test_half_of_the_views_are_mirrored(drawn: Drawn) -> None:
    assert chisquare(np.bincount(drawn.mirrored, minlength=2)).pvalue > LEVEL


def test_whole_canvases_are_as_large_and_where_the_oracle_puts_them(drawn: Drawn, by_oracle: tuple) -> None:
    crops, samplers = by_oracle
    found = []
    for rectangle, sampler in ((drawn.rectangle, drawn.sampler), (crops, samplers)):
        whole = rectangle[sampler == 0]
        room = whole[:, 2] - whole[:, 0] - WIDTH
        expanded = room > 0.1 * WIDTH
        found.append((room[expanded], whole[expanded, 0] / room[expanded], expanded))
    for ours, theirs in zip(found[0][:2], found[1][:2]):
        assert ks_2samp(ours, theirs).pvalue > LEVEL
    assert kstest(-found[0][1], "uniform").pvalue > LEVEL
    assert abs(found[0][2].mean() - found[1][2].mean()) < 4.5 * 0.5 * np.sqrt(
        1 / len(found[1][2]) + 1 / len(found[0][2])
    )


def test_the_originals_draws_are_distributed_as_the_rule_says_where_it_has_no_error(golden: Path) -> None:
    """Expansion and mirror by the rule itself; crops by the oracle with the original's errors, on the same tubes."""
    data = dict(np.load(golden / "augment.npz", allow_pickle=False))
    ratio = data["expand_hw"][:, 0] / HEIGHT
    count, expanded, mirrored = len(ratio), int((ratio > 1).sum()), int(data["mirror"].sum())
    for share in (expanded, mirrored):
        assert chisquare([share, count - share]).pvalue > LEVEL
    assert kstest(ratio[ratio > 1.1], "uniform", (1.1, 2.9)).pvalue > LEVEL
    random, theirs, ours = np.random.default_rng(3), [], []
    for row in range(min(count, 500)):
        canvas = np.tile(data["expand_hw"][row, ::-1], 2)
        boxes = data["boxes_expand"][slice(*data["boxes_expand_ptr"][row : row + 2])] / canvas
        theirs.append(data["crop_cuboid"][row] / canvas)
        ours.append(plain.draw_crop(random, boxes, original=True)[0])
    sizes = [np.array(crops)[:, 2:] - np.array(crops)[:, :2] for crops in (theirs, ours)]
    whole = [(size > 0.9999).all(1) for size in sizes]
    error = np.sqrt(0.5 / len(theirs))
    assert abs(whole[0].mean() - whole[1].mean()) < 4.5 * error
    fitting = [size[~is_whole & (size <= 1).all(1)] for size, is_whole in zip(sizes, whole)]
    for measure in (lambda s: s.prod(1), lambda s: s[:, 0] / s[:, 1]):
        assert ks_2samp(measure(fitting[0]), measure(fitting[1])).pvalue > LEVEL


@pytest.mark.parametrize("frame", [(1, 1), (17, 900), (8191, 3)])
def test_rectangles_fit_int16_and_have_an_inside(frame: tuple[int, int]) -> None:
    width, height = frame
    boxes = np.tile(np.array([0, 0, width, height], np.float32), (1, 6, 1))
    stream, rectangle, projected = np.zeros(9, np.uint64), np.zeros(4, np.int64), np.empty_like(boxes)
    for view in range(1, 300):
        _, _, kept = draw_view(stream, *video_key(0, "a"), 0, view, boxes, width, height, rectangle, projected)
        assert kept == 1
        assert (rectangle[2:] > rectangle[:2]).all()
        assert abs(rectangle).max() < 2**15
        assert projected.min() >= 0
        assert projected.max() <= 1


def test_a_tube_that_every_view_loses_falls_back_to_the_whole_frame() -> None:
    corners = np.array([[[0, 0, 2, 2]] * 3 + [[WIDTH - 2, HEIGHT - 2, WIDTH, HEIGHT]] * 3], np.float32)
    drawn = Drawn(400, corners)
    assert (drawn.kept == 1).all()
    fallback = drawn.sampler == WHOLE_FRAME
    np.testing.assert_array_equal(drawn.rectangle[fallback], np.tile([0, 0, WIDTH, HEIGHT], (fallback.sum(), 1)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_projection_by_definition_and_mirroring_twice_is_nothing(seed: int, G: int) -> None:
    random = np.random.default_rng(seed)
    low = random.integers(0, 200, (G, 4, 2)).astype(np.float32)
    boxes = np.concatenate([low, low + random.integers(1, 100, (G, 4, 2)).astype(np.float32)], -1)
    corner = random.integers(-200, 150, 2)
    rectangle = np.concatenate([corner, corner + random.integers(1, 400, 2)])
    plainly, mirrored = np.empty_like(boxes), np.empty_like(boxes)
    kept = int(project(boxes, rectangle, False, plainly))
    assert kept == int(project(boxes, rectangle, True, mirrored))
    size = (rectangle[2:] - rectangle[:2]).astype(np.float64)
    centres = ((boxes[..., :2] + boxes[..., 2:]) / 2 - rectangle[:2]) / size
    inside = [g for g in range(G) if kept >> g & 1]
    assert inside == np.flatnonzero(((centres >= 0) & (centres <= 1)).all((1, 2))).tolist()
    expected = np.clip((boxes[inside] - np.tile(rectangle[:2], 2)) / np.tile(size, 2), 0, 1)
    n = len(inside)
    np.testing.assert_allclose(plainly[:n], expected, atol=1e-6)
    np.testing.assert_allclose(1 - mirrored[:n][..., [2, 0]], plainly[:n][..., [0, 2]], atol=1e-7)
    np.testing.assert_array_equal(mirrored[:n][..., [1, 3]], plainly[:n][..., [1, 3]])


def test_draws_are_those_of_the_first_stores() -> None:
    """Recorded before crops that cannot reach a tube were left out: a store goes on with the views that it began with."""
    random, sums = np.random.default_rng(0), []
    for tubes, smallest, largest in ((1, 2, 300), (1, 2, 40), (2, 20, 200), (4, 2, 300)):
        low = random.uniform(0, 0.7, (tubes, 1, 2)) + random.uniform(0, 0.02, (tubes, 6, 2))
        size = np.exp(random.uniform(np.log(smallest), np.log(largest), (tubes, 1, 2)))
        boxes = np.concatenate([low * (WIDTH, HEIGHT), low * (WIDTH, HEIGHT) + size], -1)
        drawn = Drawn(500, np.minimum(boxes, [WIDTH, HEIGHT] * 2).astype(np.float32))
        rows = np.column_stack([drawn.rectangle, drawn.mirrored, drawn.sampler, drawn.kept])
        sums.append(google_crc32c.value(rows.astype("<i8").tobytes()))
    assert sums == [4111061819, 1293966390, 3861955053, 850546529]
