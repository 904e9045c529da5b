"""One training step: from the host's batches to changed weights, without asking the device for a single value."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from trainer.config import Config
from trainer.data.batch import Batch
from trainer.data.photometric import colour_matrix, distort
from trainer.distributed import Ranks
from trainer.gradients import GradientSum
from trainer.loss import tubelet_loss
from trainer.model import ActNet
from trainer.stages import Clock

VALUES = ("loss", "loc", "conf", "positives", "stops", "own_loss")
"""What a step tells of itself; all but the last are sums over the ranks."""


class Learner(NamedTuple):
    """What a step changes: the network as it is called (wrapped for many ranks, compiled), the same bare, its gradients'
    sum and its optimiser.
    """

    network: Any
    model: ActNet
    gradients: GradientSum
    optimiser: torch.optim.Optimizer


def train_step(
    learner: Learner, parts: list[Batch], step: int, *, config: Config, ranks: Ranks, clock: Clock, stop: bool = False
) -> Float[Tensor, "6"]:
    """Forward, loss and backward of each part, then one step of SGD; the gradients are those of the whole global batch.

    Args:
        parts: this rank's share of the global batch, in the order of the run.
        step: which step it is; the colours depend on it.
        clock: told where each stage begins.
        stop: whether this rank was asked to stop.

    Returns:
        `VALUES`, on the device.
    """
    network, model, gradients, optimiser = learner
    device, share = ranks.device, config.batch // ranks.count
    clock.at("copy")
    # filled by a kernel: a tensor made from a Python number on the host would be copied, and waited for
    positives = torch.full((), float(sum(sum(part.positives) for part in parts)), device=device)
    positives = _sum(positives, ranks, clock)
    sums = torch.zeros(3, device=device)
    place = step * config.batch + ranks.rank * share
    for index, host_batch in enumerate(parts):
        clock.at("copy")
        batch = host_batch.to(device)
        images = model.normalise(batch.frames)
        if config.distort:
            colours = np.stack([colour_matrix(config.seed, place + i) for i in range(len(batch.clips))])
            matrices = torch.from_numpy(colours)
            if device.type == "cuda":
                matrices = matrices.pin_memory()  # CUDA may wait for its stream before it copies pageable memory
            images = distort(images, matrices.to(device, non_blocking=True), batch.cover, model.mean)
        place += len(batch.clips)
        to_the_end = index == len(parts) - 1 and not (clock.apart and ranks.count > 1)
        with nullcontext() if to_the_end or ranks.count == 1 else network.no_sync():
            clock.at("forward")
            with torch.autocast(device.type, torch.bfloat16) if config.amp else nullcontext():
                loc, conf = network(images)
            clock.at("loss")
            losses = tubelet_loss(
                loc,
                conf,
                sample=batch.sample,
                prior=batch.prior,
                label=batch.label,
                target=batch.loc,
                ignored_sample=batch.ignored_sample,
                ignored_prior=batch.ignored_prior,
                positives=batch.positives,
                normaliser=positives,
            )
            clock.at("backward")
            losses.total.backward()
        if not to_the_end:
            if ranks.count > 1:
                clock.at("all-reduce")
            gradients.put_aside()
        sums += torch.stack([losses.total, losses.loc, losses.conf]).detach()
    if clock.apart and ranks.count > 1:
        _sum(torch.zeros((), device=device), ranks, clock)  # lets all arrive: the next stage is the reduction alone
        clock.at("all-reduce")
    gradients.finish(ranks)
    clock.at("optimiser")
    if config.clip_norm:
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    asked = torch.full((1,), float(stop), device=device)
    own = sums[:1].clone()
    shared = _sum(torch.cat([sums, asked]), ranks, clock)
    values = torch.cat([shared[:3], positives.view(1), shared[3:], own])
    clock.at("data wait")
    return values


def _sum(value: Tensor, ranks: Ranks, clock: Clock) -> Tensor:
    """`Ranks.sum` of a few numbers: its time is that in which the other ranks are not there yet."""
    if ranks.count > 1:
        clock.at("peers")
    return ranks.sum(value)
