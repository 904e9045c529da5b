"""`python -m tests.benchmarks.first_batch STORE [torch]`: what a loader's workers cost, as they are or when they import torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

if sys.argv[2:] == ["torch"]:  # a spawned process runs this too
    import torch  # noqa: F401

WORKERS = 4


def measured(store: Path, *options: str) -> tuple[float, float]:
    """Seconds until the first batch, and MB of all processes that it took; in a process of its own."""
    command = [sys.executable, "-m", __name__, str(store), *options]
    seconds, memory = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return seconds, memory


def _descendants(process: int) -> Iterator[int]:
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        yield int(child)
        yield from _descendants(int(child))


def _proportional_megabytes(process: int) -> float:
    """What several processes have in common, these workers and their parent too, counts in equal shares."""
    lines = map(str.split, Path(f"/proc/{process}/smaps_rollup").read_text().splitlines())
    return sum(int(line[1]) for line in lines if line[0] == "Pss:") * 1024 / 1e6


def _main(store: Path) -> None:
    from trainer.data.loader import Loader
    from trainer.data.reader import Store

    start = time.perf_counter()
    batches = iter(Loader(Store.open(store, "train"), seed=0, global_batch=8, workers=WORKERS))
    next(batches)
    seconds = time.perf_counter() - start
    for _ in range(4 * WORKERS):
        next(batches)
    print(json.dumps([seconds, sum(map(_proportional_megabytes, _descendants(os.getpid())))]))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
