"""The corrected UCF101-24 annotations read plainly, one number at a time, from files that are trusted."""

import pickle
from pathlib import Path


def plain_tubes(path: Path) -> dict[str, list[tuple[int, int, list[tuple[int, int, int, int]]]]]:
    """For each video its tubes: label, first frame, and x1 y1 x2 y2 a frame, 0-based edges, in Python integers."""
    with open(path, "rb") as file:
        videos = pickle.load(file, encoding="latin1")
    tubes = {}
    for video_id, video in videos.items():
        tubes[str(video_id)] = []
        for tube in video["annotations"]:
            boxes = []
            for row in tube["boxes"]:
                x, y, w, h = (int(value) for value in row)
                boxes.append((x - 1, y - 1, x - 1 + w, y - 1 + h))
            tubes[str(video_id)].append((int(tube["label"]), int(tube["sf"]), boxes))
    return tubes


def plain_counts(frames: int, tubes: list[tuple[int, int]], K: int, stride: int) -> tuple[int, int, int, int]:
    """Windows, valid clips, pairs, and clips with two tubes or more of one video; tubes as (first frame, length)."""
    windows = clips = pairs = crowded = 0
    for start in range(0, frames - K + 1, stride):
        windows += 1
        covered = [sum(first <= frame < first + length for frame in range(start, start + K)) for first, length in tubes]
        if all(count in (0, K) for count in covered) and K in covered:
            here = covered.count(K)
            clips, pairs, crowded = clips + 1, pairs + here, crowded + (here > 1)
    return windows, clips, pairs, crowded
