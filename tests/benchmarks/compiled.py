"""The demo's network trained compiled, with code that inductor makes, beside the same one not compiled.

`python -m tests.benchmarks.compiled`: how long the compiler takes, both losses, and the ratio of their steps. It takes minutes,
most of them in the C++ compiler, so `make test` compiles for the graph alone.
"""

from __future__ import annotations

import time

import torch

from data_manifests.prior_spec import ACT300
from tests.benchmarks.harness import row, seconds
from tests.trainer.sparse_targets import noise_batch
from trainer.config import load_config
from trainer.distributed import Ranks
from trainer.gradients import GradientSum
from trainer.host_memory import keep_freed_memory
from trainer.model import ActNet
from trainer.model.initial import initialise
from trainer.optim import make_optimiser, parameter_groups, set_rate
from trainer.stages import Clock
from trainer.step import Learner, train_step

STEPS, K, CLASSES = 20, 6, 6
CONFIG = load_config("demo", {"base_lr": 0.01})
BATCH = noise_batch((12, 7, 20, 9), K=K, classes=CLASSES)


def learner(compiled: bool) -> Learner:
    """As `trainer.run` makes it."""
    model = ActNet(ACT300, CLASSES, K, CONFIG.width, CONFIG.norm)
    initialise(model, 0)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = make_optimiser(parameter_groups(model, CONFIG), CONFIG)
    set_rate(optimiser, CONFIG.base_lr)
    return Learner(torch.compile(model) if compiled else model, model, GradientSum(model, 1), optimiser)


def main() -> None:
    """Trains both in turn on one batch."""
    keep_freed_memory()
    learners = learner(compiled=True), learner(compiled=False)
    losses: tuple[list[float], list[float]] = [], []
    times: tuple[list[float], list[float]] = [], []

    def step(which: int) -> None:
        ranks = Ranks(0, 1, torch.device("cpu"))
        values = train_step(learners[which], [BATCH], 0, config=CONFIG, ranks=ranks, clock=Clock())
        losses[which].append(values[0].item())

    begun = time.perf_counter()
    step(0), step(1)
    print(f"compiled in {time.perf_counter() - begun:.0f} s", flush=True)
    for _ in range(STEPS):
        for which in (0, 1):
            times[which].append(seconds(lambda: step(which)))  # noqa: B023  (called at once)
    for name, told in zip(("compiled", "not compiled"), losses):
        print(f"{name}: loss {told[0]:.4f} at first, {told[-1]:.4f} after {STEPS} steps more")
        assert told[-1] < 0.9 * told[0], "it does not learn"
    one = row("a step", times[0], "not compiled", times[1], None)
    print(
        f"{one.name}, compiled: {one.subject}; {one.peer}; ratio {one.ratio:.2f} ({one.spread[0]:.2f} to {one.spread[1]:.2f})"
    )


if __name__ == "__main__":
    main()
