"""Streams a rank's share of every global batch, in the run's order, from any step on."""

from __future__ import annotations

import atexit
import itertools
import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from data_manifests.errors import InputError
from data_manifests.layout import IGNORED
from trainer.data.batch import Batch
from trainer.data.cached import open_place
from trainer.data.order import sample_at
from trainer.data.reader import Sample, Store
from trainer.data.resample import resample
from trainer.place import Place

Resampled = tuple[np.ndarray, Sample]


class Loader:
    """Batches of one rank.

    A global batch is `global_batch` consecutive positions of the order; rank r of w takes the r-th of its w equal runs.

    Args:
        store: where it lies.
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
        store: Place,
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
        opened = open_place(store, split)
        if not opened.clips:
            raise InputError(
                f"the {split} videos of {store} have no clip",
                wanted=f"a tube of at least {opened.meta.K} frames",
                todo="build the store with other videos, or a shorter --clip-length",
            )
        self._order = _Order(global_batch, rank, ranks, start, parts)
        self._batches = DataLoader(
            _Views(opened, split, seed),
            batch_sampler=self._order,
            collate_fn=collate,
            generator=torch.Generator(),  # its own: reading leaves the run's random state alone
            num_workers=workers,
            pin_memory=pin,
            persistent_workers=workers > 0,
            multiprocessing_context="spawn" if workers else None,
            prefetch_factor=4 if workers else None,
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
                yield batch
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


class _Views(Dataset[Resampled | InputError]):
    """Position to a clip's resampled view. Each process opens the store for itself, and must find the same one."""

    def __init__(self, store: Store, split: str, seed: int) -> None:
        self.place, self.split, self.seed = store.place, split, seed
        self.digest = store.content_digest
        self._store: Store | None = store

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_store": None}

    def __getitem__(self, position: int) -> Resampled | InputError:
        try:
            store = self._store = self._store or self._open()
            place = sample_at(self.seed, position, store.clips, store.meta.views)
            sample = store.sample(place.clip, place.view)
        except InputError as error:  # carried home as a value: a worker's traceback helps nobody
            return error
        size = store.meta.image_size
        return resample(sample.frames, sample.rectangle, sample.mirrored, size), sample

    def _open(self) -> Store:
        store = open_place(self.place, self.split)
        if store.content_digest != self.digest:
            raise InputError(
                f"the store at {self.place} changed while it was opened",
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


def collate(resampled: Sequence[Resampled | InputError]) -> Batch | InputError:
    """A batch of views and their targets, or the first error among them."""
    views: list[Resampled] = []
    for item in resampled:
        if isinstance(item, InputError):
            return item
        views.append(item)
    samples = [sample for _, sample in views]
    counts = [int((sample.targets.label != IGNORED).sum()) for sample in samples]
    ignored = [len(sample.targets.label) - count for sample, count in zip(samples, counts, strict=True)]

    def positive(name: str, dtype: type) -> torch.Tensor:
        parts = [getattr(s.targets, name)[:n] for s, n in zip(samples, counts, strict=True)]
        return torch.from_numpy(np.concatenate(parts).astype(dtype))

    places = np.arange(len(samples))
    return Batch(
        frames=torch.from_numpy(np.stack([frames for frames, _ in views])),
        sample=torch.from_numpy(np.repeat(places, counts)),
        prior=positive("prior", np.int64),
        label=positive("label", np.int64),
        loc=positive("loc", np.float32),
        ignored_sample=torch.from_numpy(np.repeat(places, ignored)),
        ignored_prior=torch.from_numpy(
            np.concatenate([s.targets.prior[n:] for s, n in zip(samples, counts, strict=True)]).astype(np.int64)
        ),
        positives=tuple(counts),
        clips=tuple((s.video_id, s.first_frame, s.view) for s in samples),
    )
