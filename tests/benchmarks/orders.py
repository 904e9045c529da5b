"""However a run is shared and interrupted, it is given the same samples in the same order; the whole product. `make faults`."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import google_crc32c
import torch

from tests.pipeline.small_store import build_small, write_dataset
from trainer.data.loader import Loader
from trainer.data.reader import Store

BATCH, SEED = 24, 3
RANKS, WORKERS = (1, 2, 3, 4), (0, 1, 3)


def leg(store: Path, start: int, stop: int, workers: Sequence[int]) -> list[str]:
    """A line a step with what all ranks are given: the step, clips, views, and checksums of pixels and targets.

    Args:
        start, stop: the leg's steps.
        workers: of each rank's loader; there are as many ranks.
    """
    streams = [
        iter(Loader(Store.open(store, "train"), seed=SEED, global_batch=BATCH, rank=rank, ranks=len(workers), start=start,
                    workers=count))
        for rank, count in enumerate(workers)
    ]  # fmt: skip
    lines = []
    for step in range(start, stop):
        shares = [next(stream) for stream in streams]
        sums = [
            google_crc32c.value(torch.cat([getattr(share, name) for share in shares]).numpy().tobytes())
            for name in ("frames", "prior", "label", "loc", "ignored_prior")
        ]
        lines.append(f"{step} {[clip for share in shares for clip in share.clips]} {sums}")
    for stream in streams:
        stream.close()  # type: ignore[attr-defined]
    return lines


def starts(store: Path) -> tuple[tuple[int, ...], int]:
    """Steps to begin a leg at, and the one where runs end.

    The run's first, that in which the first epoch ends, one amid the second epoch, and the one after the second epoch.
    """
    clips = Store.open(store, "train").clips
    assert clips % BATCH, "the first epoch ends within a batch"
    assert 2 * clips % BATCH == 0, "the second one with a batch"
    return (0, clips // BATCH, clips // BATCH + 1, 2 * clips // BATCH), 2 * clips // BATCH + 1


def main() -> None:
    """Every leg of every number of ranks and workers, and from them every run that is resumed once."""
    with tempfile.TemporaryDirectory() as name:
        store = Path(name, "store")
        write_dataset(Path(name, "dataset"))
        build_small(Path(name, "dataset"), store)
        cuts, steps = starts(store)
        whole = leg(store, 0, steps, [0])
        ways = list(itertools.product(RANKS, WORKERS))
        legs = {}
        for start, (ranks, workers) in itertools.product(cuts, ways):
            legs[start, ranks, workers] = leg(store, start, steps, [workers] * ranks)
            print(f"from step {start}: {ranks} ranks of {workers} workers", flush=True)
    runs = list(itertools.product(cuts, ways, ways))
    for cut, before, after in runs:
        if legs[0, *before][:cut] + legs[cut, *after] != whole:
            raise SystemExit(
                f"(ranks, workers) {before}, from step {cut} on {after}: other samples than one process alone"
            )
    print(
        f"{len(runs)} runs, of ranks {RANKS} and workers {WORKERS} before and after a stop: the same samples at each step"
    )


if __name__ == "__main__":
    main()
