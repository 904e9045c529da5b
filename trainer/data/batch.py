"""What a training step gets: frames, and targets as sparse rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from data_manifests.layout import IGNORED
from trainer.data.reader import Targets


class Rows(NamedTuple):
    """A batch without its pixels: small, and quick to send from one process to another. Fields as in `Batch`."""

    sample: Int64[np.ndarray, " M"]
    prior: Int64[np.ndarray, " M"]
    label: Int64[np.ndarray, " M"]
    loc: Float32[np.ndarray, "M K 4"]
    ignored_sample: Int64[np.ndarray, " I"]
    ignored_prior: Int64[np.ndarray, " I"]
    positives: tuple[int, ...]
    clips: tuple[tuple[str, int, int], ...]


def collate(targets: Sequence[Targets], clips: Sequence[tuple[str, int, int]]) -> Rows:
    """The rows of a batch of clips with these targets and names."""
    counts = [int((one.label != IGNORED).sum()) for one in targets]
    ignored = [len(one.label) - count for one, count in zip(targets, counts, strict=True)]

    def positive(name: str, dtype: type) -> np.ndarray:
        parts = [getattr(one, name)[:count] for one, count in zip(targets, counts, strict=True)]
        return np.concatenate(parts).astype(dtype)

    places = np.arange(len(targets))
    not_mined = np.concatenate([one.prior[count:] for one, count in zip(targets, counts, strict=True)])
    return Rows(
        sample=np.repeat(places, counts),
        prior=positive("prior", np.int64),
        label=positive("label", np.int64),
        loc=positive("loc", np.float32),
        ignored_sample=np.repeat(places, ignored),
        ignored_prior=not_mined.astype(np.int64),
        positives=tuple(counts),
        clips=tuple(clips),
    )


@dataclass(frozen=True)
class Batch:
    """B clips, each seen through one view.

    Args:
        frames: RGB, resampled to the network's input size.
        sample: which clip of the batch each positive belongs to; rows ascend by (sample, prior).
        prior: the positive's prior.
        label: its class + 1.
        loc: its encoded offsets.
        ignored_sample, ignored_prior: priors that must not be mined as negatives.
        positives: positives of each clip; known to the host, so that no one must ask the device.
        clips: (video_id, first frame, view) of each clip, for messages.
    """

    frames: UInt8[Tensor, "B K size size 3"]
    sample: Int64[Tensor, " M"]
    prior: Int64[Tensor, " M"]
    label: Int64[Tensor, " M"]
    loc: Float32[Tensor, "M K 4"]
    ignored_sample: Int64[Tensor, " I"]
    ignored_prior: Int64[Tensor, " I"]
    positives: tuple[int, ...]
    clips: tuple[tuple[str, int, int], ...]

    @classmethod
    def of(cls, frames: UInt8[Tensor, "B K size size 3"], rows: Rows) -> Batch:
        """A batch of these pixels and rows; it shares their memory."""
        values: Iterable[Any] = (torch.from_numpy(v) if isinstance(v, np.ndarray) else v for v in rows)
        return cls(frames, *values)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device, copied without waiting when its memory is pinned."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch, copied into page-locked memory."""
        return self._map(Tensor.pin_memory)

    def _map(self, change) -> Batch:  # type: ignore[no-untyped-def]
        values = (getattr(self, field.name) for field in fields(self))
        return Batch(*(change(value) if isinstance(value, Tensor) else value for value in values))
