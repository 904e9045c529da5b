"""The verdict names what was made slow."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import trainer.distributed
import trainer.stages
import trainer.step
from data_manifests.prior_spec import ACT300
from tests.trainer import ranks
from tests.trainer.sparse_targets import noise_batch
from trainer.config import Config
from trainer.distributed import Ranks
from trainer.gradients import GradientSum
from trainer.loss import Losses
from trainer.model import ActNet
from trainer.optim import make_optimiser, parameter_groups, set_rate
from trainer.stages import PARTS, Clock, StageClock, profile_steps, table, verdict
from trainer.step import Learner, train_step

HOST = torch.device("cpu")
ALONE = Ranks(0, 1, HOST)
CONFIG = Config(width=1 / 16, norm="none", iterations=6, batch=1, base_lr=1e-3, schedule="step")
TWO = dataclasses.replace(CONFIG, batch=2)
PAUSE = 0.5
"""Seconds that a rank waits; a step takes a tenth."""


def _model() -> ActNet:
    return ActNet(ACT300, 2, 2, CONFIG.width)


Part = Callable[[ActNet], torch.nn.Module]
FORWARD: dict[str, tuple[Part, str]] = {
    "an extra layer": (lambda model: model.backbone.convs["conv6_1"], "the backbone"),
    "heads": (lambda model: model.conf[5], "the heads"),
}
BACKWARD: dict[str, tuple[Part, str]] = {
    "the last head": (lambda model: model.conf[5], "the heads"),
    "the first head": (lambda model: model.loc[0], "the heads"),
    "the last extra layer": (lambda model: model.backbone.convs["conv9_2"], "the backbone"),
    "the first extra layer": (lambda model: model.backbone.convs["conv6_1"], "the backbone"),
    "the trunk": (lambda model: model.backbone.convs["conv3_1"], "the backbone"),
}


class Pauses:
    """Makes the host's clock go forward instead of waiting; not in the first step, which nobody times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real, self.past, self.calls = time.perf_counter, 0.0, 0
        monkeypatch.setattr("trainer.stages.time.perf_counter", lambda: real() + self.past)

    def __call__(self, *_: object) -> None:
        self.past += 20.0 * (self.calls > 0)
        self.calls += 1


def _told(model: ActNet, monkeypatch: pytest.MonkeyPatch, before: Callable[[], object] = lambda: None) -> str:
    """The verdict on a step; `before` is called before each."""
    optimiser = make_optimiser(parameter_groups(model, CONFIG), CONFIG)
    set_rate(optimiser, 1e-3)
    batch = noise_batch((3,))

    def run_step(clock: Clock) -> None:
        before()
        train_step(
            Learner(model, model, GradientSum(model, 1), optimiser), [batch], 0, config=CONFIG, ranks=ALONE, clock=clock
        )

    run_step(Clock())
    monkeypatch.setattr("trainer.stages.WARM_UP", 0)
    return profile_steps(1, run_step, model, ALONE, None).splitlines()[-1]


def test_a_slow_loader_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    told = _told(_model(), monkeypatch, before=Pauses(monkeypatch))
    assert re.search(r"waited for data (\d\d|100)% of the time; most of it, \1%, went to the loader\.$", told)


