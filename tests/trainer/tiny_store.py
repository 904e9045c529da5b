"""A store of two small videos, built by the pipeline, for tests of training."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.build import build
from pipeline.plan import make_plan
from tests.pipeline.own_data import CARD, moving_square, plain_settings, tube_rows, write_own, write_video

K, VIEWS = 2, 2


def write_tiny_store(folder: Path, frames_of_b: int = 7, *, K: int = K, card_text: str = CARD) -> Path:
    """10 and 7 frames of 64 x 48, one tube each."""
    root, store = folder / "dataset", folder / "store"
    for video, frames in (("Run/a", 10), ("Jump/b", frames_of_b)):
        write_video(root / "videos" / f"{video}.avi", moving_square(frames))
    rows = tube_rows("Run/a", 1, 10, box="2,8,20,26") + tube_rows(
        "Jump/b", 1, frames_of_b, action="Jump", box="30,4,60,40"
    )
    card = write_own(root, rows, card=card_text)
    plan = make_plan(card, root, plain_settings(card, K=K, views=VIEWS))
    with ThreadPoolExecutor(1) as executor:
        build(plan, card, root, store, workers=1, executor=executor)
    return store
