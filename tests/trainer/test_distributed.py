"""How the processes of a run meet and part: on GPUs too, where none is at hand to show it."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from typing import NoReturn

import pytest
import torch
import torch.distributed as dist

import trainer.distributed
from trainer.distributed import PATIENCE, Ranks, join


@pytest.mark.parametrize(("backend", "named", "bound"), [("", "nccl", "cuda:3"), ("gloo", "gloo", None)])
def test_a_process_takes_the_gpu_of_its_place_and_tells_nccl(
    backend: str, named: str, bound: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fourth of the second of two machines with eight GPUs."""
    for name, value in {"RANK": "11", "WORLD_SIZE": "16", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    done: list[tuple[str, str | None]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: done.append(("set", str(device))))

    def init(backend: str, *, device_id: torch.device | None, timeout: timedelta | None) -> None:
        done.append((backend, device_id and str(device_id)))
        assert timeout == (None if backend == "nccl" else PATIENCE), "a peer's video may take longer than half an hour"

    monkeypatch.setattr(dist, "init_process_group", init)
    assert join("auto", backend) == Ranks(11, 16, torch.device("cuda:3"))
    assert done == [("set", "cuda:3"), (named, bound)], "its GPU before all else: no memory is taken on another"


class Store(dist.Store):
    """Of a process group: with a failure that a rank told, or gone."""

    def __init__(self, failure: str | None) -> None:
        super().__init__()
        self.failure = failure

    def check(self, _: list[str]) -> bool:
        if self.failure is None:
            raise dist.DistNetworkError("failed to recv, got 0 bytes")
        return bool(self.failure)

    def get(self, _: str) -> bytes:
        return (self.failure or "").encode()


class Over(threading.Event):
    """Whether the work of this rank is over, as it is asked, time after time."""

    def __init__(self, *answers: bool) -> None:
        super().__init__()
        self.answers = iter(answers)

    def wait(self, timeout: float | None = None) -> bool:
        return next(self.answers)


def _ended(status: int) -> NoReturn:
    raise SystemExit(status)


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        ("rank 9: no memory", "stopped\n  found: rank 9: no memory"),
        (None, "is gone, without a word\n  found: failed to recv"),
    ],
)
def test_a_rank_that_nothing_wakes_is_ended(failure: str | None, told: str, monkeypatch, capsys) -> None:
    """As with NCCL, whose collectives wait on for peers that are gone."""
    monkeypatch.setattr(os, "_exit", _ended)
    with pytest.raises(SystemExit) as end:
        trainer.distributed._listen(Store(failure), Over(False, False))
    assert end.value.code == 2
    assert f"error: another process of this run {told}" in capsys.readouterr().err


@pytest.mark.parametrize("failure", ["rank 9: no memory", None])
def test_a_rank_that_ends_by_itself_is_let(failure: str | None, monkeypatch, capsys) -> None:
    monkeypatch.setattr(os, "_exit", _ended)
    trainer.distributed._listen(Store(failure), Over(False, True, True))
    assert capsys.readouterr().err == ""
