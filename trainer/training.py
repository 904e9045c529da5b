"""The training loop, from a run's first step, or its newest checkpoint, to its last."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import Literal

import torch

from data_manifests.errors import InputError
from trainer.checkpoint import (
    LAST,
    CheckpointMeta,
    checkpoint_path,
    link_last,
    prune_checkpoints,
    save_checkpoint,
    steps_saved,
)
from trainer.config import Config
from trainer.detection.find import NotFinite
from trainer.distributed import Ranks
from trainer.logs import LAG, VALIDATED, Diverged, Log, Watch
from trainer.model import ActNet
from trainer.optim import rate_at, set_rate
from trainer.prepare import Job, Prepared, prepare
from trainer.stages import Clock, profile_steps
from trainer.step import train_step

ONE_PRESS = 1.0
"""Seconds in which Ctrl-C counts once: torchrun, which gets it too, passes it on."""


Ending = Literal["done", "asked to stop", "interrupted"]
"""How a run ended that nothing was wrong with: by its last step, SIGTERM or Ctrl-C."""


def train(job: Job, config: Config, ranks: Ranks) -> Ending:
    """Trains, or only measures a few steps if the job says so.

    Raises:
        InputError: the store, a weight file or a checkpoint does not fit; a sample cannot be read; the loss is not finite.
    """
    run = prepare(job, config, ranks)
    with run.lock or nullcontext(), closing(run.batches):  # whose processes end now, not when Python collects garbage
        return _go_through(run, job, config, ranks)


def _go_through(run: Prepared, job: Job, config: Config, ranks: Ranks) -> Ending:
    learner, average, log, best = run.learner, run.average, run.log, run.best
    if job.profile:
        _profile(run, job, config, ranks)
        return "done"
    watch, stop = Watch(ranks.device), _StopFlag()

    def read(lag: int) -> bool:
        """Looks at the losses up to `lag` steps ago: whether a rank was asked to stop."""
        try:
            readings = watch.take(lag)
        except Diverged as error:
            raise _stopped_by(error, job.checkpoints, set_aside=ranks.first) from None
        if log is not None:
            log.read(readings)
        return any(reading.stop for reading in readings)

    def validate(done: int) -> None:
        """Scores the checkpoint of `done` steps, which waits for it, and saves it again with what came out."""
        nonlocal best
        try:
            figure = _validate(average.model if average else learner.model, job, ranks, log, done)
        except NotFinite as error:  # on the rank whose video it was; the others hear of it
            raise _stopped_by(Diverged(done, error.what, error.found), job.checkpoints) from None
        better = best is None or figure > best
        best = figure if better else best
        if log is not None:
            _save(run, job.checkpoints, config, ranks, done, best, list(log.gathered), as_best=better)

    ending: Ending = "done"
    lag = LAG if ranks.device.type == "cuda" else 0  # a CPU waits for nothing
    with stop:
        if run.unscored:
            validate(run.start)
        for step in range(run.start, config.iterations):
            set_rate(learner.optimiser, rate_at(config, step))
            parts = [next(run.batches) for _ in range(run.parts)]
            values = train_step(learner, parts, step, config=config, ranks=ranks, clock=Clock(), stop=stop.asked)
            if average is not None:
                average.update(learner.model, step)
            watch.push(step, values, tuple(clip for part in parts for clip in part.clips))
            stopped = read(lag)
            done = step + 1
            last = stopped or done == config.iterations
            scored = job.val_store is not None and (done == config.iterations or _divides(config.eval_every, done))
            if scored or last or done % config.save_every == 0:
                stopped = read(0) or stopped
                _check_finite(learner.model, step, job.checkpoints)
                if log is not None:  # before the validation, which takes its time
                    _save(run, job.checkpoints, config, ranks, done, best, list(log.gathered), unscored=scored)
                if scored and not stopped:
                    validate(done)
            if stopped:
                if ranks.first:
                    print(f"asked to stop: saved after step {done}; go on with --resume", flush=True)
                ending = "interrupted" if stop.interrupted else "asked to stop"
                break
    if log is not None:
        log.close()
    return ending


class _StopFlag:
    """While it is entered, SIGTERM or Ctrl-C asks for a checkpoint and an orderly end; Ctrl-C again ends at once."""

    def __init__(self) -> None:
        self.asked = self.interrupted = False

    def __enter__(self) -> None:
        self._before = {sent: signal.getsignal(sent) for sent in (signal.SIGTERM, signal.SIGINT)}
        signal.signal(signal.SIGTERM, self._ask)
        if self._before[signal.SIGINT] is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._interrupt)

    def __exit__(self, *_: object) -> None:
        for sent, handler in self._before.items():
            signal.signal(sent, handler)

    def _ask(self, *_: object) -> None:
        self.asked = True

    def _interrupt(self, *_: object) -> None:
        if not self.interrupted:
            self.asked = self.interrupted = True
            self._first = time.monotonic()
            os.write(2, b"\nCtrl-C: saves after this step and ends; once more ends at once\n")
        elif time.monotonic() - self._first > ONE_PRESS:
            raise KeyboardInterrupt


def _profile(run: Prepared, job: Job, config: Config, ranks: Ranks) -> None:
    def run_step(clock: Clock) -> None:
        parts = [next(run.batches) for _ in range(run.parts)]
        train_step(run.learner, parts, 0, config=config, ranks=ranks, clock=clock)

    set_rate(run.learner.optimiser, rate_at(config, 0))
    told = profile_steps(job.profile, run_step, run.learner.model, ranks, job.out if ranks.first else None)
    if ranks.first:
        print(told, flush=True)


def _divides(every: int, done: int) -> bool:
    return every > 0 and done % every == 0


def _validate(model: ActNet, job: Job, ranks: Ranks, log: Log | None, step: int) -> float:
    """frame-mAP@0.5, on every rank: of the network that the first one saves, whose batch statistics are its own."""
    from trainer.evaluation import evaluate_store, open_store  # not every run validates

    assert job.val_store is not None
    ranks.share(model.buffers())
    metrics = evaluate_store(model, open_store(job.val_store, None)[0], device=ranks.device)
    frame, video = metrics["frame_map"]["0.5"], metrics["video_map"]["0.5"]
    if log is not None:
        log.add(step, {VALIDATED: frame, "val_video_map": video})
        print(f"step {step}: validation frame-mAP@0.5 {frame:.4f}, video-mAP@0.5 {video:.4f}", flush=True)
    return frame


def _check_finite(model: ActNet, step: int, checkpoints: Path) -> None:
    statistics = (buffer for buffer in model.buffers() if buffer.is_floating_point())
    for what, values in (("weights", model.parameters()), ("batch statistics", statistics)):
        if not all(bool(value.isfinite().all()) for value in values):
            error = Diverged(step, f"{what} are not finite after step {step}", "a loss that was")
            raise _stopped_by(error, checkpoints, blamed=False)


def _stopped_by(error: Diverged, checkpoints: Path, *, blamed: bool = True, set_aside: bool = True) -> InputError:
    """The message that ends a diverged run.

    Args:
        blamed: the weights gave a bad loss or output: their checkpoint is no good.
        set_aside: whether this process is the one to set it aside.
    """
    aside = checkpoint_path(checkpoints, error.step)
    good = [step for step in steps_saved(checkpoints) if step < error.step + (not blamed)]
    if blamed and set_aside:
        with suppress(FileNotFoundError):  # there is none, or another process came to the same just before
            aside.rename(aside.with_name(f"diverged-{aside.name}"))
            if good:
                link_last(checkpoint_path(checkpoints, good[-1]))
            else:
                (checkpoints / LAST).unlink()
    again = f"go on from {checkpoint_path(checkpoints, good[-1])} by --resume, with" if good else "start again with"
    return InputError(error.what, found=error.found, todo=f"{again} a smaller --base-lr or with --clip-norm")


def _save(
    run: Prepared,
    folder: Path,
    config: Config,
    ranks: Ranks,
    done: int,
    best: float | None,
    unlogged: list,
    *,
    as_best: bool = False,
    unscored: bool = False,
) -> None:
    """The checkpoint after `done` steps, and before it one that no later step replaces if it is the best.

    A run that is killed between the two finds the former unscored, and comes to the best again.
    """
    meta, (_, model, _, optimiser) = run.store.meta, run.learner
    threads = torch.get_num_threads() if ranks.device.type == "cpu" else 0
    of = CheckpointMeta(
        done, meta.K, meta.classes, config.width, config.norm, meta.priors, meta.digest, dataclasses.asdict(config),
        best, config.fc6_dilation, tuple(tuple(map(float, reading)) for reading in unlogged),
        run.store.clips, unscored, run.validated, run.parts * ranks.count, threads,
    )  # fmt: skip
    path = checkpoint_path(folder, done)
    for name in [folder / "best.pt", path] if as_best else [path]:
        save_checkpoint(name, model, optimiser, of, run.average.model if run.average else None)
    link_last(path)
    if not unscored:  # until then the one before may be the last good one
        prune_checkpoints(folder, config.keep, done)
