"""The ACT clip rule in plain loops."""

from __future__ import annotations


def valid_clips(frames: int, tubes: list[tuple[int, int]], K: int, stride: int) -> list[tuple[int, int]]:
    """(first frame, tubes that cover the clip) of each valid clip; tubes are (first frame, length)."""
    clips = []
    for start in range(0, frames, stride):
        if start + K > frames:
            break
        covered = [sum(first <= frame < first + length for frame in range(start, start + K)) for first, length in tubes]
        if all(count in (0, K) for count in covered) and K in covered:
            clips.append((start, covered.count(K)))
    return clips
