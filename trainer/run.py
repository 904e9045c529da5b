"""Training: `python -m trainer.run` on one process, `torchrun --nproc-per-node N -m trainer.run` on many."""

from __future__ import annotations

import dataclasses
import signal
import sys
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from data_manifests.errors import InputError, run_command_line
from data_manifests.help import GroupedCommand, program_name
from trainer.config import Config, config_fields, load_config

if TYPE_CHECKING:
    import torch

    from trainer.data.reader import Store
    from trainer.distributed import Ranks
    from trainer.logs import Diverged, Log
    from trainer.model import ActNet

_PATH = click.Path(path_type=Path)
_GROUPS = {
    "Files": ("store", "val_store", "split", "preset", "init", "out", "resume"),
    "Network": ("width", "norm", "fc6_dilation", "frozen", "ema"),
    "Optimiser": (
        "iterations", "batch", "accumulate", "base_lr", "schedule", "milestones", "warmup", "shared_rate", "momentum",
        "weight_decay", "clip_norm",
    ),
    "Samples and machine": ("distort", "seed", "workers", "device", "amp", "channels_last", "compile", "profile"),
    "Records": ("log_every", "save_every", "keep", "eval_every", "quiet"),
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """What to train, and where its files go."""

    store: Path
    out: Path
    val_store: Path | None = None
    split: str = "train"
    init: Path | None = None
    resume: bool = False
    profile: int = 0
    preset: str = ""


def train(job: Job, config: Config, ranks: Ranks) -> None:
    """One run, from its first step or from its newest checkpoint to the last step.

    Raises:
        InputError: the store, a weight file or a checkpoint does not fit; a sample cannot be read; the loss is not finite.
    """
    import torch
    from torch.nn.parallel import DistributedDataParallel

    from trainer import checkpoint, optim
    from trainer.data.loader import Loader
    from trainer.data.reader import Store
    from trainer.host_memory import keep_freed_memory
    from trainer.logs import LAG, Diverged, Log, Reading, Watch
    from trainer.model import ActNet
    from trainer.model.initial import initialise, report
    from trainer.model.weights import load_weights
    from trainer.run_record import write_record
    from trainer.stages import Clock, profile_steps
    from trainer.step import Learner, train_step

    if ranks.device.type == "cpu":
        keep_freed_memory()
    store = Store.open(job.store, job.split)
    meta = store.meta
    checkpoints = job.out / "checkpoints"
    newest = None if job.profile else checkpoint.newest_checkpoint(checkpoints)
    if newest is not None and not job.resume:
        raise InputError(
            f"{job.out} holds a run already", found=newest.name, wanted="a new folder, or --resume",
            todo="add --resume to go on, or choose another --out",
        )  # fmt: skip

    model = ActNet(meta.priors, len(meta.classes), meta.K, config.width, config.norm, config.fc6_dilation)
    origins = initialise(model, config.seed)
    if job.init is not None:
        origins = load_weights(model, job.init, origins)
    if config.frozen:
        optim.freeze_trunk(model)
    model.to(ranks.device)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = optim.Average(model, config.ema) if config.ema else None
    optimiser = optim.make_optimiser(optim.parameter_groups(model, config), config)
    start, best = 0, None
    unlogged: tuple[tuple[float, ...], ...] = ()
    if newest is not None:
        content, of = checkpoint.read_checkpoint(newest)
        _check_fits(of, store, config, newest)
        model.load_state_dict(content["model"])
        optimiser.load_state_dict({**optimiser.state_dict(), "state": content["optimiser"]})
        if average is not None:
            average.model.load_state_dict(content["average"] or content["model"])
        start, best, unlogged = of.step, of.best, of.unlogged
    log = None
    if ranks.first and not job.profile:
        log = Log(job.out, config, start, [Reading.of(values) for values in unlogged])
        with open(job.out / "weights.txt", "w") as file:
            report(origins, lambda line: print(line, file=file))
        write_record(job, config, store, model, ranks)
    if ranks.first:
        print(
            f"training on {store.clips} clips of {store.path}, K = {meta.K}, {len(meta.classes)} classes, "
            f"{sum(p.numel() for p in model.parameters()):,} weights, {ranks.count} x {ranks.device.type}, "
            f"steps {start} to {config.iterations}",
            flush=True,
        )

    network: Any = model
    if ranks.count > 1:
        network = DistributedDataParallel(model, gradient_as_bucket_view=True)
    if config.compile:
        network = torch.compile(network)
    loader = Loader(
        job.store,
        split=job.split,
        seed=config.seed,
        global_batch=config.batch,
        rank=ranks.rank,
        ranks=ranks.count,
        start=start,
        parts=config.accumulate,
        workers=config.workers,
        pin=ranks.device.type == "cuda",
    )
    learner, watch, stop = Learner(network, model, optimiser), Watch(ranks.device), _StopFlag()
    batches = iter(loader)
    network.train()
    if job.profile:

        def run_step(clock: Clock) -> None:
            parts = [next(batches) for _ in range(config.accumulate)]
            train_step(learner, parts, 0, config=config, ranks=ranks, clock=clock)

        optim.set_rate(optimiser, optim.rate_at(config, 0))
        told = profile_steps(job.profile, run_step, model, ranks.device, job.out if ranks.first else None)
        if ranks.first:
            print(told, flush=True)
        return

    def read(lag: int) -> bool:
        try:
            readings = watch.take(lag)
        except Diverged as error:
            raise _stopped_by(error, checkpoints, ranks) from None
        if log is not None:
            log.read(readings)
        return any(reading.stop for reading in readings)

    def save(step: int, as_best: bool) -> None:
        if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
            error = Diverged(step - 1, f"weights are not finite after step {step - 1}", "a loss that was")
            raise _stopped_by(error, checkpoints, ranks)
        if log is None:
            return
        of = checkpoint.CheckpointMeta(
            step, meta.K, meta.classes, config.width, config.norm, meta.priors, meta.digest, dataclasses.asdict(config),
            best, config.fc6_dilation, tuple(tuple(map(float, reading)) for reading in log.gathered),
        )  # fmt: skip
        names = [checkpoint.checkpoint_path(checkpoints, step)] + [checkpoints / "best.pt"] * as_best
        for path in names:
            checkpoint.save_checkpoint(path, model, optimiser, of, average.model if average else None)
        checkpoint.link_last(names[0])
        checkpoint.prune_checkpoints(checkpoints, config.keep)

    for step in range(start, config.iterations):
        optim.set_rate(optimiser, optim.rate_at(config, step))
        parts = [next(batches) for _ in range(config.accumulate)]
        values = train_step(learner, parts, step, config=config, ranks=ranks, clock=Clock(), stop=stop.asked)
        if average is not None:
            average.update(model, step)
        watch.push(step, values, tuple(clip for part in parts for clip in part.clips))
        stopped = read(LAG)
        done = step + 1
        last = stopped or done == config.iterations
        scored = job.val_store is not None and (done == config.iterations or _divides(config.eval_every, done))
        better = False
        if scored or last or done % config.save_every == 0:
            stopped = read(0) or stopped
            if scored:
                figures = _validate(average.model if average else model, job, ranks.device, log, done)
                better = best is None or figures > best
                best = figures if better else best
            save(done, better)
        if stopped:
            if ranks.first:
                print(f"asked to stop: saved after step {done}; go on with --resume", flush=True)
            break
    if log is not None:
        log.close()


def _stopped_by(error: Diverged, checkpoints: Path, ranks: Ranks) -> InputError:
    """The message that ends a diverged run. The checkpoint whose weights gave the bad loss is set aside."""
    from trainer.checkpoint import checkpoint_path, steps_saved

    aside = checkpoint_path(checkpoints, error.step)
    if ranks.first and aside.exists():
        aside.rename(aside.with_name(f"diverged-{aside.name}"))
    good = [step for step in steps_saved(checkpoints) if step < error.step]
    again = f"go on from {checkpoint_path(checkpoints, good[-1])} by --resume, with" if good else "start again with"
    return InputError(error.what, found=error.found, todo=f"{again} a smaller --base-lr or with --clip-norm")


def _divides(every: int, done: int) -> bool:
    return every > 0 and done % every == 0


class _StopFlag:
    """SIGTERM asks for a checkpoint and an orderly end."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True


def _check_fits(of: Any, store: Store, config: Config, path: Path) -> None:
    for what, found, wanted in (
        ("K", of.K, store.meta.K),
        ("classes", of.classes, store.meta.classes),
        ("priors", of.priors, store.meta.priors),
        ("width", of.width, config.width),
        ("norm", of.norm, config.norm),
        ("fc6_dilation", of.fc6_dilation, config.fc6_dilation),
        ("store", of.store, store.meta.digest),
        ("seed", of.config["seed"], config.seed),
        ("batch", of.config["batch"], config.batch),
    ):
        if found != wanted:
            raise InputError(
                f"checkpoint {path} is of another {what}", found=str(found), wanted=str(wanted),
                todo="choose another --out, or go on with the run's own store and settings",
            )  # fmt: skip


def _validate(model: ActNet, job: Job, device: torch.device, log: Log | None, step: int) -> float:
    """frame-mAP@0.5, on every rank."""
    from trainer.evaluation import evaluate_store, open_store

    assert job.val_store is not None
    metrics = evaluate_store(model, open_store(job.val_store, None)[0], device=device)
    frame, video = metrics["frame_map"]["0.5"], metrics["video_map"]["0.5"]
    if frame is None:
        raise InputError(f"--val-store {job.val_store} has no ground truth to validate on", todo="give another")
    if log is not None:
        log.add(step, {"val_frame_map": frame, "val_video_map": video})
        print(f"step {step}: validation frame-mAP@0.5 {frame:.4f}, video-mAP@0.5 {video:.4f}", flush=True)
    return frame


def _settings(command: Any) -> Any:
    for field in reversed(config_fields()):
        kind = click.Choice(field.choices) if field.choices else field.type
        command = click.option(
            field.option + ("/--no-" + field.option[2:] if field.type is bool else ""), field.name,
            type=None if field.type is bool else kind, default=None, help=field.help,
        )(command)  # fmt: skip
    return command


@click.command(
    cls=GroupedCommand,
    groups=_GROUPS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option("--store", type=_PATH, required=True, help="Store to train on.")
@click.option("--val-store", type=_PATH, help="Store to validate on, with --eval-every.")
@click.option("--split", default="train", show_default=True, help="Whose clips of the store.")
@click.option("--preset", required=True, help="demo, ucf101 or ucf101-act: the settings below that are not given.")
@click.option("--init", type=_PATH, help="Weight file of a VGG16 trunk.")
@click.option("--out", type=_PATH, help="Folder of the run. [default: out/PRESET]")
@click.option("--resume", is_flag=True, help="Go on from the newest valid checkpoint in --out.")
@click.option(
    "--profile",
    type=click.IntRange(min=0),
    default=0,
    help="Time this many steps, stage by stage, and end. Trains nothing.",
)
@click.option("--quiet", is_flag=True, help="Print nothing: the log is in metrics.jsonl.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@_settings
def cli(
    store: Path,
    val_store: Path | None,
    split: str,
    preset: str,
    init: Path | None,
    out: Path | None,
    resume: bool,
    profile: int,
    quiet: bool,
    device: str,
    **settings: Any,
) -> None:
    """Trains an ACT network on a store.

    \b
    python -m trainer.run --store stores/demo --preset demo --out out/run
    torchrun --nproc-per-node 8 -m trainer.run --store stores/ucf101 --preset ucf101 --init vgg16_reducedfc.pth
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if "milestones" in given:
        given["milestones"] = _milestones(given["milestones"])
    config = load_config(preset, given)
    from trainer.distributed import join, leave, together

    started = time.monotonic()
    job = Job(store, out or Path("out") / preset, val_store, split, init, resume, profile, preset)
    ranks = join(device)
    with redirect_stdout(None if quiet else sys.stdout):
        with together(ranks):
            train(job, config, ranks)
        leave()
        if ranks.first:
            print(f"done in {(time.monotonic() - started) / 60:.1f} min: {job.out}", flush=True)


def _milestones(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part)
    except ValueError:
        raise InputError(f"--milestones {text}", wanted="steps with commas, like 100,200", todo="change it") from None


def main() -> None:
    """Console entry point."""
    run_command_line(lambda: cli.main(prog_name=program_name("trainer.run"), standalone_mode=False))


if __name__ == "__main__":
    main()
