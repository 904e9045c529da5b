"""A step's gradients, added over its parts and the run's processes: the same bits whichever process computes which part."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from trainer.distributed import Ranks
from trainer.model import ActNet


class GradientSum:
    """Rounds once, so that the order of the terms counts for nothing, all but always.

    float32 does so with two terms. Of more it rounds each sum, and training makes much of a last bit within steps; they
    are added in float64, whose 53 bits hold a few terms exactly while those are within some 2^26 of one another.

    Args:
        model: whose gradients.
        parts: terms of a step's sum, over all processes.
    """

    def __init__(self, model: ActNet, parts: int) -> None:
        self._dtype = torch.float64 if parts > 2 else torch.float32
        self._parameters = list(model.parameters())
        self._aside: dict[Tensor, Tensor] = {}

    def over_ranks(self, network: DistributedDataParallel) -> None:
        """From now on its backward adds over the ranks, while it goes on, what was put aside and its own gradients."""
        network.register_comm_hook(self, _add_bucket)

    def put_aside(self) -> None:
        """Keeps the gradients of a backward that is not the step's last."""
        for parameter in self._parameters:
            if parameter.grad is None:
                continue
            if parameter in self._aside:
                self._aside[parameter] += parameter.grad
            else:
                self._aside[parameter] = parameter.grad.to(self._dtype)
            parameter.grad = None

    def finish(self, ranks: Ranks) -> None:
        """Makes the step's gradients of what is still aside."""
        for parameter, wide in self._aside.items():
            if parameter.grad is not None:
                wide += parameter.grad
            parameter.grad = ranks.sum(wide).to(parameter.dtype)
        self._aside.clear()


def _add_bucket(sums: GradientSum, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """See `DistributedDataParallel.register_comm_hook`, which reads the annotations: in this file they are no strings."""
    flat = bucket.buffer()
    wide = flat.to(sums._dtype)
    for parameter, gradient in zip(bucket.parameters(), bucket.gradients(), strict=True):
        aside = sums._aside.pop(parameter, None)
        if aside is not None:
            offset = gradient.storage_offset() - flat.storage_offset()
            wide.as_strided(parameter.shape, parameter.stride(), offset).add_(aside)  # as DDP lays them in the bucket
    added = dist.all_reduce(wide, async_op=True)
    assert added is not None
    return added.get_future().then(lambda done: flat.copy_(done.value()[0]))
