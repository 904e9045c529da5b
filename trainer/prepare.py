"""What stands before a run's first step: the store, the network and its weights, the optimiser, the log; new or resumed."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch.nn.parallel import DistributedDataParallel

from data_manifests.errors import InputError
from trainer.checkpoint import link_last, load_state, read_checkpoint, steps_saved
from trainer.config import Config
from trainer.data.batch import Batch
from trainer.data.cached import open_place
from trainer.data.loader import Loader
from trainer.data.reader import Store
from trainer.distributed import Ranks
from trainer.gradients import GradientSum
from trainer.host_memory import keep_freed_memory
from trainer.logs import Log, Reading
from trainer.model import ActNet
from trainer.model.initial import initialise, report
from trainer.model.weights import load_weights
from trainer.optim import Average, freeze_trunk, make_optimiser, parameter_groups, rate_at
from trainer.place import Place
from trainer.resume import changes_told, check_fits, newest_of_run, parts_of_share
from trainer.run_record import only_run, write_record
from trainer.step import Learner


@dataclass(frozen=True)
class Job:
    """What to train, and where its files go."""

    store: Place
    out: Path
    val_store: Place | None = None
    split: str = "train"
    init: Path | None = None
    resume: bool = False
    profile: int = 0
    preset: str = ""

    @property
    def checkpoints(self) -> Path:
        """Folder of the run's checkpoints."""
        return self.out / "checkpoints"


class Prepared(NamedTuple):
    """A run about to take step `start`.

    `batches` are this rank's, from that step on, `parts` of them a step; `best` is the best validation figure so far, and
    `validated` the digest of the store that it was measured on; `unscored` says that the checkpoint gone on from is still to
    be validated; only the first rank has a log, and a lock of the run's folder.
    """

    store: Store
    learner: Learner
    average: Average | None
    batches: Generator[Batch]
    parts: int
    start: int
    best: float | None
    validated: str
    unscored: bool
    log: Log | None
    lock: IO[str] | None


def prepare(job: Job, config: Config, ranks: Ranks) -> Prepared:
    """Everything a run needs, as its newest checkpoint has it if it is resumed.

    Raises:
        InputError: the store, a weight file or a checkpoint does not fit, the folder holds a run already, or not all
            processes see it.
    """
    if ranks.device.type == "cpu":
        keep_freed_memory()
    store = open_place(job.store, job.split)
    saved, newest = steps_saved(job.checkpoints), newest_of_run(job)
    validated = _open_val_store(job, store)
    _check_alike(ranks, store, validated, config)
    if config.frozen and job.init is None and newest is None and not job.profile:
        raise InputError(
            "--frozen would freeze a trunk of random numbers", wanted="--init, which brings a trained one",
            todo="add --init, or leave --frozen out",
        )  # fmt: skip
    model = ActNet(
        store.meta.priors, len(store.meta.classes), store.meta.K, config.width, config.norm, config.fc6_dilation
    )
    origins = initialise(model, config.seed)
    if job.init is not None:
        origins = load_weights(model, job.init, origins, store.meta.classes)
    if config.frozen:
        freeze_trunk(model)
    model.to(ranks.device)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = Average(model, config.ema) if config.ema else None
    optimiser = make_optimiser(parameter_groups(model, config), config)
    of, start, best, unscored = None, 0, None, False
    validated_on = "" if validated is None else validated.content_digest
    if job.resume and newest is None and ranks.first:
        print(f"nothing to resume: no checkpoint in {job.checkpoints}", flush=True)
    unlogged: list[Reading] = []
    if newest is not None:
        content, of = read_checkpoint(newest)
        check_fits(of, store, config, newest)
        load_state(model, content["model"], newest)
        optimiser.load_state_dict({**optimiser.state_dict(), "state": content["optimiser"]})
        if average is not None:
            load_state(average.model, content.get("average") or content["model"], newest)
        start, best, unlogged = of.step, of.best, [Reading.of(values) for values in of.unlogged]
        unscored = of.unscored and validated is not None
        if validated is None:
            validated_on = of.validated
        elif best is not None and of.validated not in ("", validated_on):
            if ranks.first:
                print(f"--val-store is another one: the best so far, {best:.3f}, is not compared with", flush=True)
            best = None
    parts = parts_of_share(of, config, ranks.count)
    all_parts = parts * ranks.count
    one_cell = model.spec.layers[-1].grid == 1
    if config.norm == "batch" and one_cell and store.meta.K * config.batch < 2 * all_parts:
        raise InputError(
            "--norm batch has nothing to take a mean of", found=f"{store.meta.K * config.batch} frames in {all_parts} parts of a step",
            wanted="2 or more in each", todo="give a larger --batch, fewer processes or a smaller --accumulate",
        )  # fmt: skip
    if ranks.first and of is not None:
        for line in changes_told(of, config, ranks, parts):
            print(line, flush=True)
    if not ranks.agree("start", start):
        raise InputError(
            "the processes found different checkpoints to go on from",
            found=f"process {ranks.rank} that of step {start} in {job.checkpoints}",
            wanted="an --out that all machines see",
            todo="give one on a file system that they share",
        )
    if ranks.first and start >= config.iterations and not unscored:
        print(f"nothing to do: {start} steps are done, --iterations is {config.iterations}", flush=True)
    loader = Loader(
        store,
        seed=config.seed,
        global_batch=config.batch,
        rank=ranks.rank,
        ranks=ranks.count,
        start=start,
        parts=parts,
        workers=config.workers,
        pin=ranks.device.type == "cuda",
    )
    log, lock = None, None
    if ranks.first and not job.profile:
        lock = only_run(job.out)
        if steps_saved(job.checkpoints) != saved:
            raise InputError(
                f"another training has just saved in {job.out}",
                todo="give the same command again: it goes on from there",
            )
    if ranks.first and newest is not None:
        link_last(newest)  # a killed process may have saved it and come no further
    if ranks.first and not job.profile:
        log = Log(job.out, config, start, unlogged, unscored=unscored)
        if newest is None:
            with open(job.out / "weights.txt", "w") as file:
                report(origins, lambda line: print(line, file=file))
        write_record(job, config, store, model, ranks, all_parts)
    if ranks.first:
        print(
            f"{'measuring' if job.profile else 'training'} on {store.clips} clips of {job.store}, K = {model.K}, "
            f"{model.classes} classes, {sum(p.numel() for p in model.parameters()):,} weights, "
            f"{ranks.count} x {ranks.device.type}"
            + ("; nothing is trained" if job.profile else f", steps {start} to {config.iterations}"),
            flush=True,
        )
        if not job.profile and config.warmup >= config.iterations > start:
            reached = rate_at(config, config.iterations - 1)
            print(
                f"note: warming up takes longer than the run, whose rate rises to {reached:.2g} of {config.base_lr:.2g} "
                "only (--warmup, and for a short run --schedule cosine)",
                flush=True,
            )
        if validated is not None:
            videos = validated.videos
            split = ", ".join(sorted(set(videos["split"].to_pylist())))
            print(f"validating on {videos.num_rows} {split} videos of {job.val_store}", flush=True)
    network: Any = model
    gradients = GradientSum(model, all_parts)
    if ranks.count > 1:
        network = _parallel(model, config)
        gradients.over_ranks(network)
    if config.compile:
        network = torch.compile(network)
    network.train()
    learner = Learner(network, model, gradients, optimiser)
    return Prepared(store, learner, average, iter(loader), parts, start, best, validated_on, unscored, log, lock)


