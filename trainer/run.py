"""Training: `python -m trainer.run` on one process, `torchrun --nproc-per-node N -m trainer.run` on many."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from data_manifests.errors import InputError, run_command_line
from trainer.config import Config, config_fields, load_config

if TYPE_CHECKING:
    from trainer.data.reader import Store

_PATH = click.Path(path_type=Path)


@dataclass(frozen=True)
class Job:
    """What to train, and where its files go."""

    store: Path
    out: Path
    val_store: Path | None = None
    split: str = "train"
    init: Path | None = None
    resume: bool = False
    device: str = "auto"


def train(job: Job, config: Config) -> None:
    """One run, from its first step or from its newest checkpoint to the last step.

    Raises:
        InputError: the store, a weight file or a checkpoint does not fit; a sample cannot be read; the loss is not finite.
    """
    import numpy as np
    import torch
    from torch.nn.parallel import DistributedDataParallel

    from trainer import checkpoint
    from trainer.data.loader import Loader
    from trainer.data.photometric import colour_matrix, distort
    from trainer.data.reader import Store
    from trainer.distributed import join
    from trainer.host_memory import keep_freed_memory
    from trainer.logs import Log, Watch
    from trainer.loss import tubelet_loss
    from trainer.model import ActNet
    from trainer.model.weights import initialise, load_weights, report
    from trainer.optim import make_optimiser, parameter_groups, rate_at, set_rate

    ranks = join(job.device)
    if ranks.device.type == "cpu":
        keep_freed_memory()
    store = Store.open(job.store, job.split)
    meta = store.meta
    checkpoints = job.out / "checkpoints"
    newest = checkpoint.newest_checkpoint(checkpoints)
    if newest is not None and not job.resume:
        raise InputError(
            f"{job.out} holds a run already", found=newest.name, wanted="a new folder, or --resume",
            todo="add --resume to go on, or choose another --out",
        )  # fmt: skip

    model = ActNet(meta.priors, len(meta.classes), meta.K, config.width, config.norm)
    origins = initialise(model, config.seed)
    if job.init is not None:
        origins = load_weights(model, job.init, origins)
    model.to(ranks.device)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = make_optimiser(parameter_groups(model, config), config)
    start, best = 0, None
    if newest is not None:
        content, of = checkpoint.read_checkpoint(newest)
        _check_fits(of, store, config, newest)
        model.load_state_dict(content["model"])
        optimiser.load_state_dict({**optimiser.state_dict(), "state": content["optimiser"]})
        start, best = of.step, of.best
    log = Log(job.out, config, start) if ranks.first else None
    if ranks.first:
        with open(job.out / "weights.txt", "w") as file:
            report(origins, lambda line: print(line, file=file))
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
    batches, watch, stop = iter(loader), Watch(ranks.device), _StopFlag()
    share, part = config.batch // ranks.count, config.batch // ranks.count // config.accumulate

    def save(step: int) -> None:
        _read(watch.take(lag=0), log, rate_at(config, step - 1))  # a loss that is not finite stops the run here
        if ranks.first:
            of = checkpoint.CheckpointMeta(
                step, meta.K, meta.classes, config.width, config.norm, meta.priors, meta.digest,
                dataclasses.asdict(config), best,
            )  # fmt: skip
            checkpoint.save_checkpoint(checkpoint.checkpoint_path(checkpoints, step), model, optimiser, of)
            checkpoint.prune_checkpoints(checkpoints, config.keep)

    network.train()
    for step in range(start, config.iterations):
        set_rate(optimiser, rate_at(config, step))
        parts = [next(batches) for _ in range(config.accumulate)]
        positives = ranks.sum(torch.tensor(float(sum(sum(p.positives) for p in parts)), device=ranks.device))
        sums = torch.zeros(5, device=ranks.device)
        for index, host_batch in enumerate(parts):
            batch = host_batch.to(ranks.device)
            images = model.normalise(batch.frames)
            if config.distort:
                position = step * config.batch + ranks.rank * share + index * part
                matrices = np.stack([colour_matrix(config.seed, position + place) for place in range(part)])
                images = distort(images, torch.from_numpy(matrices).to(ranks.device, non_blocking=True), model.mean)
            last = index == config.accumulate - 1
            with network.no_sync() if ranks.count > 1 and not last else nullcontext():
                with torch.autocast(ranks.device.type, torch.bfloat16, enabled=config.amp):
                    loc, conf = network(images)
                losses = tubelet_loss(
                    loc,
                    conf,
                    sample=batch.sample,
                    prior=batch.prior,
                    label=batch.label,
                    target=batch.loc,
                    ignored_sample=batch.ignored_sample,
                    ignored_prior=batch.ignored_prior,
                    positives=batch.positives,
                    normaliser=positives,
                )
                (losses.total * ranks.count).backward()  # DDP averages over the ranks; the normaliser is global
            sums[:3] += torch.stack([losses.total, losses.loc, losses.conf]).detach()
        if config.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm, foreach=True)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

        sums[4] += float(stop.asked)
        values = ranks.sum(sums)
        values[3] = positives
        watch.push(step, values, tuple(clip for p in parts for clip in p.clips))
        stopped = _read(watch.take(), log, rate_at(config, step))
        done = step + 1
        if job.val_store is not None and config.eval_every and done % config.eval_every == 0:
            best = _validate(model, job.val_store, ranks.device, log, done, best, checkpoints, save)
            network.train()
        if done % config.save_every == 0 or done == config.iterations or stopped:
            save(done)
        if stopped:
            if ranks.first:
                print(f"asked to stop: saved after step {done}; go on with --resume", flush=True)
            break
    if log is not None:
        log.close()


class _StopFlag:
    """SIGTERM asks for a checkpoint and an orderly end."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True


