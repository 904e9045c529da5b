"""How many videos, windows, clips and (clip, tube) pairs a planned split has, and what the ACT rule rejects of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from data_manifests.layout import Settings
from pipeline.clips import ClipIndex, covered_windows, covers, tubes_by_video

_OF_CLASS = ("videos", "tubes", "clips", "pairs", "clips_ge2")


def count_split(videos: pa.Table, tubes: pa.Table, clips: ClipIndex, settings: Settings, split: str) -> dict[str, Any]:
    """The counts of a split, in all and by class.

    A class has the videos with a tube of it, the clips that such a tube covers, and of these, as `clips_ge2`, those that
    two tubes or more of any class cover; a video of two classes counts for both.

    Args:
        videos, tubes: schemas in `data_manifests.tables`; there may be tubes of other videos.
        clips: the index of all videos' clips.
    """
    K, stride, classes = settings.K, settings.stride, settings.classes
    rows = np.flatnonzero(videos["split"].to_numpy(zero_copy_only=False) == split).tolist()
    frames, tubes_of = videos["frames"].to_numpy(), tubes_by_video(videos, tubes)
    begin, end = (np.searchsorted(clips.video, rows, side) for side in ("left", "right"))
    of_class = {name: dict.fromkeys(_OF_CLASS, 0) for name in classes}
    windows, covered, covered_pairs, short = 0, 0, 0, 0
    in_split, pairs, crowded = 0, 0, 0
    for place, row in enumerate(rows):
        label, first, length = tubes_of[row]
        windows += max(0, (int(frames[row]) - K) // stride + 1)
        covered_here, pairs_here = covered_windows(int(frames[row]), first, length, K, stride)
        covered, covered_pairs = covered + covered_here, covered_pairs + pairs_here
        short += int((length < K).sum())
        inside = covers(clips.first_frame[begin[place] : end[place]], first, length, K)
        many = inside.sum(0) >= 2
        in_split, pairs, crowded = in_split + inside.shape[1], pairs + int(inside.sum()), crowded + int(many.sum())
        for one in np.unique(label):
            of_it = inside[label == one]
            shown = of_it.any(0)
            counted = (1, len(of_it), int(shown.sum()), int(of_it.sum()), int((shown & many).sum()))
            count = of_class[classes[one]]
            for name, value in zip(_OF_CLASS, counted, strict=True):
                count[name] += value
    return {
        "videos": len(rows),
        "windows": windows,
        "clips": in_split,
        "pairs": pairs,
        "clips_with_2_or_more_gt": crowded,
        "rejected_half_covered": covered - in_split,
        "pairs_in_rejected": covered_pairs - pairs,
        "every_window_of_every_tube": covered_pairs,
        "clips_without_in_out_rule": covered,
        "tubes_shorter_than_K": short,
        "per_class": of_class,
    }
