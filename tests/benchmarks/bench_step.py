"""A whole training step against the bare network's forward and backward: what the rest of the trainer costs.

Frames and targets come from the demo's store, read by a loader beside the training as in a run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import torch

from tests.benchmarks.harness import Row, compare
from trainer.config import load_config
from trainer.data.loader import Loader
from trainer.data.reader import Store
from trainer.distributed import Ranks
from trainer.host_memory import keep_freed_memory
from trainer.model import ActNet
from trainer.model.initial import initialise
from trainer.optim import make_optimiser, parameter_groups, set_rate
from trainer.stages import Clock
from trainer.step import Learner, train_step

HOST = Ranks(0, 1, torch.device("cpu"))


def bench() -> list[Row]:
    """The presets `ucf101` (width 1, 2 clips a step here) and `demo` (width 1/8, 4 clips)."""
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store")
        command = ["build", "--dataset", "demo", "--root", f"{folder}/data", "--store", str(store), "--views", "0"]
        subprocess.run([sys.executable, "-m", "pipeline", *command], check=True, stdout=subprocess.DEVNULL)
        return [_row(store, "demo", 4, 1.15, 9), _row(store, "ucf101", 2, 1.05, 3)]


def _row(store: Path, preset: str, batch: int, most: float, samples: int) -> Row:
    meta = Store.open(store).meta
    config = load_config(preset, {"batch": batch, "workers": 1})
    model = ActNet(meta.priors, len(meta.classes), meta.K, config.width, config.norm)
    initialise(model, 0)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = make_optimiser(parameter_groups(model, config), config)
    set_rate(optimiser, 1e-6)
    batches = iter(Loader(store, split="train", seed=0, global_batch=batch, workers=config.workers))
    learner = Learner(model, model, optimiser)
    images = model.normalise(next(batches).frames)
    loc_grad = torch.randn(batch, meta.priors.priors, meta.K, 4)
    conf_grad = torch.randn(batch, meta.priors.priors, len(meta.classes) + 1)

    def step() -> None:
        train_step(learner, [next(batches)], 0, config=config, ranks=HOST, clock=Clock())

    def bare() -> None:
        with torch.autocast("cpu", torch.bfloat16) if config.amp else nullcontext():
            loc, conf = model(images)
        torch.autograd.backward((loc, conf), (loc_grad.to(loc.dtype), conf_grad.to(conf.dtype)))
        model.zero_grad(set_to_none=True)

    try:
        name = f"training step, preset {preset}, batch {batch}, K = {meta.K} (loader, colours, loss and SGD included)"
        return compare(name, step, bare, peer_name="bare forward + backward", samples=samples, wanted=1 / most)
    finally:
        batches.close()  # type: ignore[attr-defined]