def _read(readings: list[Any], log: Any, rate: float) -> bool:
    if log is not None:
        log.read(readings, rate)
    return any(reading.stop for reading in readings)


def _check_fits(of: Any, store: Store, config: Config, path: Path) -> None:
    for what, found, wanted in (
        ("K", of.K, store.meta.K),
        ("classes", of.classes, store.meta.classes),
        ("priors", of.priors, store.meta.priors),
        ("width", of.width, config.width),
        ("norm", of.norm, config.norm),
        ("store", of.store, store.meta.digest),
    ):
        if found != wanted:
            raise InputError(
                f"checkpoint {path} is of another {what}", found=str(found), wanted=str(wanted),
                todo="choose another --out, or go on with the run's own store and settings",
            )  # fmt: skip


def _validate(
    model: Any,
    path: Path,
    device: Any,
    log: Any,
    step: int,
    best: float | None,
    checkpoints: Path,
    save: Callable[[int], None],
) -> float | None:
    import shutil

    from trainer.checkpoint import checkpoint_path
    from trainer.data.reader import Store
    from trainer.evaluate import evaluate_store

    metrics = evaluate_store(model, Store.open(path), device=device)
    figure = metrics["frame_map"]["0.5"]
    if log is None:
        return best
    log.add(step, {"val_frame_map": figure, "val_video_map": metrics["video_map"]["0.5"]})
    print(
        f"step {step}: validation frame-mAP@0.5 {figure:.4f}, video-mAP@0.5 {metrics['video_map']['0.5']:.4f}",
        flush=True,
    )
    if best is not None and figure <= best:
        return best
    save(step)
    shutil.copyfile(checkpoint_path(checkpoints, step), checkpoints / "best.pt.new")
    (checkpoints / "best.pt.new").rename(checkpoints / "best.pt")
    return figure


def _settings(command: Any) -> Any:
    for field in reversed(config_fields()):
        kind = click.Choice(field.choices) if field.choices else field.type
        command = click.option(
            field.option + ("/--no-" + field.option[2:] if field.type is bool else ""), field.name,
            type=None if field.type is bool else kind, default=None, help=field.help,
        )(command)  # fmt: skip
    return command


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--store", type=_PATH, required=True, help="Store to train on.")
@click.option("--val-store", type=_PATH, help="Store to validate on, with --eval-every.")
@click.option("--split", default="train", show_default=True, help="Whose clips of the store.")
@click.option("--preset", required=True, help="demo, ucf101 or ucf101-act: the settings below that are not given.")
@click.option("--init", type=_PATH, help="Weight file of a VGG16 trunk.")
@click.option("--out", type=_PATH, help="Folder of the run. [default: out/PRESET]")
@click.option("--resume", is_flag=True, help="Go on from the newest valid checkpoint in --out.")
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
    started = time.monotonic()
    job = Job(store, out or Path("out") / preset, val_store, split, init, resume, device)
    try:
        train(job, config)
    finally:
        from trainer.distributed import leave

        leave()
    print(f"done in {(time.monotonic() - started) / 60:.1f} min: {job.out}", flush=True)


def _milestones(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part)
    except ValueError:
        raise InputError(f"--milestones {text}", wanted="steps with commas, like 100,200", todo="change it") from None


def main() -> None:
    """Console entry point."""
    run_command_line(lambda: cli.main(prog_name="python -m trainer.run", standalone_mode=False))


if __name__ == "__main__":
    main()