@pytest.mark.parametrize("slow", FORWARD)
def test_a_slow_forward_is_found(slow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (part, named) = _model(), FORWARD[slow]
    part(model).register_forward_hook(Pauses(monkeypatch))
    assert _told(model, monkeypatch).endswith(f"went to {named}.")


@pytest.mark.parametrize("slow", BACKWARD)
def test_a_slow_backward_is_found(slow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (part, named) = _model(), BACKWARD[slow]
    part(model).weight.register_hook(Pauses(monkeypatch))
    assert _told(model, monkeypatch).endswith(f"went to {named}.")


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_slow_loss_is_found(direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pause, real = Pauses(monkeypatch), trainer.step.tubelet_loss

    def slow_loss(loc: Tensor, conf: Tensor, **targets: Any) -> Losses:
        if direction == "forward":
            pause()
        else:
            loc = loc.view_as(loc)
            loc.register_hook(pause)  # called when all the rest of the backward of the loss is done
        return real(loc, conf, **targets)

    monkeypatch.setattr(trainer.step, "tubelet_loss", slow_loss)
    assert _told(_model(), monkeypatch).endswith("went to the loss.")


def _profiled(rank: int, tell: Connection) -> None:
    """Tells what is told of a run whose rank 1 has a slow loader, and then of one whose rank 1 has a slow loss."""
    joined, real = trainer.distributed.join("cpu"), trainer.step.tubelet_loss
    trainer.stages.WARM_UP = 0
    model = _model()
    network, gradients = DistributedDataParallel(model), GradientSum(model, 2)
    gradients.over_ranks(network)
    optimiser = make_optimiser(parameter_groups(model, TWO), TWO)
    set_rate(optimiser, 1e-3)
    batch = noise_batch((3,))
    slow = ""

    def loss(*args: Any, **targets: Any) -> Losses:
        time.sleep(pause * (slow == "loss"))
        return real(*args, **targets)

    def run_step(clock: Clock) -> None:
        time.sleep(pause * (slow == "loader"))
        train_step(Learner(network, model, gradients, optimiser), [batch], 0, config=TWO, ranks=joined, clock=clock)

    trainer.step.tubelet_loss = loss
    pause = 0.0
    run_step(Clock())
    begun = time.perf_counter()
    run_step(Clock())
    pause = max(PAUSE, 2 * (time.perf_counter() - begun))
    for part in ("loader", "loss"):
        slow = part if rank == 1 else ""
        tell.send(profile_steps(1, run_step, model, joined, None))
    torch.distributed.barrier()


def test_the_slow_one_of_two_ranks_is_named_by_both() -> None:
    started = ranks.start(2, _profiled)
    loader, loss = ([told.recv() for _, told in started] for _ in range(2))
    for process, _ in started:
        process.join(60)
    for told in loader:
        assert told.startswith("rank 1, which waited for data the most:\ndata wait")
        assert re.search(
            r"The CPU of rank 1 waited for data (\d\d)% of the time; most of it, \1%, went to the loader", told
        )
    for told in loss:
        assert re.search(
            r"went to the loss\.|went to waiting for other ranks; rank 1, .* spent \d\d% on the loss\.", told
        )


def test_every_rank_takes_the_same_steps(tmp_path: Path) -> None:
    """A step that only the traced rank takes would wait for the others for ever."""
    model = _model()
    taken: dict[bool, list[None]] = {True: [], False: []}
    for first in taken:

        def step(clock: Clock, mine: list[None] = taken[first]) -> None:
            mine.append(clock.at("copy"))

        profile_steps(2, step, model, ALONE, tmp_path if first else None)
    assert len(taken[True]) == len(taken[False]) > 2
    assert {path.name for path in tmp_path.iterdir()} == {"profile.json", "trace.json"}


NOTHING = dict.fromkeys(PARTS, 0.0)


def test_table_and_verdict_add_up() -> None:
    spent = NOTHING | {"data wait": 0.02, "backbone": 0.41, "backbone backward": 0.4, "loss": 0.17}
    assert verdict([spent], HOST) == "The CPU waited for data 2% of the time; most of it, 81%, went to the backbone."
    lines = table(spent).splitlines()
    assert len(lines) == 5
    assert lines[-1].split() == ["a", "step", "1000.00", "ms"]


def test_a_verdict_on_many_ranks_names_whom_they_wait_for() -> None:
    spent = [
        NOTHING | {"data wait": 0.0, "peers": 0.9, "backbone": 0.1},
        NOTHING | {"data wait": 0.1, "peers": 0.8, "backbone": 0.1},
        NOTHING | {"data wait": 0.0, "peers": 0.4, "backbone": 0.2, "heads backward": 0.3, "heads": 0.1},
    ]
    assert verdict(spent, torch.device("cuda")) == (
        "The GPU of rank 1 waited for data 10% of the time; most of it, 80%, went to waiting for other ranks; "
        "rank 2, which waited for them the least, spent 40% on the heads."
    )


def test_on_a_gpu_its_own_clock_is_read_and_only_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = iter(range(100)), []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.time = next(now)

        def elapsed_time(self, end: Event) -> float:
            assert asked == ["wait"]
            return 1000.0 * (end.time - self.time)

    monkeypatch.setattr("trainer.stages.torch.cuda.Event", Event)
    monkeypatch.setattr("trainer.stages.torch.cuda.synchronize", lambda: asked.append("wait"))
    monkeypatch.setattr("trainer.stages.time.perf_counter", lambda: pytest.fail("the host's clock was read"))
    clock = StageClock(torch.device("cuda"))
    for stage in ("data wait", "copy", "forward", "copy", "loss"):
        clock.at(stage)
    assert not asked
    spent = clock.seconds()
    assert {stage: seconds for stage, seconds in spent.items() if seconds} == {"data wait": 1, "copy": 2, "forward": 1}
