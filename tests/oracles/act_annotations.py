"""The pickles of ACT's authors read plainly, one number at a time, from files that are trusted."""

import pickle
from pathlib import Path

PlainTube = tuple[str, int, list[list[float]]]


def plain_videos(path: Path, split: int) -> dict[str, tuple[str, int, tuple[int, int], list[PlainTube]]]:
    """By video: `train` or `test`, frames, width and height, tubes (class, first frame from 0, boxes as they stand)."""
    with open(path, "rb") as file:
        content = pickle.load(file, encoding="latin1")
    videos = {}
    for part in ("train", "test"):
        for video in content[f"{part}_videos"][split - 1]:
            tubes = []
            for label, of_label in content["gttubes"][video].items():
                for tube in of_label:
                    boxes = [[float(number) for number in row[1:]] for row in tube]
                    tubes.append((content["labels"][label], int(tube[0][0]) - 1, boxes))
            height, width = content["resolution"][video]
            videos[video] = part, int(content["nframes"][video]), (int(width), int(height)), tubes
    return videos
