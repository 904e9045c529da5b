"""Kills training runs (-9) at random instants; resumed, each ends as an undisturbed one. `make faults`."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from tests.trainer.tiny_store import write_tiny_store
from trainer.checkpoint import newest_checkpoint, read_checkpoint
from trainer.config import Config
from trainer.distributed import Ranks
from trainer.prepare import Job
from trainer.training import train

CONFIG = Config(
    width=1 / 16, norm="none", iterations=12, batch=2, base_lr=1e-5, schedule="cosine", ema=0.9, workers=0,
    log_every=5, save_every=1, keep=2,
)  # fmt: skip


def run(store: Path, out: Path) -> None:
    """Begins a run or goes on with it."""
    torch.set_num_threads(1)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        train(Job(store, out, resume=True), CONFIG, Ranks(0, 1, torch.device("cpu")))


def logged(out: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, without what depends on the clock."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("clips_per_second", "seconds")} for line in lines]


def outcome(out: Path) -> dict[str, Any]:
    """The newest checkpoint, and the log."""
    newest = newest_checkpoint(out / "checkpoints")
    assert newest is not None
    assert newest.name == f"step-{CONFIG.iterations:08d}.pt"
    return {**read_checkpoint(newest)[0], "log": logged(out)}


def equal(one: Any, other: Any) -> bool:
    """Bit for bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def main() -> None:
    """Fails at the first run that does not come out equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warm = multiprocessing.get_context("forkserver")
    warm.set_forkserver_preload(["trainer.training", "tests.trainer.tiny_store"])
    rng, killed, runs = random.Random(arguments.seed), 0, 0

    def begin(out: Path, patience: float | None) -> BaseProcess:
        process = warm.Process(target=run, args=(store, out))
        process.start()
        process.join(patience)
        return process

    with tempfile.TemporaryDirectory() as name:
        store = write_tiny_store(Path(name, "tiny"))
        begun = time.monotonic()
        begin(Path(name, "undisturbed"), None)
        longest, undisturbed = time.monotonic() - begun, outcome(Path(name, "undisturbed"))
        while killed < arguments.kills:
            out, runs = Path(name, f"run-{runs}"), runs + 1
            while (process := begin(out, rng.uniform(0, longest))).is_alive():
                process.kill()
                process.join()
                killed += 1
            if process.exitcode or not equal(outcome(out), undisturbed):
                raise SystemExit(
                    f"run {runs}, after {killed} kills: exit {process.exitcode}, or other than undisturbed"
                )
    print(
        f"{killed} kills of training in {runs} runs: weights, momentum, average and log equal to an undisturbed run's"
    )


if __name__ == "__main__":
    main()
