"""The processes of one run, as torchrun starts them, or one alone."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from data_manifests.errors import BAD_INPUT, InputError

_FAILURE = "tubelets/failure"
_PATIENCE = 5.0
"""Seconds that a rank has for ending by itself once another one failed."""


PATIENCE = timedelta(days=7)
"""Of a gloo collective, whose peer may have hours of a video left; as it is it loses it after 30 minutes."""


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
        """The sum over all ranks, in place, on the device, without waiting for it on the host."""
        if self.count > 1:
            dist.all_reduce(value)
        return value

    def share(self, values: Iterable[Tensor]) -> None:
        """Gives all ranks the first one's values, in place."""
        if self.count > 1:
            for value in values:
                dist.broadcast(value, src=0)

    def agree(self, what: str, value: object) -> bool:
        """Whether it reads the same on all ranks; asked once of each `what`.

        Waits for them as long as they take, as no collective of NCCL does: a rank may have hours of a store to fetch before.
        """
        if self.count == 1:
            return True
        return len(set(exchange(what, self.rank, self.count, f"{value}"))) == 1


def exchange(what: str, rank: int, count: int, value: str) -> list[bytes]:
    """What each of `count` ranks says, through the store of the process group: used once of each `what`.

    It waits as long as they take. NCCL's collectives lose their patience after 10 minutes.
    """
    store = dist.distributed_c10d._get_default_store()
    store.set(f"tubelets/{what}/{rank}", value)
    answers = [f"tubelets/{what}/{other}" for other in range(count)]
    while not store.check(answers):  # not store.wait: it would keep the failure of a rank from `together`
        time.sleep(0.1)
    return [store.get(answer) for answer in answers]


def join(device: str, backend: str = "") -> Ranks:
    """Joins torchrun's process group.

    Args:
        backend: by default NCCL on GPUs, gloo on CPUs.

    Raises:
        InputError: as `device_of`.
    """
    rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    place = device_of(device)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    backend = backend or ("nccl" if place.type == "cuda" else "gloo")
    if count > 1:
        # told its GPU, NCCL connects here and not in the middle of the first step, and need not guess it in a barrier
        on_gpu = backend == "nccl"
        dist.init_process_group(backend, device_id=place if on_gpu else None, timeout=None if on_gpu else PATIENCE)
    return Ranks(rank, count, place)


def device_of(name: str) -> torch.device:
    """The device of this process by the name that a command was given: auto, cpu or cuda.

    Raises:
        InputError: a GPU is asked for and none is there, or this machine has more processes than GPUs.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise InputError(
            "--device cuda", found="no GPU that torch can use", todo="use --device cpu, or install torch for CUDA"
        )
    if name == "cpu" or not there:
        return torch.device("cpu")
    place, count = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if place >= count:
        raise InputError(
            f"no GPU is left for process {place + 1} of this machine",
            found=f"{count} GPU{'s' * (count > 1)} that torch can use",
            todo=f"torchrun --nproc-per-node {count}, or --device cpu",
        )
    return torch.device("cuda", place)


def leave() -> None:
    """Leaves the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def together(ranks: Ranks) -> Iterator[None]:
    """All ranks or none: one that fails tells the others why, and each stops with that message within seconds.

    The others may be inside a collective that can no longer end. With gloo it breaks when the peer's connection
    closes; with NCCL nothing breaks, so a thread listens and ends the process: also when the store is gone, with the
    machine that held it.

    Raises:
        InputError: another rank failed, saying which and why.
    """
    if ranks.count == 1:
        yield
        return
    store = dist.distributed_c10d._get_default_store()
    over = threading.Event()
    listener = threading.Thread(target=_listen, args=(store, over), daemon=True)
    listener.start()
    try:
        yield
    except BaseException as error:
        over.set()
        reason = _reason(store) if type(error) is RuntimeError or isinstance(error, dist.DistError) else ""
        if reason:
            raise _stopped(reason) from None
        if isinstance(error, dist.DistError) or any(gone in str(error) for gone in _PEER_GONE):
            raise _gone(error) from None
        text = str(error).replace("\n", "; ")
        with suppress(dist.DistError):
            store.set(_FAILURE, f"rank {ranks.rank}: {text or type(error).__name__}")
        raise
    finally:
        over.set()


_PEER_GONE = "Connection closed by peer", "Connection reset by peer"
"""What gloo says of a peer that died: the second one if it was about to be sent, or sent, something."""


def _stopped(reason: str) -> InputError:
    return InputError("another process of this run stopped", found=reason, todo="see its message")


def _gone(error: BaseException) -> InputError:
    return InputError(
        "another process of this run is gone, without a word",
        found=str(error).splitlines()[0],
        todo="see whether it was killed, for memory perhaps; then give the same command again (training: with --resume)",
    )


def _reason(store: dist.Store) -> str:
    try:
        return _failure(store, _PATIENCE)
    except dist.DistError:  # the store is gone with the process that held it
        return ""


def _failure(store: dist.Store, patience: float) -> str:
    """What the rank that failed first said; empty if none has within `patience` seconds."""
    end = time.monotonic() + patience
    while True:
        if store.check([_FAILURE]):
            return store.get(_FAILURE).decode()
        if time.monotonic() > end:
            return ""
        time.sleep(0.1)


def _listen(store: dist.Store, over: threading.Event) -> None:
    while not over.wait(1.0):
        try:
            reason = _failure(store, 0.0)
            error = _stopped(reason) if reason else None
        except RuntimeError as fault:  # the store is gone with the process that held it
            error = _gone(fault)
        if error and not over.wait(_PATIENCE):
            print(f"error: {error}", file=sys.stderr, flush=True)
            os._exit(BAD_INPUT)
