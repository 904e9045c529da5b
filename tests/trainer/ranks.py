"""Processes that run the trainer, as `python -m` and torchrun would start them.

They are forked from a server that has imported everything, so that a test pays for that once. No hook checks types there.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import torch
import torch._dynamo  # optimisers and DistributedDataParallel import it at their first use: 2 s of each rank

import trainer.run
import trainer.step
import trainer.training
from tests.trainer.sparse_targets import sparse_targets
from trainer.loss import tubelet_loss


class Ended(NamedTuple):
    """How a rank ended, and what it said."""

    code: int | None
    out: str
    err: str


def start(world: int, work: Callable[..., None], *arguments: object) -> list[tuple[BaseProcess, Connection]]:
    """Starts `work(rank, tell, *arguments)` on `world` ranks; what a rank sends to `tell` arrives at its connection."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "tests.trainer.evaluation_ranks"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = []
    for rank in range(world):
        told, tell = context.Pipe(duplex=False)
        process = context.Process(target=_rank, args=(rank, world, port, work, tell, *arguments))
        process.start()
        tell.close()
        ranks.append((process, told))
    return ranks


def _rank(rank: int, world: int, port: int, work: Callable[..., None], tell: Connection, *arguments: object) -> None:
    if world > 1:
        os.environ |= {
            "RANK": f"{rank}",
            "WORLD_SIZE": f"{world}",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": f"{port}",
        }
        torch.set_num_threads(1)  # as torchrun does
    work(rank, tell, *arguments)


def train(
    rank: int, tell: Connection, options: Sequence[str], said: Path, before: Callable[[int], None] | None = None
) -> None:
    """`trainer.run` with these options, after `before(rank)`. What it says goes to files in `said`."""
    for name, descriptor in (("out", 1), ("err", 2)):
        with open(said / f"{rank}.{name}", "w") as file:
            os.dup2(file.fileno(), descriptor)
    sys.argv = ["run", *options]
    if before is not None:
        before(rank)
    trainer.run.main()


def trained(world: int, options: Sequence[str], said: Path, before: Callable[[int], None] | None = None) -> list[Ended]:
    """Runs `train` on `world` ranks to the end of each; nobody ends a rank but itself."""
    said.mkdir()
    processes = [process for process, _ in start(world, train, options, said, before)]
    for process in processes:
        process.join(100)
    return [
        Ended(process.exitcode, *((said / f"{rank}.{name}").read_text() for name in ("out", "err")))
        for rank, process in enumerate(processes)
    ]


def lead_a_group(rank: int) -> None:
    """A signal to the rank's group reaches its loader's workers too, and nobody else."""
    os.setsid()


def spoil(rank: int) -> None:
    """The loss of rank 1 is not finite at step 2."""
    real, calls = trainer.step.tubelet_loss, iter(range(100))

    def spoilt(*args: object, **kwargs: object) -> object:
        losses = real(*args, **kwargs)
        at_fault = rank == 1 and next(calls) == 2
        return losses._replace(total=losses.total * float("nan")) if at_fault else losses

    trainer.step.tubelet_loss = spoilt


def compile_to_one_graph(rank: int) -> None:
    """What is compiled from here on must be one graph without data-dependent shapes; no code is made of it.

    The loss, compiled by itself, is what it is otherwise.
    """
    torch._dynamo.config.capture_scalar_outputs = False
    torch._dynamo.config.capture_dynamic_output_shape_ops = False
    torch.compile = functools.partial(torch.compile, backend="aot_eager", fullgraph=True)
    loc, conf = torch.randn(2, 300, 2, 4, requires_grad=True), torch.randn(2, 300, 4, requires_grad=True)
    given = dict(sparse_targets((4, 9), ignored=2), positives=(4, 9), normaliser=torch.tensor(13.0))
    loss = torch.compile(tubelet_loss)(loc, conf, **given).total
    loss.backward()
    torch.testing.assert_close(loss, tubelet_loss(loc, conf, **given).total)
