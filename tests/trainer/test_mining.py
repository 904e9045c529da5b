"""The hardest negatives: by the kernels and by torch's operators, against a sort by their definition in float64."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from trainer.mining import MOST_LOGIT, OFF, _rough_others, _rough_power, composed, hardest

both = pytest.mark.parametrize("mine", [hardest, composed])
Mine = Callable[[Tensor, Tensor, tuple[int, ...]], tuple[Tensor, Tensor]]
NONE = torch.zeros(0, dtype=torch.int64)
PRIORS = 262


def scores(labels: int, size: float, *, clips: int = 3, seed: int = 0) -> Tensor:
    """Of a network."""
    return size * torch.randn(clips, PRIORS, labels, generator=torch.Generator().manual_seed(seed))


def exact_odds(conf: Tensor) -> Tensor:
    """(1 - p) / p in float64."""
    scores = conf.double()
    return (scores[..., 1:] - scores[..., :1]).exp().sum(-1)


def mined(mine: Mine, conf: Tensor, excluded: Tensor, wanted: tuple[int, ...]) -> list[list[int]]:
    """The priors of each clip, ascending."""
    rows, counts = mine(conf, excluded, wanted)
    return [
        sorted((of_clip - clip * conf.shape[1])[counting].tolist())
        for clip, (of_clip, counting) in enumerate(zip(rows.split(wanted), counts.split(wanted), strict=True))
    ]


@both
@settings(deadline=None)
@given(
    labels=some.integers(2, 27),
    size=some.sampled_from([1e-3, 1.0, 10.0]),
    wanted=some.tuples(*[some.integers(0, PRIORS)] * 3),
    taken=some.integers(0, PRIORS),
    seed=some.integers(0, 99),
)
def test_they_are_the_first_of_a_sort(
    mine: Mine, labels: int, size: float, wanted: tuple[int, int, int], taken: int, seed: int
) -> None:
    conf = scores(labels, size, seed=seed)
    excluded = torch.randperm(3 * PRIORS, generator=torch.Generator().manual_seed(seed))[: 3 * taken]
    odds = exact_odds(conf)
    odds.view(-1)[excluded] = -torch.inf
    for clip, priors in enumerate(mined(mine, conf, excluded, wanted)):
        left = int((odds[clip] > -torch.inf).sum())
        assert len(set(priors)) == len(priors) == min(wanted[clip], left)
        others = odds[clip].index_fill(0, torch.tensor(priors, dtype=torch.int64), -torch.inf)
        assert all(odds[clip, priors] >= others.max() * (1 - 1e-5))  # the operators compare in float32


@both
def test_a_row_that_counts_for_nothing_is_one_of_its_clip(mine: Mine) -> None:
    rows, counts = mine(scores(4, 1.0, clips=2), torch.arange(PRIORS + 3, 2 * PRIORS), (2, 5))
    assert (counts[:2].sum(), counts[2:].sum()) == (2, 3)
    assert (rows[2:] >= PRIORS).all()
    assert (rows[2:] < 2 * PRIORS).all()


@both
@pytest.mark.parametrize("wanted", [(4, 9, 2), (0, 3, 0), (0, 0, 0)])
def test_the_kinds_of_scores_a_network_gives(mine: Mine, wanted: tuple[int, int, int]) -> None:
    conf = scores(4, 3.0).bfloat16().float()
    excluded = torch.tensor([7, PRIORS - 1, PRIORS, 2 * PRIORS + 5])
    expected = mined(mine, conf, excluded, wanted)
    assert not {row % PRIORS for row in excluded[1:3].tolist()} & set(expected[1])
    assert mined(mine, conf.clone().requires_grad_(), excluded, wanted) == expected
    assert mined(mine, conf.transpose(0, 1).contiguous().transpose(0, 1), excluded, wanted) == expected
    assert mined(mine, conf.double(), excluded, wanted) == expected
    assert mined(mine, conf.bfloat16(), excluded, wanted) == expected


def test_a_number_is_wanted_of_each_clip() -> None:
    for wanted in ((3, 3), (3, 3, 3, 3)):
        with pytest.raises(ValueError, match=f"{len(wanted)} numbers of negatives for 3 clips"):
            hardest(scores(4, 3.0), NONE, wanted)


@both
def test_scores_of_any_size_are_ordered(mine: Mine) -> None:
    conf = torch.tensor([[[0, -1e30, -1e30], [0, -50, -50], [0, -torch.inf, 0], [200, 250, 0], [-1e30, 1e30, 1e30]]])
    for count in range(6):
        assert mined(mine, conf, NONE, (count,)) == [list(range(5 - count, 5))]


@both
@pytest.mark.parametrize(("label", "value"), [(0, torch.nan), (2, torch.nan), (0, torch.inf), (0, -torch.inf)])
def test_what_is_no_number_is_the_hardest(mine: Mine, label: int, value: float) -> None:
    conf = scores(3, 3.0)
    conf[1, 5, label] = value
    assert mined(mine, conf, NONE, (0, 1, 0)) == [[], [5], []]
    conf[1, 6:40, 0], conf[1, 6:40, 1] = -100, 100  # their odds are infinite in float32
    assert 5 in mined(mine, conf, NONE, (0, 9, 0))[1]
    many = torch.cat([conf, conf[..., 1:2].expand(-1, -1, 400)], -1)
    assert 5 in mined(mine, many, NONE, (0, 9, 0))[1]


@both
@pytest.mark.parametrize("shift", [70.0, 81.0, 90.0, -90.0, 1e4])
def test_a_shift_of_all_scores_of_a_prior_changes_nothing(mine: Mine, shift: float) -> None:
    conf = (scores(5, 2.0) * 64).round() / 64  # so that the shift rounds nothing
    shifted = conf + shift * (torch.arange(PRIORS) % 3 == 0)[:, None]
    for wanted in ((9, 1, 0), (60, 69, PRIORS)):
        assert mined(mine, shifted, NONE, wanted) == mined(mine, conf, NONE, wanted)


@both
@pytest.mark.parametrize("size", [0.0, 1e-2])
def test_odds_that_are_nearly_equal(mine: Mine, size: float) -> None:
    conf = scores(4, size)
    odds = exact_odds(conf)
    for clip, priors in enumerate(mined(mine, conf, NONE, (9, 30, 1))):
        assert len(set(priors)) == (9, 30, 1)[clip]
        assert odds[clip, priors].min() >= odds[clip].topk(len(priors)).values[-1] * (1 - 1e-6)


def test_one_whose_rough_odds_are_smaller_may_be_the_hardest() -> None:
    conf = torch.full((1, 10, 2), 0.0)
    conf[..., 1] = -30
    conf[0, 2], conf[0, 5] = torch.tensor([[0, 3.53], [0.4427, 4.0]]) * math.log(2)
    assert mined(hardest, conf, NONE, (1,)) == [[5]]


def test_rough_powers_are_off_by_less_than_is_said() -> None:
    """Else a prior that is one of the hardest could be passed over."""
    numbers = np.linspace(-MOST_LOGIT, MOST_LOGIT, 1_000_001, dtype=np.float32)[1:-1]
    powers = np.array([_rough_power(number) for number in numbers])
    off = powers / np.exp(numbers.astype(np.float64))
    assert 1 - 1e-4 < off.min() < off.max() < 1.062 < OFF
    for beyond in (83, -83, math.nan, math.inf, -math.inf, 1e30):
        assert math.isnan(_rough_power(np.float32(beyond)))


@pytest.mark.parametrize("labels", [2, 5, 25, 70])
def test_rough_sums_are_those_of_rough_powers(labels: int) -> None:
    """They are added several at a time, and no NaN may be lost on the way."""
    random = np.random.default_rng(0)
    for size in (1, 30):
        row = random.uniform(-size, size, labels).astype(np.float32)
        assert _rough_others(row) == pytest.approx(sum(float(_rough_power(score)) for score in row[1:]), rel=1e-5)
    for label in range(1, labels):
        for beyond in (math.nan, math.inf, -math.inf, 83):
            spoiled = row.copy()
            spoiled[label] = beyond
            assert math.isnan(_rough_others(spoiled))
    row[0] = math.nan
    assert not math.isnan(_rough_others(row))


def test_scores_that_need_no_conversion_are_not_copied() -> None:
    conf = scores(30, 1.0, clips=16)
    hardest(conf, NONE, (3,) * 16)  # the kernels are compiled
    tracemalloc.start()
    hardest(conf, NONE, (3,) * 16)
    _, highest = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 16 * PRIORS <= highest < conf[0].nbytes, "one byte a prior, and little more"


def test_scores_in_bfloat16_are_not_all_copied() -> None:
    conf = torch.zeros(16, PRIORS, 30, dtype=torch.bfloat16)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watch:
        hardest(conf, NONE, (3,) * 16)
    allocated = [event.nbytes() for event in watch.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert PRIORS * 30 * 4 <= max(allocated) < 2 * PRIORS * 30 * 4
