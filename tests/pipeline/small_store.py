"""A small dataset with every kind of video, and its store of several shards.

`python -m tests.pipeline.small_store ROOT STORE [WORKERS]` builds it in a process of its own, to be killed.
"""

import sys
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

from data_manifests.card import Card, load_card
from data_manifests.errors import InputError, run_command_line
from data_manifests.layout import file_crc32c
from pipeline.build import BuildReport, build, present_manifest
from pipeline.plan import Plan, make_plan
from tests.pipeline.own_data import moving_square, plain_settings, tube_rows, write_own, write_video

FRAMES_PER_SHARD = 48
K, VIEWS = 4, 2
VIDEOS = {f"Run/v_{i}": 20 + i for i in range(6)} | {"Jump/t_0": 24, "Jump/t_1": 9}
SHARDS = ["test-00000", "train-00000", "train-00001"]


def write_dataset(root: Path) -> Card:
    """Videos of 9 to 25 frames: with one tube, with two that meet, and with one shorter than K."""
    rows = []
    for number, (video, frames) in enumerate(VIDEOS.items()):
        write_video(root / "videos" / f"{video}.avi", moving_square(frames))
        rows.append(tube_rows(video, 2, frames - 2, box=f"{2 + number},3,{20 + number},30"))
        if number % 2 and frames > 20:
            rows.append(tube_rows(video, 2 + number, 10, tube=1, action="Jump", box="30,10,50,44"))
    rows.append(tube_rows("Run/v_2", 4, K - 1, tube=1, action="Jump"))
    return write_own(root, "".join(rows), "Jump/t_0\nJump/t_1\n")


class Here(Executor):
    """Runs each job at once, in this process."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Done when it returns."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  (the future carries it)
            future.set_exception(error)
        return future


def plan_small(
    root: Path,
    store: Path,
    split: str | None = None,
    missing: str = "error",
    train_list: Path | None = None,
    **settings: Any,
) -> Plan:
    """The plan of a store of several shards."""
    card = load_card(str(root / "own.toml"))
    chosen = plain_settings(card, **{"K": K, "views": VIEWS, **settings})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.plan.FRAMES_PER_SHARD", FRAMES_PER_SHARD)
        return make_plan(
            card, root, chosen, split=split, missing=missing, train_list=train_list, present=present_manifest(store)
        )


def build_small(
    root: Path,
    store: Path,
    *,
    executor: Executor | None = None,
    workers: int = 0,
    progress: Any = None,
    **options: Any,
) -> BuildReport:
    """Plans and builds; in this process unless workers or an executor are given."""
    chosen = executor or (None if workers else Here())
    card = load_card(str(root / "own.toml"))
    plan = plan_small(root, store, **options)
    return build(plan, card, root, store, workers=workers, executor=chosen, progress=progress)


def tree(store: Path) -> dict[str, int]:
    """Checksum of every file."""
    return {
        path.relative_to(store).as_posix(): file_crc32c(path) for path in sorted(store.rglob("*")) if path.is_file()
    }


def refusal(call: Any, *args: Any, **kwargs: Any) -> str:
    """The message of the InputError that a call must end with."""
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


if __name__ == "__main__":
    run_command_line(
        lambda: build_small(Path(sys.argv[1]), Path(sys.argv[2]), workers=int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    )
