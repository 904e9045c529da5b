"""A batch's targets, as a loader's worker sends them home. Without torch, as `trainer.data.worker` is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from data_manifests.layout import IGNORED
from trainer.data.reader import Targets


class Rows(NamedTuple):
    """A batch without its pixels: small, and quick to send from one process to another. Fields as in `trainer.data.batch.Batch`."""

    cover: Float32[np.ndarray, "B 2 size"]
    sample: Int64[np.ndarray, " M"]
    prior: Int64[np.ndarray, " M"]
    label: Int64[np.ndarray, " M"]
    loc: Float32[np.ndarray, "M K 4"]
    ignored_sample: Int64[np.ndarray, " I"]
    ignored_prior: Int64[np.ndarray, " I"]
    positives: tuple[int, ...]
    clips: tuple[tuple[str, int, int], ...]


def collate(
    covers: Sequence[Float32[np.ndarray, "2 size"]], targets: Sequence[Targets], clips: Sequence[tuple[str, int, int]]
) -> Rows:
    """The rows of a batch of clips with these covers, targets and names."""
    counts = [int((one.label != IGNORED).sum()) for one in targets]
    ignored = [len(one.label) - count for one, count in zip(targets, counts, strict=True)]

    def positive(name: str, dtype: type) -> np.ndarray:
        parts = [getattr(one, name)[:count] for one, count in zip(targets, counts, strict=True)]
        return np.concatenate(parts).astype(dtype)

    places = np.arange(len(targets))
    not_mined = np.concatenate([one.prior[count:] for one, count in zip(targets, counts, strict=True)])
    return Rows(
        cover=np.stack(covers),
        sample=np.repeat(places, counts),
        prior=positive("prior", np.int64),
        label=positive("label", np.int64),
        loc=positive("loc", np.float32),
        ignored_sample=np.repeat(places, ignored),
        ignored_prior=not_mined.astype(np.int64),
        positives=tuple(counts),
        clips=tuple(clips),
    )
