"""The loss from sparse targets against a plain port with dense ones, and what must hold of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.oracles.loss import dense_targets, plain_loss
from tests.trainer.sparse_targets import sparse_targets
from trainer.loss import MAX_CROSS_ENTROPY, NEGATIVES_PER_POSITIVE, Losses, tubelet_loss

P, K, CLASSES = 300, 2, 3


def _outputs(B: int, seed: int = 0, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    loc = torch.randn(B, P, K, 4, generator=random).requires_grad_()
    conf = (scale * torch.randn(B, P, CLASSES + 1, generator=random)).requires_grad_()
    return loc, conf


def _loss(loc: Tensor, conf: Tensor, positives: tuple[int, ...], targets: dict, total: int | None = None) -> Losses:
    normaliser = torch.tensor(float(sum(positives) if total is None else total))
    return tubelet_loss(loc, conf, **targets, positives=positives, normaliser=normaliser)


@pytest.mark.parametrize("positives", [(4, 9, 1), (0, 5), (3,), (0, 0, 7, 20), (90, 2), (299,)])
@pytest.mark.parametrize("ignored", [0, 1])
def test_it_equals_the_plain_port(positives: tuple[int, ...], ignored: int) -> None:
    for seed in range(4):
        loc, conf = _outputs(len(positives), seed)
        targets = sparse_targets(positives, ignored=ignored, seed=seed)
        losses = _loss(loc, conf, positives, targets)
        losses.total.backward()
        ours = loc.grad, conf.grad
        loc.grad = conf.grad = None
        expected, mined = plain_loss(loc, conf, dense_targets(len(positives), P, K, targets))
        expected.backward()
        torch.testing.assert_close(losses.total, expected, rtol=2e-6, atol=0)
        torch.testing.assert_close(ours, (loc.grad, conf.grad), rtol=1e-5, atol=1e-8)
        torch.testing.assert_close(losses.loc + losses.conf, losses.total)
        assert torch.equal(losses.mined[losses.is_mined].sort().values, mined.flatten().nonzero()[:, 0])


def test_a_batch_without_positives_is_zero_and_finite() -> None:
    loc, conf = _outputs(3)
    losses = _loss(loc, conf, (0, 0, 0), sparse_targets((0, 0, 0), ignored=2))
    losses.total.backward()
    assert losses.total == 0
    assert not loc.grad.any()
    assert not conf.grad.any()


def test_a_clip_without_positives_adds_nothing() -> None:
    loc, conf = _outputs(2)
    _loss(loc, conf, (0, 6), sparse_targets((0, 6))).total.backward()
    assert not conf.grad[0].any()
    assert conf.grad[1].any()


def test_ignored_priors_are_never_mined() -> None:
    loc, conf = _outputs(2)
    targets = sparse_targets((5, 5), ignored=40)
    hard = conf.detach().clone()
    hard[targets["ignored_sample"], targets["ignored_prior"], 0] = -50
    losses = _loss(loc, hard.requires_grad_(), (5, 5), targets)
    rows = targets["ignored_sample"] * P + targets["ignored_prior"]
    assert not torch.isin(losses.mined[losses.is_mined], rows).any()
    losses.total.backward()
    assert not hard.grad.flatten(0, 1)[rows].any()


def test_the_hardest_three_a_positive_are_mined() -> None:
    loc, conf = _outputs(1)
    targets = sparse_targets((4,))
    losses = _loss(loc, conf, (4,), targets)
    assert losses.is_mined.sum() == 4 * NEGATIVES_PER_POSITIVE
    hardness = -conf.detach()[0].log_softmax(1)[:, 0]
    hardness[targets["prior"]] = -1
    assert set(losses.mined.tolist()) == set(hardness.topk(12).indices.tolist())


def test_two_halves_with_the_global_normaliser_add_up_to_the_whole() -> None:
    positives = (4, 0, 9, 2)
    loc, conf = _outputs(4)
    targets = sparse_targets(positives)
    whole = _loss(loc, conf, positives, targets).total
    halves = []
    for first in (0, 2):
        mine = (targets["sample"] >= first) & (targets["sample"] < first + 2)
        part = {name: rows[mine] for name, rows in targets.items() if not name.startswith("ignored")}
        part |= {"sample": part["sample"] - first, "ignored_sample": targets["ignored_sample"], "ignored_prior": targets["ignored_prior"]}  # fmt: skip
        halves.append(
            _loss(loc[first : first + 2], conf[first : first + 2], positives[first : first + 2], part, 15).total
        )
    torch.testing.assert_close(sum(halves), whole, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("label", "value"), [(2, torch.nan), (0, torch.nan), (0, torch.inf), (2, torch.inf)])
def test_a_broken_score_anywhere_reaches_the_loss(label: int, value: float) -> None:
    """At a prior that is not matched a NaN would otherwise hide: it is no candidate of a comparison."""
    targets = sparse_targets((4,))
    unmatched = next(p for p in range(P) if p not in targets["prior"])
    loc, conf = _outputs(1)
    spoiled = conf.detach().clone()
    spoiled[0, unmatched, label] = value
    assert not _loss(loc, spoiled, (4,), targets).total.isfinite()


def test_a_cross_entropy_is_clamped_as_in_the_original_but_not_its_gradient() -> None:
    loc, conf = _outputs(1)
    targets = sparse_targets((1,))
    prior, label = targets["prior"].item(), targets["label"].item()
    certain = torch.zeros_like(conf)
    certain[..., 0] = 40
    certain[0, prior, label] = -500
    certain.requires_grad_()
    losses = _loss(loc, certain, (1,), targets)
    torch.testing.assert_close(losses.conf.item(), MAX_CROSS_ENTROPY, rtol=1e-6, atol=0)
    losses.total.backward()
    assert certain.grad[0, prior, label] == -1


class _Largest(TorchDispatchMode):
    """Values of the largest new tensor that an operator returns."""

    def __init__(self, *inputs: Tensor) -> None:
        super().__init__()
        self.values, self._inputs = 0, {tensor.untyped_storage().data_ptr() for tensor in inputs}

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = operator(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in self._inputs:
                self.values = max(self.values, tensor.numel())
        return out


def test_no_array_of_all_clips_scores_or_offsets_is_made() -> None:
    """At most one clip's scores at a time, and one number a prior."""
    loc, conf = _outputs(16)
    positives = (2,) * 16
    with _Largest(loc, conf) as largest:
        _loss(loc, conf, positives, sparse_targets(positives, ignored=1))
    assert largest.values <= max(P * (CLASSES + 1), 16 * P)
    with _Largest(loc, conf) as largest:
        plain_loss(loc, conf, dense_targets(16, P, K, sparse_targets(positives)))
    assert largest.values >= 16 * P * K * 4


