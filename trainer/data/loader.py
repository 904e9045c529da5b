"""Streams a rank's share of every global batch, in the run's order, from any step on."""

from __future__ import annotations

import atexit
import itertools
import math
import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from data_manifests.errors import InputError
from data_manifests.layout import IGNORED
from trainer.data.batch import Batch
from trainer.data.order import sample_at
from trainer.data.reader import Store, Targets
from trainer.data.resample import resample

READ_AHEAD = 4
"""Batches that each worker has read before they are asked for."""


class Loader:
    """Batches of one rank.

    A global batch is `global_batch` consecutive positions of the order; rank r of w takes the r-th of its w equal runs.

    Args:
        store: path of the store.
        split: whose clips to stream.
        seed: of the order.
        global_batch: clips a step, over all ranks; a multiple of `ranks`.
        rank, ranks: which share.
        start: the first step.
        parts: batches that a rank's share comes in, one after another.
        workers: processes that read; 0 reads in this one.
        pin: whether batches lie in page-locked memory.
    """

    def __init__(
        self,
        store: Path,
        *,
        split: str,
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
        opened = Store.open(store, split)
        if not opened.clips:
            raise InputError(
                f"the {split} videos of {store} have no clip",
                wanted=f"a tube of at least {opened.meta.K} frames",
                todo="build the store with other videos, or a shorter --clip-length",
            )
        self._order = _Order(global_batch, rank, ranks, start, parts)
        self._batches = DataLoader(
            _Batches(opened, split, seed),
            sampler=self._order,
            batch_size=None,  # an item is a whole batch: its pixels are written where they travel
            generator=torch.Generator(),  # its own: reading leaves the run's random state alone
            num_workers=workers,
            pin_memory=pin,
            persistent_workers=workers > 0,
            multiprocessing_context="spawn" if workers else None,
            prefetch_factor=READ_AHEAD if workers else None,
            worker_init_fn=_start_worker,
        )

    def __iter__(self) -> Iterator[Batch]:
        """Endless.

        Raises:
            InputError: a sample cannot be read, naming it; also from a worker.
        """
        batches = iter(self._batches)
        try:
            while True:
                batch = next(batches)
                if isinstance(batch, InputError):
                    raise batch
                yield replace(batch, frames=batch.frames.clone()) if batch.frames.is_shared() else batch
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise InputError(
                "a process that reads the store died",
                found=str(error).splitlines()[0],
                todo="resume the run, with fewer --workers if memory or /dev/shm is short",
            ) from error
        finally:
            self._order.ended = True
            with suppress(RuntimeError):
                for _ in batches:  # workers that are ended while they hand over a batch abort, with a noise
                    pass


class _Order(Sampler[list[int]]):
    """Positions of a rank's share, step by step, in parts, until somebody sets `ended`."""

    def __init__(self, global_batch: int, rank: int, ranks: int, start: int, parts: int) -> None:
        self.global_batch, self.start = global_batch, start
        share = global_batch // ranks
        self.first, self.share, self.part = rank * share, share, share // parts
        self.ended = False

    def __iter__(self) -> Iterator[list[int]]:
        self.ended = False
        for step in itertools.count(self.start):
            begin = step * self.global_batch + self.first
            for at in range(begin, begin + self.share, self.part):
                if self.ended:
                    return
                yield list(range(at, at + self.part))


class _Batches(Dataset[Batch | InputError]):
    """Positions to a batch of views. Each process opens the store for itself, and must find the same one."""

    def __init__(self, store: Store, split: str, seed: int) -> None:
        self.path, self.split, self.seed = store.path, split, seed
        self.digest = store.content_digest
        self._store: Store | None = store
        self._slots: Iterator[torch.Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_store": None}

    def __getitem__(self, positions: list[int]) -> Batch | InputError:
        try:
            store = self._store = self._store or self._open()
            frames = self._pixels((len(positions), store.meta.K, store.meta.image_size, store.meta.image_size, 3))
            pairs = zip(positions, frames.numpy(), strict=True)
            clips, targets = zip(*(self._read(store, position, views) for position, views in pairs), strict=True)
        except InputError as error:  # carried home as a value: a worker's traceback helps nobody
            return error
        return _batch(frames, targets, clips)

    def _read(self, store: Store, position: int, views: np.ndarray) -> tuple[tuple[str, int, int], Targets]:
        """Writes one clip's pixels, and returns its name and targets: native frames are let go at once."""
        place = sample_at(self.seed, position, store.clips, store.meta.views)
        sample = store.sample(place.clip, place.view)
        resample(sample.frames, sample.rectangle, sample.mirrored, store.meta.image_size, into=views)
        return (sample.video_id, sample.first_frame, sample.view), sample.targets

    def _pixels(self, shape: tuple[int, ...]) -> UInt8[torch.Tensor, "clips K size size 3"]:
        """Memory for a batch's pixels.

        In a worker it is one of a few slots shared with the run, by turns: to get new shared memory for each batch takes
        a third of the time of reading it. A slot's turn comes when `READ_AHEAD` + 1 later batches were asked for, which
        is after its own was handed over: pinned, or copied by `Loader`.
        """
        if get_worker_info() is None:
            return torch.empty(shape, dtype=torch.uint8)
        if self._slots is None:
            self._slots = itertools.cycle([_shared(shape) for _ in range(READ_AHEAD + 2)])
        return next(self._slots)

    def _open(self) -> Store:
        store = Store.open(self.path, self.split)
        if store.content_digest != self.digest:
            raise InputError(
                f"the store at {self.path} changed while it was opened",
                todo="resume the run when its build is finished",
            )
        return store


def _start_worker(_: int) -> None:
    for sent_to_all in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C, a scheduler's stop: the run ends its workers itself
        signal.signal(sent_to_all, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


@atexit.register
def _end_workers() -> None:
    """Workers whose loader was not closed; multiprocessing would send the SIGTERM they ignore, and wait for ever."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler takes the end of a worker for a failure
    for process in multiprocessing.active_children():
        process.kill()


def _shared(shape: tuple[int, ...]) -> UInt8[torch.Tensor, "clips K size size 3"]:
    storage = torch.UntypedStorage._new_shared(math.prod(shape), device="cpu")
    return torch.empty(0, dtype=torch.uint8).set_(storage).reshape(shape)


def _batch(
    frames: UInt8[torch.Tensor, "clips K size size 3"],
    targets: tuple[Targets, ...],
    clips: tuple[tuple[str, int, int], ...],
) -> Batch:
    """A batch of these pixels with their targets; `clips` names them."""
    counts = [int((one.label != IGNORED).sum()) for one in targets]
    ignored = [len(one.label) - count for one, count in zip(targets, counts, strict=True)]

    def positive(name: str, dtype: type) -> torch.Tensor:
        parts = [getattr(one, name)[:count] for one, count in zip(targets, counts, strict=True)]
        return torch.from_numpy(np.concatenate(parts).astype(dtype))

    places = np.arange(len(clips))
    not_mined = np.concatenate([one.prior[count:] for one, count in zip(targets, counts, strict=True)])
    return Batch(
        frames=frames,
        sample=torch.from_numpy(np.repeat(places, counts)),
        prior=positive("prior", np.int64),
        label=positive("label", np.int64),
        loc=positive("loc", np.float32),
        ignored_sample=torch.from_numpy(np.repeat(places, ignored)),
        ignored_prior=torch.from_numpy(not_mined.astype(np.int64)),
        positives=tuple(counts),
        clips=clips,
    )
