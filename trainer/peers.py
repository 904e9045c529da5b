"""The processes that share one evaluation: who takes which video, and what they tell one another of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed as dist

from trainer.distributed import exchange

T = TypeVar("T")
_calls = itertools.count()
"""Numbers what the ranks do together, alike on every rank."""


@dataclass(frozen=True)
class Peers:
    """The processes that share one evaluation: one, unless torch.distributed runs."""

    rank: int
    world: int

    @classmethod
    def here(cls) -> Peers:
        """This process among them."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls(0, 1)

    def take(self, places: list[int]) -> Iterator[tuple[int, int]]:
        """Each place goes to one of the ranks, the next one to whoever asks first; with it, how many went to any rank.

        All ranks call it with the same places.
        """
        if self.world == 1:
            yield from enumerate(places, start=1)
            return
        call = next(_calls)
        counter = dist.distributed_c10d._get_default_store()
        while (taken := counter.add(f"tubelets/evaluation/{call}", 1)) <= len(places):
            yield taken, places[taken - 1]

    def wait(self) -> None:
        """Until all ranks are here, as long as that takes: one may have hours of a video left."""
        if self.world == 1:
            return
        if dist.get_backend() == "gloo":
            dist.barrier()  # which hears of a peer that is killed, and has `PATIENCE`
        else:
            exchange(f"evaluation/here/{next(_calls)}", self.rank, self.world, "")

    def gather(self, mine: dict[int, T]) -> dict[int, T]:
        """What all ranks found, on the first; the others keep theirs. With NCCL it passes through the GPUs' memory."""
        if self.world == 1:
            return mine
        parts: list[dict[int, T]] = [mine] * self.world
        dist.gather_object(mine, parts if self.rank == 0 else None)
        return {place: findings for part in parts for place, findings in part.items()}

    def tell(self, value: dict[str, Any] | None) -> dict[str, Any]:
        """Rank 0's value, on every rank."""
        box = [value]
        self.wait()
        if self.world > 1:
            dist.broadcast_object_list(box, src=0)
        assert box[0] is not None
        return box[0]
