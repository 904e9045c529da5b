"""What a training step gets: frames, and targets as sparse rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from trainer.data.rows import Rows


@dataclass(frozen=True)
class Batch:
    """B clips, each seen through one view.

    Args:
        frames: RGB, resampled to the network's input size.
        cover: how much of each row, and of each column, is of the frame; the rest is the mean (`trainer.data.resample`).
        sample: which clip of the batch each positive belongs to; rows ascend by (sample, prior).
        prior: the positive's prior.
        label: its class + 1.
        loc: its encoded offsets.
        ignored_sample, ignored_prior: priors that must not be mined as negatives.
        positives: positives of each clip; known to the host, so that no one must ask the device.
        clips: (video_id, first frame, view) of each clip, for messages.
    """

    frames: UInt8[Tensor, "B K size size 3"]
    cover: Float32[Tensor, "B 2 size"]
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
