"""Streams a rank's share of every global batch, in the run's order, from any step on."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from contextlib import closing

import torch
from jaxtyping import UInt8
from torch import Tensor

from data_manifests.errors import InputError
from trainer.data.batch import Batch
from trainer.data.reader import Store
from trainer.data.rows import Rows
from trainer.data.share import Share, Views
from trainer.data.workers import read_ahead


class Loader:
    """Batches of one rank.

    A global batch is `global_batch` consecutive positions of the order; rank r of w takes the r-th of its w equal runs.

    Args:
        store: the open split whose clips to stream.
        seed: of the order.
        global_batch: clips a step, over all ranks; a multiple of `ranks`.
        rank, ranks: which share.
        start: the first step.
        parts: batches that a rank's share comes in, one after another.
        workers: processes that read; 0 reads in this one.
        pin: whether batches are copied into page-locked memory.
    """

    def __init__(
        self,
        store: Store,
        *,
        seed: int,
        global_batch: int,
        rank: int = 0,
        ranks: int = 1,
        start: int = 0,
        parts: int = 1,
        workers: int = 0,
        pin: bool = False,
    ) -> None:
        if global_batch % (ranks * parts):
            raise InputError(
                f"a batch of {global_batch} clips on {ranks} ranks in {parts} parts",
                wanted="a multiple of ranks times parts",
                todo="change --batch, --accumulate or the number of processes",
            )
        if not store.clips:
            raise InputError(
                f"{f'the {store.split} videos' if store.split else 'the videos'} of {store.place} have no clip",
                wanted=f"a tube of at least {store.meta.K} frames",
                todo="build the store with other videos, or a shorter --clip-length",
            )
        self._share = Share(global_batch, rank, ranks, start, parts)
        self._views = Views(store, seed, self._share)
        self._shape = (self._share.size, store.meta.K, store.meta.image_size, store.meta.image_size, 3)
        self._workers, self._pin = workers, pin

    def __iter__(self) -> Generator[Batch]:
        """Endless. A batch's pixels stay as they are for as long as anybody holds them.

        Raises:
            InputError: a sample cannot be read, naming it; also from a worker.
        """
        batches = self._from_workers() if self._workers else self._read_here()
        with closing(batches):
            for frames, rows in batches:
                batch = Batch.of(frames, rows)
                yield batch.pin_memory() if self._pin else batch

    def _read_here(self) -> Generator[tuple[UInt8[Tensor, "B K size size 3"], Rows]]:
        for number in itertools.count():
            frames = torch.empty(self._shape, dtype=torch.uint8)
            yield frames, self._views.read(number, frames.numpy())

    def _from_workers(self) -> Generator[tuple[UInt8[Tensor, "B K size size 3"], Rows]]:
        return read_ahead(self._views.read, self._shape, workers=self._workers, lent=2 * self._share.parts)
