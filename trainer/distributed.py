"""The processes of one run, as torchrun starts them, or one alone."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from data_manifests.errors import InputError


@dataclass(frozen=True)
class Ranks:
    """This process among its peers."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all ranks, on the device, without waiting for it on the host."""
        if self.count > 1:
            dist.all_reduce(value)
        return value


def join(device: str) -> Ranks:
    """Joins torchrun's process group: NCCL on GPUs, gloo on CPUs.

    Raises:
        InputError: a GPU is asked for and none is there.
    """
    rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "--device cuda", found="no GPU that torch can use", todo="use --device cpu, or install torch for CUDA"
        )
    if device == "cuda":
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(place)
    else:
        place = torch.device("cpu")
    if count > 1:
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    return Ranks(rank, count, place)


def leave() -> None:
    """Leaves the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
