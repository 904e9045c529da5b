"""A rank's share of the order: which clips its batches hold, and how they are read, in whatever process. Without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from data_manifests.errors import InputError
from trainer.data.cached import open_place
from trainer.data.order import sample_at
from trainer.data.reader import Store
from trainer.data.resample import cover, resample
from trainer.data.rows import Rows, collate


@dataclass(frozen=True)
class Share:
    """Which positions of the order a rank's batches hold.

    Args:
        global_batch: positions a step, over all ranks.
        rank, ranks: rank r of w takes the r-th of the step's w equal runs.
        start: the first step.
        parts: batches that a rank's share of a step comes in, one after another.
    """

    global_batch: int
    rank: int
    ranks: int
    start: int
    parts: int

    @property
    def size(self) -> int:
        """Clips of a batch."""
        return self.global_batch // (self.ranks * self.parts)

    def positions(self, number: int) -> range:
        """Of the batch of this number, counted from `start` on."""
        step, part = divmod(number, self.parts)
        first = (self.start + step) * self.global_batch + (self.rank * self.parts + part) * self.size
        return range(first, first + self.size)


class Views:
    """Reads a share's batches. Each process opens the store for itself, and must find the same one."""

    def __init__(self, store: Store, seed: int, share: Share) -> None:
        self.place, self.split, self.seed, self.share = store.place, store.split, seed, share
        self.digest = store.content_digest
        self._store: Store | None = store

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_store": None}

    def read(self, number: int, pixels: UInt8[np.ndarray, "B K size size 3"]) -> Rows:
        """Writes the pixels of a batch, counted from the share's first, and returns the rest of it.

        Raises:
            InputError: a sample cannot be read, naming it; or the store is another by now.
        """
        store = self._store = self._store or self._open()
        covers, targets, clips = [], [], []
        for position, views in zip(self.share.positions(number), pixels, strict=True):
            place = sample_at(self.seed, position, store.clips, store.meta.views)
            sample = store.sample(place.clip, place.view)
            size = store.meta.image_size
            resample(sample.frames, sample.rectangle, sample.mirrored, size, into=views)
            covers.append(cover(sample.rectangle, sample.mirrored, sample.frames.shape[1:3], size))
            targets.append(sample.targets)
            clips.append((sample.video_id, sample.first_frame, sample.view))
        return collate(covers, targets, clips)

    def _open(self) -> Store:
        store = open_place(self.place, self.split)
        if store.content_digest != self.digest:
            raise InputError(
                f"the store at {self.place} changed while it was opened",
                todo="resume the run when its build is finished",
            )
        return store
