"""A store that lies in memory: made of noise, for tests of what reads a store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from data_manifests.layout import Settings
from data_manifests.prior_spec import ACT300
from data_manifests.priors import make_priors
from data_manifests.tables import TUBES, VIDEOS
from trainer.data.reader import Store


class MemoryStore(Store):
    """Videos of noise of the given lengths; each has one tube a class in `labels`, over its whole length.

    Args:
        frames: of each video.
        labels: of each video's tubes.
    """

    def __init__(self, frames: Sequence[int], labels: Sequence[Sequence[int]], *, classes: int = 2, K: int = 2) -> None:
        self.meta = Settings(
            dataset="noise",
            title="Noise",
            classes=tuple(f"Class{i}" for i in range(classes)),
            mirrored=tuple(range(classes)),
            K=K,
            stride=1,
            views=0,
            seed=0,
            positive_overlap=0.5,
            negative_overlap=0.5,
            variances=(0.1, 0.1, 0.2, 0.2),
            frames="raw",
            max_side=None,
            priors=ACT300,
        )
        self.priors = make_priors(ACT300)
        names = [f"Noise/v_{i:02d}" for i in range(len(frames))]
        self.videos = pa.Table.from_pylist(
            [
                {"video_id": name, "split": "test", "frames": n, "width": 64, "height": 48, "path": ""}
                for name, n in zip(names, frames, strict=True)
            ],
            VIDEOS,
        )
        tubes = [(name, i, label) for name, mine in zip(names, labels, strict=True) for i, label in enumerate(mine)]
        length = dict(zip(names, frames, strict=True))
        box = np.array([8, 6, 40, 36], np.float32)
        self.tubes = pa.table(
            [
                [name for name, _, _ in tubes],
                pa.array([i for _, i, _ in tubes], pa.int32()),
                pa.array([label for _, _, label in tubes], pa.int32()),
                pa.array([0] * len(tubes), pa.int32()),
                pa.array(
                    [np.tile(box + np.float32(4 * i), (length[name], 1)).tolist() for name, i, _ in tubes],
                    TUBES.field("boxes").type,
                ),
            ],
            schema=TUBES,
        )
        self.content_digest = f"noise of {list(frames)} {labels}"

    def frames(self, video_id: str, start: int, stop: int) -> np.ndarray:
        """Noise, the same each time."""
        return np.random.default_rng(int(video_id[-2:])).integers(0, 256, (64, 48, 64, 3), np.uint8)[start:stop]
