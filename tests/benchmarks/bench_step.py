"""A whole training step against the bare network's forward and backward: what the rest of the trainer costs.

The step's batches come from a real store, read by a loader in this process' spare time as in a run.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from tests.benchmarks.harness import Row, compare
from tests.trainer.tiny_store import write_tiny_store
from trainer.config import Config
from trainer.data.loader import Loader
from trainer.data.reader import Store
from trainer.distributed import Ranks
from trainer.model import ActNet
from trainer.model.initial import initialise
from trainer.optim import make_optimiser, parameter_groups, set_rate
from trainer.stages import Clock
from trainer.step import Learner, train_step

HOST = Ranks(0, 1, torch.device("cpu"))


def bench() -> list[Row]:
    """Width 1 (2 clips a step) and width 1/8 (8 clips)."""
    with tempfile.TemporaryDirectory() as folder:
        store = write_tiny_store(Path(folder))
        return [_row(store, 1.0, 2, 1.05, 3), _row(store, 0.125, 8, 1.15, 7)]


def _row(store: Path, width: float, batch: int, most: float, samples: int) -> Row:
    meta = Store.open(store).meta
    config = Config(width=width, norm="none", iterations=1, batch=batch, base_lr=1e-6, schedule="step", workers=1)
    model = ActNet(meta.priors, len(meta.classes), meta.K, width)
    initialise(model, 0)
    optimiser = make_optimiser(parameter_groups(model, config), config)
    set_rate(optimiser, config.base_lr)
    batches = iter(Loader(store, split="train", seed=0, global_batch=batch, workers=config.workers))
    learner = Learner(model, model, optimiser)
    images = model.normalise(next(batches).frames)
    loc_grad = torch.randn(batch, meta.priors.priors, meta.K, 4)
    conf_grad = torch.randn(batch, meta.priors.priors, len(meta.classes) + 1)

    def step() -> None:
        train_step(learner, [next(batches)], 0, config=config, ranks=HOST, clock=Clock())

    def bare() -> None:
        torch.autograd.backward(model(images), (loc_grad, conf_grad))
        model.zero_grad(set_to_none=True)

    name = f"training step, width {width}, batch {batch}, K = {meta.K} (loader, colours, loss and SGD included)"
    return compare(name, step, bare, peer_name="bare forward + backward", samples=samples, wanted=1 / most)
