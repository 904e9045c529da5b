"""Small datasets and videos that tests write for themselves."""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from data_manifests.card import Card, load_card
from data_manifests.layout import Settings

CARD = """
name = "own"
classes = ["Run", "Jump"]
[annotations]
format = "csv"
files = ["boxes.csv"]
box_width = 64
box_height = 48
boxes = "corners"
first_frame = 1
first_pixel = 0
[splits]
test_lists = ["test.txt"]
[videos]
places = ["videos/{video_id}.avi", "frames/{video_id}"]
"""
HEADER = "video,tube,class,frame,x1,y1,x2,y2\n"


def write_own(root: Path, rows: str | bytes, test: str = "", card: str = CARD) -> Card:
    """Writes a card, boxes (below the header) and the test list; returns the card."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "own.toml").write_text(card)
    (root / "test.txt").write_text(test)
    (root / "boxes.csv").write_bytes(HEADER.encode() + (rows.encode() if isinstance(rows, str) else rows))
    return load_card(str(root / "own.toml"))


def tube_rows(video: str, first: int, frames: int, tube: int = 0, action: str = "Run", box: str = "1,2,11,22") -> str:
    """One tube of equal boxes, in csv; `first` as the file counts."""
    return "".join(f"{video},{tube},{action},{frame},{box}\n" for frame in range(first, first + frames))


def moving_square(frames: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """RGB frames, each unlike the others."""
    pictures = []
    for index in range(frames):
        picture = np.full((height, width, 3), 40 + 5 * index, np.uint8)
        picture[8:24, 2 + index : 18 + index] = (200, 40, 30)
        pictures.append(picture)
    return pictures


def write_video(path: Path, frames: Sequence[np.ndarray], codec: str = "mpeg4") -> None:
    """Encodes frames, B-frames included where the codec has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = 2_000_000
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def plain_settings(card: Card, **changed: object) -> Settings:
    """Settings of a build at their defaults."""
    values: dict[str, object] = {
        "dataset": card.name, "title": card.title, "classes": card.classes, "mirrored": card.mirrored,
        "K": 6, "stride": 1, "views": 8, "seed": 0, "positive_overlap": 0.5, "negative_overlap": 0.5,
        "variances": (0.1, 0.1, 0.2, 0.2), "frames": "jpeg:95", "max_side": None, "priors": card.priors,
    }  # fmt: skip
    return Settings(**{**values, **changed})  # type: ignore[arg-type]
