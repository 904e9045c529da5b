"""The loss from sparse targets against a plain port: forward and backward, batch 8; time and memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from tests.benchmarks.harness import Row, compare, machine
from tests.oracles.loss import dense_targets, plain_loss
from trainer.loss import tubelet_loss

B, P, K, CLASSES = 8, 8396, 6, 24
POSITIVES = (12, 7, 25, 10, 14, 3, 9, 16)
"""Of each clip; on UCF101-24 a clip has a dozen."""


def targets() -> dict[str, Tensor]:
    """Rows as the loader gives them."""
    random = torch.Generator().manual_seed(0)
    rows = sum(POSITIVES)
    return {
        "sample": torch.repeat_interleave(torch.arange(B), torch.tensor(POSITIVES)),
        "prior": torch.cat([torch.randperm(P, generator=random)[:n].sort().values for n in POSITIVES]),
        "label": torch.randint(1, CLASSES + 1, (rows,), generator=random),
        "target": torch.randn(rows, K, 4, generator=random),
        "ignored_sample": torch.zeros(0, dtype=torch.int64),
        "ignored_prior": torch.zeros(0, dtype=torch.int64),
    }


def highest(call: object) -> int:
    """Bytes allocated at the highest point of a call, gradients included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()  # type: ignore[operator]
    level = top = 0
    for event in profiler.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            level += event.nbytes()
            top = max(top, level)
    return top


def bench() -> list[Row]:
    """Inputs of a network with 24 classes and K = 6."""
    random = torch.Generator().manual_seed(1)
    loc = torch.randn(B, P, K, 4, generator=random).requires_grad_()
    conf = torch.randn(B, P, CLASSES + 1, generator=random).requires_grad_()
    sparse = targets()
    normaliser = torch.tensor(float(sum(POSITIVES)))

    def ours() -> None:
        loc.grad = conf.grad = None
        tubelet_loss(loc, conf, **sparse, positives=POSITIVES, normaliser=normaliser).total.backward()

    def plain() -> None:
        loc.grad = conf.grad = None
        plain_loss(loc, conf, dense_targets(B, P, K, sparse))[0].backward()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        name = f"loss, forward + backward, batch {B}, one thread"
        speed = compare(name, ours, plain, peer_name="plain port", samples=15, subject_repeat=4, wanted=10)
        loc.grad = conf.grad = None
        mine = highest(ours)
        loc.grad = conf.grad = None
        theirs = highest(plain)
    finally:
        torch.set_num_threads(threads)
    memory = Row(
        name=f"loss, memory at its highest, batch {B}",
        subject=f"{mine / 2**20:.1f} MiB",
        peer=f"plain port: {theirs / 2**20:.1f} MiB",
        ratio=theirs / mine,
        spread=(theirs / mine, theirs / mine),
        samples=1,
        machine=machine(),
        wanted=5,
    )
    return [speed, memory]
