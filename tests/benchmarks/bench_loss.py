"""The loss from sparse targets against a plain port: forward and backward, batch 8; time and memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from tests.benchmarks.harness import Row, compare, devices, machine
from tests.oracles.loss import dense_targets, plain_loss
from trainer.host_memory import keep_freed_memory
from trainer.loss import tubelet_loss

B, P, K, CLASSES = 8, 8396, 6, 24
POSITIVES = (12, 7, 25, 10, 14, 3, 9, 16)
"""Of each clip; on UCF101-24 a clip has a dozen."""


def targets(device: torch.device) -> dict[str, Tensor]:
    """Rows as the loader gives them."""
    random = torch.Generator().manual_seed(0)
    rows = sum(POSITIVES)
    sparse = {
        "sample": torch.repeat_interleave(torch.arange(B), torch.tensor(POSITIVES)),
        "prior": torch.cat([torch.randperm(P, generator=random)[:n].sort().values for n in POSITIVES]),
        "label": torch.randint(1, CLASSES + 1, (rows,), generator=random),
        "target": torch.randn(rows, K, 4, generator=random),
        "ignored_sample": torch.zeros(0, dtype=torch.int64),
        "ignored_prior": torch.zeros(0, dtype=torch.int64),
    }
    return {name: tensor.to(device) for name, tensor in sparse.items()}


def highest(forward: Callable[[], Tensor], inputs: tuple[Tensor, ...]) -> int:
    """Bytes allocated at the highest point of forward and backward, beyond the gradients of the loss' two inputs.

    Every loss fills those gradients, in backward, before their reader frees them.
    """
    for tensor in inputs:
        tensor.grad = None
    top = _highest_on_gpu if inputs[0].is_cuda else _highest_on_cpu
    return top(forward, sum(tensor.nbytes for tensor in inputs))


def _highest_on_gpu(forward: Callable[[], Tensor], gradients: int) -> int:
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    loss = forward()
    first = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    loss.backward()
    return max(first, torch.cuda.max_memory_allocated() - gradients) - before


def _highest_on_cpu(forward: Callable[[], Tensor], gradients: int) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as ahead:
        loss = forward()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as back:
        loss.backward()
    (first, kept), (then, _) = _levels(ahead), _levels(back)
    return max(first, kept + then - gradients)


def _levels(profiler: profile) -> tuple[int, int]:
    level = top = 0
    events = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda event: event.start_ns()):
        level += event.nbytes()
        top = max(top, level)
    return top, level


def bench() -> list[Row]:
    """Inputs of a network with 24 classes and K = 6."""
    keep_freed_memory()  # as trainer.run does; the peer has it too
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [row for device in devices() for row in _rows(device)]
    finally:
        torch.set_num_threads(threads)


def _rows(device: torch.device) -> list[Row]:
    random = torch.Generator().manual_seed(1)
    loc = torch.randn(B, P, K, 4, generator=random).to(device).requires_grad_()
    conf = torch.randn(B, P, CLASSES + 1, generator=random).to(device).requires_grad_()
    sparse = targets(device)
    normaliser = torch.tensor(float(sum(POSITIVES)), device=device)

    def ours() -> Tensor:
        return tubelet_loss(loc, conf, **sparse, positives=POSITIVES, normaliser=normaliser).total

    def plain() -> Tensor:
        return plain_loss(loc, conf, dense_targets(B, P, K, sparse))[0]

    def backward(loss: Callable[[], Tensor]) -> None:
        loc.grad = conf.grad = None
        loss().backward()

    where = "one thread" if device.type == "cpu" else machine(device)
    speed = compare(
        f"loss, forward + backward, batch {B}, {where}", lambda: backward(ours), lambda: backward(plain),
        peer_name="plain port", samples=31, subject_repeat=4, wanted=10, device=device,
    )  # fmt: skip
    mine, theirs = highest(ours, (loc, conf)), highest(plain, (loc, conf))
    memory = Row(
        name=f"loss, memory at its highest beyond its inputs' gradients, batch {B}, {where}",
        subject=f"{mine / 2**20:.1f} MiB",
        peer=f"plain port: {theirs / 2**20:.1f} MiB",
        ratio=theirs / mine,
        spread=(theirs / mine, theirs / mine),
        samples=1,
        machine=machine(device),
        wanted=5,
    )
    return [speed, memory]
