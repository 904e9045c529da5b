"""What a run tells, and when: the device is never waited for, console, JSON lines and TensorBoard say the same."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.config import Config
from trainer.logs import LAG, Log, Reading, Watch

CONFIG = Config(
    width=1.0, norm="none", iterations=100, batch=4, base_lr=1e-4, schedule="step", milestones=(20,), log_every=10
)
CLIPS = (("Run/a", 3, 1),)


def _values(loss: float) -> torch.Tensor:
    return torch.tensor([loss, loss / 4, 3 * loss / 4, 12.0, 0.0, loss])


def test_losses_are_read_some_steps_late() -> None:
    watch = Watch(torch.device("cpu"))
    read = []
    for step in range(5):
        watch.push(step, _values(step), CLIPS)
        read.append([reading.step for reading in watch.take(LAG)])
    assert read == [[]] * LAG + [[0], [1], [2]]
    assert [reading.loss for reading in watch.take(0)] == [3, 4]


class FakeGpu:
    """Stands in for the memory and the events of a GPU, and notes what is asked of them."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def empty(self, shape: torch.Size, *, dtype: torch.dtype, pin_memory: bool) -> Memory:
        assert pin_memory
        return Memory(self)

    def Event(self, *, blocking: bool) -> Event:
        assert blocking, "a host that spins keeps a core from the loader"
        return Event(self)


class Memory:
    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu

    def copy_(self, values: torch.Tensor, non_blocking: bool) -> None:
        assert non_blocking
        self.values = values
        self.gpu.asked.append(f"copy {values[0]:.0f}")

    def tolist(self) -> list[float]:
        assert self.gpu.asked[-1] == f"wait for {self.values[0]:.0f}"
        return self.values.tolist()


class Event:
    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu

    def record(self) -> None:
        self.after = self.gpu.asked[-1].removeprefix("copy ")

    def synchronize(self) -> None:
        self.gpu.asked.append(f"wait for {self.after}")


def test_on_a_gpu_only_copies_of_earlier_steps_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu()
    monkeypatch.setattr("trainer.logs.torch.empty", gpu.empty)
    monkeypatch.setattr("trainer.logs.torch.cuda.Event", gpu.Event)
    watch = Watch(torch.device("cuda"))
    for step in range(4):
        watch.push(step, _values(step), CLIPS)
        watch.take(LAG)
    assert gpu.asked == ["copy 0", "copy 1", "copy 2", "wait for 0", "copy 3", "wait for 1"]


def test_an_interval_is_one_line_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    log = Log(tmp_path, CONFIG, 0)
    for step in range(25):
        log.read([Reading(step, float(step), 1.0, step - 1.0, 8.0, False)])
    assert [reading.step for reading in log.gathered] == [20, 21, 22, 23, 24]
    log.close()
    console = capsys.readouterr().out.splitlines()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(10, 4.5), (20, 14.5)]
    assert len(console) == 2
    assert re.fullmatch(
        r"step +10/100  loss 4\.5000 \(loc 1\.0000, conf 3\.5000\)  lr 1\.00e-04  [\d.]+ clips/s  \d+\.\d min left",
        console[0],
    )
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert set(board.Tags()["scalars"]) == set(lines[0]) - {"step"}
    for name in board.Tags()["scalars"]:
        told = [(event.step, event.value) for event in board.Scalars(name)]
        assert told == [(line["step"], pytest.approx(line[name])) for line in lines]


def _logged(folder: Path, start: int, steps: range) -> None:
    log = Log(folder, dataclasses.replace(CONFIG, log_every=1), start)
    log.read([Reading(step, float(start), 1.0, 1.0, 8.0, False) for step in steps])
    log.close()


def test_a_resumed_log_has_each_step_once_also_that_it_resumes_from(tmp_path: Path) -> None:
    _logged(tmp_path, 0, range(5))
    (first,) = (tmp_path / "tensorboard").iterdir()
    first.rename(first.with_name("events.out.tfevents.0"))  # lest both be of one second
    _logged(tmp_path, 3, range(3, 6))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    shown = [(event.step, event.value) for event in board.Scalars("loss")]
    assert shown == [(line["step"], line["loss"]) for line in lines] == [(1, 0), (2, 0), (3, 0), (4, 3), (5, 3), (6, 3)]


@pytest.mark.parametrize("broken", [b"\0" * 40, b'{"step": 2, "lo', b"[2]", b"{}", b"\xff\r\xfe"])
def test_a_broken_line_is_named_and_costs_no_other(broken: bytes, tmp_path: Path, capsys) -> None:
    _logged(tmp_path, 0, range(4))
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    line = broken + b"\n"
    path.write_bytes(b"".join([lines[0], line, *lines[2:]]))
    _logged(tmp_path, 3, range(3, 3))
    assert path.read_bytes() == lines[0] + lines[2]
    assert capsys.readouterr().err == f"warning: {path}, line 2, is damaged, and dropped: {line!r}\n"
