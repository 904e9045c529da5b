"""A whole training step against the bare network's forward and backward: what the rest of the trainer costs.

Frames and targets come from the demo's store, read by a loader beside the training as in a run.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import torch

from tests.benchmarks.harness import Row, compare, devices
from trainer.bfloat16 import has_bfloat16
from trainer.config import load_config
from trainer.data.loader import Loader
from trainer.data.reader import Store
from trainer.distributed import Ranks
from trainer.gradients import GradientSum
from trainer.host_memory import keep_freed_memory
from trainer.model import ActNet
from trainer.model.initial import initialise
from trainer.optim import make_optimiser, parameter_groups, set_rate
from trainer.resume import parts_of_share
from trainer.stages import Clock
from trainer.step import Learner, train_step


def bench() -> list[Row]:
    """The presets `ucf101` (width 1; 2 clips a step on a CPU, its own 8 on a GPU) and `demo` (width 1/8, 4 clips)."""
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store")
        command = ["build", "--dataset", "demo", "--root", f"{folder}/data", "--store", str(store), "--views", "0"]
        subprocess.run([sys.executable, "-m", "pipeline", *command], check=True, stdout=subprocess.DEVNULL)
        return [row for device in devices() for row in _rows(store, device)]


def _rows(store: Path, device: torch.device) -> list[Row]:
    if device.type == "cpu":
        return [_row(store, device, "demo", 4, 1, 1.15, 9), _row(store, device, "ucf101", 2, 1, 1.05, 3)]
    return [
        _row(store, device, "demo", 4, 1, 1.15, 7, steps=50),
        _row(store, device, "ucf101", 8, 6, 1.05, 7, steps=20),
    ]


def _row(
    store: Path, device: torch.device, preset: str, batch: int, workers: int, most: float, samples: int, steps: int = 1
) -> Row:
    meta = Store.open(store).meta
    config = load_config(preset, {"batch": batch, "workers": workers})
    config = dataclasses.replace(config, amp=config.amp and has_bfloat16(device))  # as a run has it
    model = ActNet(meta.priors, len(meta.classes), meta.K, config.width, config.norm)
    initialise(model, 0)
    model.to(device)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = make_optimiser(parameter_groups(model, config), config)
    set_rate(optimiser, 1e-6)
    pin = device.type == "cuda"
    parts = parts_of_share(None, config, 1)
    batches = iter(
        Loader(Store.open(store, "train"), seed=0, global_batch=batch, parts=parts, workers=workers, pin=pin)
    )
    learner = Learner(model, model, GradientSum(model, parts), optimiser)
    images = model.normalise(torch.cat([next(batches).frames for _ in range(parts)]).to(device))
    loc_grad = torch.randn(batch, meta.priors.priors, meta.K, 4, device=device)
    conf_grad = torch.randn(batch, meta.priors.priors, len(meta.classes) + 1, device=device)

    def step() -> None:
        read = [next(batches) for _ in range(parts)]
        train_step(learner, read, 0, config=config, ranks=Ranks(0, 1, device), clock=Clock())

    def bare() -> None:
        with torch.autocast(device.type, torch.bfloat16) if config.amp else nullcontext():
            loc, conf = model(images)
        torch.autograd.backward((loc, conf), (loc_grad.to(loc.dtype), conf_grad.to(conf.dtype)))
        model.zero_grad(set_to_none=True)

    try:
        return compare(
            f"training step, preset {preset}, batch {batch}, K = {meta.K}, {device.type} (loader, colours, loss and SGD included)",
            step, bare, peer_name="bare forward + backward", samples=samples, subject_repeat=steps, peer_repeat=steps,
            wanted=1 / most, device=device,
        )  # fmt: skip
    finally:
        batches.close()  # type: ignore[attr-defined]