class _Additions(TorchDispatchMode):
    """The rows that gradients are added to, and what is added."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if "index_add" in operator.name():
            self.seen.append((args[2], args[3]))
        return operator(*args, **(kwargs or {}))


def test_no_two_gradients_are_added_up() -> None:
    """A GPU adds in any order (atomically): the sum has the same bits if all but one of a row's summands are 0."""
    positives = (80, 3)
    loc, conf = _outputs(2)
    total = _loss(loc, conf, positives, sparse_targets(positives, ignored=20)).total
    with _Additions() as additions:
        total.backward()
    repeated = [len(rows) - len(rows.unique()) for rows, _ in additions.seen]
    assert sorted(map(bool, repeated)) == [False, True], "offsets' rows once; scores' again when the negatives run out"
    for rows, added in additions.seen:
        counting = rows[added.flatten(1).any(1)]
        assert len(counting) == len(counting.unique()) > 0


def test_bfloat16_scores_are_summed_in_float32() -> None:
    loc, conf = _outputs(2)
    targets = sparse_targets((5, 8))
    losses = _loss(loc.bfloat16(), conf.bfloat16(), (5, 8), targets)
    assert losses.total.dtype == torch.float32
    torch.testing.assert_close(
        losses.total, _loss(loc.bfloat16().float(), conf.bfloat16().float(), (5, 8), targets).total
    )
