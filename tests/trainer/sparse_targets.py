"""Targets and batches of noise, for tests of what the network learns from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.data.batch import Batch


def sparse_targets(
    positives: Sequence[int], *, ignored: int = 0, priors: int = 300, K: int = 2, classes: int = 3, seed: int = 0
) -> dict[str, Tensor]:
    """Rows for `tubelet_loss`: `positives[b]` matched and `ignored` ignored priors of each clip."""
    random = torch.Generator().manual_seed(seed)
    chosen = [torch.randperm(priors, generator=random)[: count + ignored] for count in positives]
    places = torch.arange(len(positives))
    rows = sum(positives)
    return {
        "sample": torch.repeat_interleave(places, torch.tensor(positives)),
        "prior": torch.cat([c[:n].sort().values for c, n in zip(chosen, positives, strict=True)]),
        "label": torch.randint(1, classes + 1, (rows,), generator=random),
        "target": torch.randn(rows, K, 4, generator=random),
        "ignored_sample": torch.repeat_interleave(places, ignored),
        "ignored_prior": torch.cat([c[n:].sort().values for c, n in zip(chosen, positives, strict=True)]),
    }


def noise_batch(positives: Sequence[int], *, K: int = 2, classes: int = 2, seed: int = 0) -> Batch:
    """A batch of noise for a network of 8396 priors."""
    rows = sparse_targets(positives, ignored=3, priors=8396, K=K, classes=classes, seed=seed)
    random = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (len(positives), K, 300, 300, 3), generator=random, dtype=torch.uint8)
    clips = tuple((f"Noise/v_{b}", b, 1) for b in range(len(positives)))
    cover = torch.ones(len(positives), 2, 300)
    return Batch(frames=frames, cover=cover, loc=rows.pop("target"), positives=tuple(positives), clips=clips, **rows)
