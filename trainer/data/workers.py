"""Processes that read batches ahead, straight into memory that they share with this one."""

from __future__ import annotations

import atexit
import itertools
import multiprocessing
import signal
import weakref
from collections import deque
from collections.abc import Generator
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from data_manifests.errors import InputError
from data_manifests.signals import held_back
from trainer.data.worker import Read, SharedPixels, T, work

READ_AHEAD = 4
"""Batches that each worker has read before they are asked for."""
_SENT_TO_ALL = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, a scheduler's stop: the run ends its workers itself. Held back from birth."""


def read_ahead(
    read: Read[T], shape: tuple[int, ...], *, workers: int, lent: int
) -> Generator[tuple[UInt8[Tensor, "..."], T]]:
    """Batches 0, 1, 2, … as `read` gives them. Batch n is read by worker n mod `workers`.

    The memory of all batches is shared, and allocated once. A batch is handed out where it was written; its memory is
    written again when nobody holds the tensor, a view of it or its storage any more.

    Args:
        read: called in a worker with a batch's number and where to write its pixels; returns what else belongs to it.
            It travels there by pickle.
        shape: of a batch's pixels.
        workers: how many processes; they start with the first batch, and end when the generator or this process does.
        lent: batches that may be held outside; whoever holds more is given copies.

    Raises:
        InputError: from `read`; or a worker died, or the shared memory is too small.
    """
    slots = workers * READ_AHEAD + lent
    pixels, free, placed = SharedPixels.allocate((slots, *shape)), deque(range(slots)), deque[int]()
    team = _Team(read, pixels, workers)
    try:
        for number in itertools.count():
            while free:
                slot = free.popleft()
                team.ask(number + len(placed), slot)
                placed.append(slot)
            answer = team.answer(number)
            slot = placed.popleft()
            frames = pixels.array[slot]
            if slots - len(placed) - len(free) <= lent:
                weakref.finalize(frames, free.append, slot).atexit = False
            else:
                frames = frames.copy()
                free.append(slot)
            yield torch.from_numpy(frames), answer
            del frames
    finally:
        team.end()


class _Team:
    """The workers, each with a pipe: slots to fill go out, what belongs to their pixels comes back."""

    def __init__(self, read: Read[Any], pixels: SharedPixels, count: int) -> None:
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []
        spawn = multiprocessing.get_context("spawn")
        resource_tracker.ensure_running()  # starting it unblocks the signals
        atexit.register(self.end)  # before multiprocessing's own, which would send SIGTERM and wait for ever
        try:
            with held_back(*_SENT_TO_ALL):
                for first in range(count):
                    ours, theirs = spawn.Pipe()
                    self._pipes.append(ours)
                    with theirs:
                        process = spawn.Process(target=work, args=(theirs, read, pixels, first, count), daemon=True)
                        process.start()
                    self._processes.append(process)
        except BaseException:  # a signal that came meanwhile, too
            self.end()
            raise
        finally:
            pixels.close()

    def ask(self, number: int, slot: int) -> None:
        """For a batch, to be written into a slot."""
        with suppress(ConnectionError):  # its worker died: `answer` tells
            self._pipes[number % len(self._pipes)].send(slot)

    def answer(self, number: int) -> Any:
        """What `read` returned for a batch; waits for it."""
        worker = number % len(self._pipes)
        try:
            answer = self._pipes[worker].recv()
        except (EOFError, OSError) as error:
            self._processes[worker].join()
            code = self._processes[worker].exitcode or 0
            raise InputError(
                "a process that reads the store died",
                found=f"exit code {code}" if code >= 0 else signal.Signals(-code).name,
                todo="see its message above"
                if code >= 0
                else "resume the run, with fewer --workers if memory is short",
            ) from error
        if isinstance(answer, InputError):
            raise answer
        return answer

    def end(self) -> None:
        """Ends the workers at once: they hold nothing that could be lost."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for pipe in self._pipes:
            pipe.close()
        atexit.unregister(self.end)
