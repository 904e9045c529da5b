"""The odds against background: the fused kernel and torch's operators, against their definition in float64."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trainer.odds import MOST_LOGIT, composed_odds, odds_against_background

both = pytest.mark.parametrize("odds", [odds_against_background, composed_odds])
Odds = Callable[[Tensor], Tensor]


def scores(labels: int, size: float, *, clips: int = 3, priors: int = 70) -> Tensor:
    """More priors than the kernel takes at a time, and no multiple of that."""
    return size * torch.randn(clips, priors, labels, generator=torch.Generator().manual_seed(0))


@both
@pytest.mark.parametrize("labels", [2, 9, 25])
@pytest.mark.parametrize("size", [1e-3, 1.0, 10.0])
def test_they_are_the_odds(odds: Odds, labels: int, size: float) -> None:
    conf = scores(labels, size)
    exact = conf.double().softmax(-1)
    expected = exact[..., 1:].sum(-1) / exact[..., 0]
    torch.testing.assert_close(odds(conf).double(), expected, rtol=2e-7 * max(size * 8, 8), atol=0)


@both
def test_the_kinds_of_scores_a_network_gives(odds: Odds) -> None:
    conf = scores(4, 3.0)
    torch.testing.assert_close(odds(conf.bfloat16()), odds(conf.bfloat16().float()))
    torch.testing.assert_close(odds(conf.transpose(0, 1)), odds(conf).T)
    torch.testing.assert_close(odds(conf.clone().requires_grad_()).detach(), odds(conf))


@both
def test_scores_of_any_size_are_ordered(odds: Odds) -> None:
    conf = torch.tensor([[[0, -1e30, -1e30], [0, -50, -50], [0, 0, 0], [0, 50, 0], [-1e30, 1e30, 1e30]]])
    found = odds(conf)[0]
    assert (found[:-1].diff() > 0).all()
    assert found[0] == pytest.approx(2 * math.exp(-MOST_LOGIT), rel=1e-4)
    assert found[-1] == torch.inf


@both
@pytest.mark.parametrize("label", [0, 2])
def test_a_nan_is_a_nan(odds: Odds, label: int) -> None:
    conf = scores(3, 1.0)
    conf[1, 5, label] = torch.nan
    assert torch.equal(odds(conf).isnan().nonzero(), torch.tensor([[1, 5]]))


@both
@pytest.mark.parametrize("value", [torch.inf, -torch.inf])
def test_an_infinite_score_of_background_is_a_nan(odds: Odds, value: float) -> None:
    conf = scores(3, 1.0)
    conf[2, 69, 0] = value
    assert torch.equal(odds(conf).isnan().nonzero(), torch.tensor([[2, 69]]))
