"""`python -m tests.benchmarks.first_batch STORE METHOD`: what a loader's workers cost, started as multiprocessing's METHOD does."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from trainer.data.loader import Loader

WORKERS = 4


def measured(store: Path, method: str) -> tuple[float, float]:
    """Seconds until the first batch, and MB of all processes that it took; in a process of its own."""
    command = [sys.executable, "-m", __name__, str(store), method]
    seconds, memory = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return seconds, memory


def _descendants(process: int) -> Iterator[int]:
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        yield int(child)
        yield from _descendants(int(child))


def _proportional_megabytes(process: int) -> float:
    """What several processes have in common counts in equal shares."""
    lines = map(str.split, Path(f"/proc/{process}/smaps_rollup").read_text().splitlines())
    return sum(int(line[1]) for line in lines if line[0] == "Pss:") / 1024


def _main(store: Path, method: str) -> None:
    context = multiprocessing.get_context(method)
    with patch.object(multiprocessing, "get_context", lambda _: context):
        start = time.perf_counter()
        batches = iter(Loader(store, split="train", seed=0, global_batch=8, workers=WORKERS))
        next(batches)
        seconds = time.perf_counter() - start
    for _ in range(4 * WORKERS):
        next(batches)
    print(json.dumps([seconds, sum(map(_proportional_megabytes, _descendants(os.getpid())))]))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])
