"""A network and a video's frames in, the video's tubelets out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise, repeat

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from data_manifests.errors import InputError
from trainer.detection.clip_output import ACT_RULE, DetectionRule, candidates, class_detections, to_pixels
from trainer.detection.decode import class_scores, decode
from trainer.detection.tubelets import VideoTubelets
from trainer.detection.windows import sliding_heads
from trainer.model import ActNet


@dataclass(frozen=True)
class ClipTubelets:
    """One clip's class tubelets (label 0-based) and any-class tubelets, boxes in pixels."""

    class_label: np.ndarray
    class_score: np.ndarray
    class_boxes: np.ndarray
    any_scores: np.ndarray
    any_boxes: np.ndarray


def clip_tubelets(
    boxes: Float32[np.ndarray, "P K 4"],
    scores: Float32[np.ndarray, "P labels"],
    width: int,
    height: int,
    rule: DetectionRule = ACT_RULE,
) -> ClipTubelets:
    """What ACT keeps of one clip: class NMS on normalised boxes, then any-class NMS in pixels (ACT.py,
    `extract_tubelets`).
    """
    rows, labels, values = class_detections(boxes, scores, rule)
    pixels = to_pixels(boxes, width, height)
    best = candidates(pixels, scores, rule)
    return ClipTubelets(labels - np.int16(1), values, pixels[rows], scores[best], pixels[best])


class NotFinite(InputError):
    """A network gave NaN or infinity: its training diverged."""


@dataclass(frozen=True)
class Detector:
    """A network with the priors and variances that it was trained on.

    Args:
        model: in evaluation mode, on `device`.
        priors: (P, 4) in [0, 1], the store's.
        amp: the network computes in bfloat16 where autocast would; boxes and scores are float32 all the same.
    """

    model: ActNet
    priors: Tensor
    variances: tuple[float, float, float, float]
    device: torch.device
    rule: DetectionRule = ACT_RULE
    amp: bool = False

    def clips(
        self, blocks: Iterable[UInt8[np.ndarray, "_ size size 3"]], width: int, height: int, name: str
    ) -> Iterator[ClipTubelets]:
        """The tubelets of each clip of a video of width x height pixels, as its frames come, in order.

        Raises:
            NotFinite: the network's output is not; names `name` and the clip.
        """
        priors = self.priors.to(self.device)
        first = 0
        waiting: Iterator[ClipTubelets] = iter(())  # chosen in threads while the next clips pass the network
        on_device = (torch.from_numpy(block).to(self.device) for block in blocks)
        with ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as pool:
            for loc, conf in sliding_heads(self.model, on_device, amp=self.amp):
                boxes = decode(loc.float(), priors, self.variances).cpu().numpy()
                scores = class_scores(conf.float()).cpu().numpy()
                broken = ~(np.isfinite(boxes).all((1, 2, 3)) & np.isfinite(scores).all((1, 2)))
                if broken.any():
                    raise NotFinite(
                        f"the network's output for {name}, clip {first + int(np.argmax(broken))}, is not finite",
                        found="NaN or infinity among its boxes or scores",
                        todo="evaluate an earlier checkpoint: this training has diverged",
                    )
                coming = pool.map(clip_tubelets, boxes, scores, repeat(width), repeat(height), repeat(self.rule))
                yield from waiting
                waiting = coming
                first += len(boxes)
            yield from waiting

    def video(
        self, blocks: Iterable[UInt8[np.ndarray, "_ size size 3"]], frames: int, width: int, height: int, name: str
    ) -> VideoTubelets:
        """All tubelets of one video; none for a video shorter than K."""
        K, labels = self.model.K, self.model.classes + 1
        clips = list(self.clips(blocks, width, height, name))
        return VideoTubelets(
            frames,
            _bounds([len(clip.class_label) for clip in clips]),
            np.concatenate([clip.class_label for clip in clips] or [np.empty(0, np.int16)]),
            np.concatenate([clip.class_score for clip in clips] or [np.empty(0, np.float32)]),
            np.concatenate([clip.class_boxes for clip in clips] or [np.empty((0, K, 4), np.float32)]),
            _bounds([len(clip.any_scores) for clip in clips]),
            np.concatenate([clip.any_scores for clip in clips] or [np.empty((0, labels), np.float32)]),
            np.concatenate([clip.any_boxes for clip in clips] or [np.empty((0, K, 4), np.float32)]),
        )


def _bounds(counts: list[int]) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64))).astype(np.int64)


def blocks_of(
    read: Callable[[int, int], UInt8[np.ndarray, "_ size size 3"]], frames: int, *, block: int = 16
) -> Iterator[UInt8[np.ndarray, "_ size size 3"]]:
    """A video's frames as blocks, the next one being read (by `read(start, stop)`, in a thread) while this one is
    used.
    """
    edges = [*range(0, frames, block), frames]
    with ThreadPoolExecutor(1) as reader:
        waiting = None
        for start, stop in pairwise(edges):
            coming = reader.submit(read, start, stop)
            if waiting is not None:
                yield waiting.result()
            waiting = coming
        if waiting is not None:
            yield waiting.result()
