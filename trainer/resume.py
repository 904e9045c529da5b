"""What a resumed run goes on from, and whether it can."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from data_manifests.errors import InputError
from data_manifests.layout import MANIFEST
from trainer.checkpoint import CheckpointMeta, checkpoint_path, newest_checkpoint, steps_saved
from trainer.config import Config, from_json
from trainer.data.reader import Store
from trainer.distributed import Ranks

if TYPE_CHECKING:
    from trainer.prepare import Job


def newest_of_run(job: Job) -> Path | None:
    """The checkpoint that a run goes on from; None for a new one.

    Raises:
        InputError: the folder is a store, holds a run that is not to be resumed, or one of which no checkpoint is good.
    """
    if job.profile:
        return None
    if (job.out / MANIFEST).exists():
        raise InputError(f"--out {job.out} is a store", wanted="a folder of the run's own", todo="choose another --out")
    saved = [checkpoint_path(job.checkpoints, step) for step in steps_saved(job.checkpoints)]
    if saved and not job.resume:
        raise InputError(
            f"{job.out} holds a run already",
            found=saved[-1].name,
            wanted="a new folder, or --resume",
            todo="add --resume to go on, or choose another --out",
        )
    newest = newest_checkpoint(job.checkpoints)
    if saved and newest is None:
        raise InputError(
            f"no checkpoint in {job.checkpoints} is whole",
            found=f"{', '.join(path.name for path in saved)}, all damaged",
            todo="put a good copy of one there, or start anew with another --out",
        )
    diverged = sorted(path.name for path in job.checkpoints.glob("diverged-*.pt"))
    if diverged and job.resume and newest is None:
        raise InputError(
            f"all checkpoints in {job.checkpoints} are of a run that diverged",
            found=", ".join(diverged),
            todo="start anew, without --resume, with a smaller --base-lr or with --clip-norm",
        )
    return newest


PARTS = 2
"""Of a new run's steps, which one process and two then compute to the same bits."""


def parts_of_share(of: CheckpointMeta | None, config: Config, processes: int) -> int:
    """In how many parts a process computes its share of a step.

    Unless `--accumulate` says how many, a new run's has one, or of a single process `PARTS`: not if the clips cannot be dealt
    out evenly, or are normalised together. A resumed run's steps have the parts that they had, or if those cannot be dealt
    out evenly, smaller ones: a process never needs more memory than before.
    """
    if config.accumulate:
        return config.accumulate
    if of is None:
        before = PARTS if config.norm == "none" and config.batch % PARTS == 0 else 1
    else:  # older checkpoints say it among their settings
        before = of.parts or processes * max(1, of.config.get("accumulate", 1))
    least = -(-before // processes)
    return next((n for n in range(least, config.batch) if config.batch % (processes * n) == 0), least)


def changes_told(of: CheckpointMeta, config: Config, ranks: Ranks, parts: int) -> Iterator[str]:
    """What is not as it was before a run is resumed, or stays so by `parts` of a process' share, in lines for people."""
    now = {name: value for name, value in dataclasses.asdict(config).items() if name != "accumulate"}
    before = {name: of.config.get(name, value) for name, value in now.items()}
    changed = "; ".join(f"{name} {before[name]} / {now[name]}" for name in now if before[name] != now[name])
    if changed:
        yield f"going on with other settings (before / now): {changed}"
    all_parts, threads = parts * ranks.count, torch.get_num_threads()
    if of.parts not in (0, all_parts):
        means = (
            "its gradients are rounded" if config.norm == "none" else "its clips, each part by itself, are normalised"
        )
        yield (
            f"note: parts of a step {of.parts} / {all_parts} (before / now): {means} otherwise "
            "(--accumulate says how many a process has)"
        )
    elif of.parts and not config.accumulate and parts != parts_of_share(None, config, ranks.count):
        yield f"{parts} parts a process: a step's gradients stay the sum of {all_parts} (--accumulate)"
    if of.threads not in (0, threads) and ranks.device.type == "cpu":
        yield (
            f"note: threads of a process {of.threads} / {threads} (before / now): sums are rounded otherwise "
            "(OMP_NUM_THREADS says how many; torchrun gives each process one)"
        )


def check_fits(of: CheckpointMeta, store: Store, config: Config, path: Path) -> None:
    """Raises InputError if a checkpoint is not of this store, or of settings that cannot change within a run."""
    before = from_json(of.config)
    for what, found, wanted in (
        ("K", of.K, store.meta.K),
        ("classes", of.classes, store.meta.classes),
        ("priors", of.priors, store.meta.priors),
        ("width", of.width, config.width),
        ("norm", of.norm, config.norm),
        ("fc6_dilation", of.fc6_dilation, config.fc6_dilation),
        ("store", of.store, store.meta.digest),
        ("number of clips", of.clips or store.clips, store.clips),  # another split, or the store has grown
        ("seed", before.seed, config.seed),
        ("batch", before.batch, config.batch),
        ("frozen", before.frozen, config.frozen),
    ):
        if found != wanted:
            raise InputError(
                f"checkpoint {path} is of another {what}",
                found=str(found),
                wanted=str(wanted),
                todo="choose another --out, or go on with the run's own store and settings",
            )
