"""The verdict names what was made slow."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

import trainer.step
from data_manifests.prior_spec import ACT300
from tests.trainer.sparse_targets import noise_batch
from trainer.config import Config
from trainer.distributed import Ranks
from trainer.model import ActNet
from trainer.optim import make_optimiser, parameter_groups, set_rate
from trainer.stages import Clock, StageClock, profile_steps, table, verdict
from trainer.step import Learner, train_step

HOST = torch.device("cpu")
CONFIG = Config(width=1 / 16, norm="none", iterations=6, batch=1, base_lr=1e-3, schedule="step")


@pytest.mark.parametrize(
    ("slow", "named"), [("loader", "the loader"), ("loss", "the loss"), ("backbone", "the backbone")]
)
def test_an_artificially_slow_part_is_found(slow: str, named: str, monkeypatch) -> None:
    def pause(*_: object) -> None:
        time.sleep(next(pauses))

    pauses = iter((0.0, 1.5, 0.0))  # a step before, the one that is timed, the one that is traced

    model = ActNet(ACT300, 2, 2, CONFIG.width)
    optimiser = make_optimiser(parameter_groups(model, CONFIG), CONFIG)
    set_rate(optimiser, 1e-3)
    batch = noise_batch((3,))
    if slow == "backbone":
        model.backbone.convs["conv6_1"].register_forward_hook(pause)
    if slow == "loss":
        real = trainer.step.tubelet_loss

        def slow_loss(*args, **kwargs):
            pause()
            return real(*args, **kwargs)

        monkeypatch.setattr(trainer.step, "tubelet_loss", slow_loss)

    def run_step(clock: Clock) -> None:
        if slow == "loader":
            pause()
        learner = Learner(model, model, optimiser)
        train_step(learner, [batch], 0, config=CONFIG, ranks=Ranks(0, 1, HOST), clock=clock)

    run_step(Clock())
    monkeypatch.setattr("trainer.stages.WARM_UP", 0)
    told = profile_steps(1, run_step, model, HOST, None)
    assert told.splitlines()[-1].endswith(f"went to {named}." if slow != "loss" else "backward).")
    assert named in told.splitlines()[-1]


def test_every_rank_takes_the_same_steps(tmp_path: Path) -> None:
    """A step that only the traced rank takes would wait for the others for ever."""
    model = ActNet(ACT300, 2, 2, CONFIG.width)
    taken: dict[bool, list[None]] = {True: [], False: []}
    for first in taken:

        def step(clock: Clock, mine: list[None] = taken[first]) -> None:
            mine.append(clock.at("copy"))

        profile_steps(2, step, model, HOST, tmp_path if first else None)
    assert len(taken[True]) == len(taken[False]) > 2
    assert {path.name for path in tmp_path.iterdir()} == {"profile.json", "trace.json"}


def test_table_and_verdict_add_up() -> None:
    spent = dict.fromkeys(
        ("data wait", "copy", "forward", "backbone", "heads", "loss", "backward", "backbone backward", "all-reduce", "optimiser"), 0.0
    ) | {"data wait": 0.02, "backbone": 0.41, "backbone backward": 0.4, "loss": 0.17}  # fmt: skip
    assert verdict(spent, HOST) == ("The CPU waited for data 2% of the time; most of it, 81%, went to the backbone.")
    lines = table(spent).splitlines()
    assert len(lines) == 5
    assert lines[-1].split() == ["a", "step", "1000.00", "ms"]


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