def _parallel(model: ActNet, config: Config) -> DistributedDataParallel:
    with warnings.catch_warnings():  # the argument's successor came with torch 2.13
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return DistributedDataParallel(model, gradient_as_bucket_view=True, broadcast_buffers=config.norm == "batch")


def _open_val_store(job: Job, store: Store) -> Store | None:
    """What the run is validated on; a store that cannot be scored on is told now, not after hours."""
    if job.val_store is None or job.profile:
        return None
    from trainer.evaluation import open_store  # not every run validates

    validated, split = open_store(job.val_store, None)
    for what, found, wanted in (
        ("classes", validated.meta.classes, store.meta.classes),
        ("clip length K", validated.meta.K, store.meta.K),
        ("priors", validated.meta.priors, store.meta.priors),
    ):
        if found != wanted:
            raise InputError(
                f"--val-store {job.val_store} and --store {job.store} differ in their {what}",
                found=", ".join(found) if isinstance(found, tuple) else str(found),
                wanted=", ".join(wanted) if isinstance(wanted, tuple) else str(wanted),
                todo="build it with the same card and --clip-length as the store that is trained on",
            )
    if not validated.tubes.num_rows:
        raise InputError(
            f"--val-store {job.val_store} has no ground truth to validate on",
            found=f"{validated.videos.num_rows} {split} videos without a tube",
            todo="give a store with tubes",
        )
    return validated


def _check_alike(ranks: Ranks, store: Store, validated: Store | None, config: Config) -> None:
    """Raises InputError if the processes would train on different stores, or compute in different precisions."""
    digests = store.content_digest, validated.content_digest if validated is not None else "none"
    for what, value, todo in (
        ("store", digests[0], "give one that all machines see, or copy it to each once more"),
        ("validation store", digests[1], "give one that all machines see, or copy it to each once more"),
        ("precision", "bfloat16" if config.amp else "float32", "say --amp or --no-amp: not all machines have bfloat16"),
    ):
        if not ranks.agree(what, value):
            raise InputError(
                f"the processes have not the same {what}",
                found=f"{value[:12]} in process {ranks.rank}",
                wanted="the same in all of them",
                todo=todo,
            )
