"""A step's gradients are the sum, rounded once, whoever computes which terms, in whatever order."""

from __future__ import annotations

from collections.abc import Iterable
from multiprocessing.connection import Connection

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from data_manifests.prior_spec import ACT300
from tests.trainer import ranks
from trainer.distributed import Ranks, join
from trainer.gradients import GradientSum
from trainer.model import ActNet

CLIPS = 6
ALONE = Ranks(0, 1, torch.device("cpu"))
FORMATS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}


def _model(layout: str) -> ActNet:
    torch.manual_seed(0)
    return ActNet(ACT300, 2, 2, 1 / 16).to(memory_format=FORMATS[layout])  # type: ignore[call-overload]


def _backward(network: torch.nn.Module, clip: int) -> None:
    loc, conf = network(torch.randn(1, 2, 3, 300, 300, generator=torch.Generator().manual_seed(clip)))
    (loc.square().sum() + conf.square().sum()).backward()


def _taken(model: ActNet) -> list[np.ndarray]:
    gradients = [parameter.grad.numpy().copy() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad(set_to_none=True)
    return gradients


def _of_each_clip(layout: str, clips: int = CLIPS) -> list[list[np.ndarray]]:
    model, each = _model(layout), []
    for clip in range(clips):
        _backward(model, clip)
        each.append(_taken(model))
    return each


def _added(terms: Iterable[list[np.ndarray]], kind: type) -> list[np.ndarray]:
    sums = [np.zeros(gradient.shape, kind) for gradient in next(iter(terms))]
    for term in terms:
        for total, gradient in zip(sums, term, strict=True):
            total += gradient
    return [total.astype(np.float32) for total in sums]


def _equal(some: list[np.ndarray], others: list[np.ndarray]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(some, others, strict=True))


@pytest.fixture(scope="module", params=sorted(FORMATS))
def layout_and_sum(request: pytest.FixtureRequest) -> tuple[str, list[np.ndarray]]:
    """How weights lie in memory, and the sum over all clips; in float32 it is another one, backwards."""
    each = _of_each_clip(request.param)
    assert not _equal(_added(each, np.float32), _added(each[::-1], np.float32))
    expected = _added(each, np.float64)
    assert _equal(expected, _added(each[::-1], np.float64))
    return request.param, expected


def test_parts_of_one_process(layout_and_sum: tuple[str, list[np.ndarray]]) -> None:
    layout, expected = layout_and_sum
    model = _model(layout)
    sums = GradientSum(model, CLIPS)
    for _ in range(2):
        for clip in range(CLIPS):
            if clip:
                sums.put_aside()
            _backward(model, clip)
        sums.finish(ALONE)
        for parameter in model.parameters():
            assert parameter.grad is not None
            assert parameter.grad.stride() == parameter.stride(), "the optimiser would go through them crosswise"
        assert _equal(_taken(model), expected)


@pytest.mark.parametrize(("parts", "kept"), [(2, torch.float32), (3, torch.float64)])
@pytest.mark.parametrize("layout", sorted(FORMATS))
def test_the_sum_of_few_parts_is_rounded_once_and_of_two_takes_half_the_memory(
    layout: str, parts: int, kept: torch.dtype
) -> None:
    model = _model(layout)
    sums = GradientSum(model, parts)
    for clip in reversed(range(parts)):
        _backward(model, clip)
        if clip:
            sums.put_aside()
            assert {aside.dtype for aside in sums._aside.values()} == {kept}
    sums.finish(ALONE)
    assert _equal(_taken(model), _added(_of_each_clip(layout, parts), np.float64))


def _steps_of_a_rank(rank: int, tell: Connection, layout: str) -> None:
    """Two: after its first backward DDP lays its buckets out anew."""
    joined, model = join("cpu"), _model(layout)
    network = DistributedDataParallel(model, gradient_as_bucket_view=True)
    sums = GradientSum(model, CLIPS)
    sums.over_ranks(network)
    share = CLIPS // joined.count
    *others, last = range(rank * share, (rank + 1) * share)
    for _ in range(2):
        with network.no_sync():
            for clip in others:
                _backward(network, clip)
                sums.put_aside()
        _backward(network, last)
        sums.finish(joined)
        tell.send(_taken(model))
    dist.barrier()


@pytest.mark.parametrize("world", [2, 3])
def test_parts_of_several_processes(world: int, layout_and_sum: tuple[str, list[np.ndarray]]) -> None:
    layout, expected = layout_and_sum
    started = ranks.start(world, _steps_of_a_rank, layout)
    try:
        sums = [told.recv() for _ in range(2) for _, told in started]
        for process, _ in started:
            process.join(60)
    finally:
        for process, _ in started:
            process.kill()  # one that waits for another that failed
    assert all(_equal(told, expected) for told in sums)
    assert [process.exitcode for process, _ in started] == [0] * world
