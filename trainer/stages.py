"""Where a step's time goes (`--profile N`): the device's own clock at the border of each stage, and a verdict."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import register_multi_grad_hook

from trainer.distributed import Ranks
from trainer.model import ActNet

WARM_UP = 2
"""Steps before the first that counts."""
LOADER, WAITING = "the loader", "waiting for other ranks"
PARTS = {
    "data wait": "data wait",
    "peers": WAITING,
    "copy": "copying and colours",
    "forward": "forward",
    "backbone": "backbone, forward",
    "heads": "heads, forward",
    "loss": "loss",
    "backward": "loss, backward",
    "heads backward": "heads, backward",
    "backbone backward": "backbone, backward",
    "all-reduce": "all-reduce",
    "optimiser": "optimiser",
}


class Clock:
    """Told where stages begin. This one does not listen: it is for training."""

    apart = False
    "Whether gradients are to be reduced in a stage of their own, not during backward."

    def at(self, stage: str) -> None:
        """A stage begins, and the one before it ends."""


class StageClock(Clock):
    """Notes the device's time at each border: CUDA events on a GPU, which cost it nothing and wait for nothing.

    The time between the events around the host's wait for data is the time that the device had nothing to do.
    """

    apart = True

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks: list[tuple[str, torch.cuda.Event | float]] = []

    def at(self, stage: str) -> None:
        """A stage begins, and the one before it ends."""
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append((stage, event))
        else:
            self._marks.append((stage, time.perf_counter()))

    def follow(self, model: ActNet) -> None:
        """Tells the backbone, the heads and the loss apart, in forward and backward, by hooks.

        The engine of autograd runs what was computed later first: no part of the heads after the first gradient of a map.
        """
        model.backbone.register_forward_pre_hook(lambda *_: self.at("backbone"))
        model.backbone.register_forward_hook(lambda _, __, maps: self._heads_begin(maps))
        model.register_forward_hook(lambda _, __, answers: self._at_gradient(answers, "heads backward"))

    def _heads_begin(self, maps: Sequence[Tensor]) -> None:
        self._at_gradient(maps, "backbone backward")
        self.at("heads")

    def _at_gradient(self, tensors: Sequence[Tensor], stage: str) -> None:
        register_multi_grad_hook(tensors, lambda _: self.at(stage), mode="any")

    def seconds(self) -> dict[str, float]:
        """Seconds of each stage since the last call; waits for the device."""
        if self._cuda:
            torch.cuda.synchronize()
        spent = dict.fromkeys(PARTS, 0.0)
        for (stage, begin), (_, end) in zip(self._marks, self._marks[1:], strict=False):
            if isinstance(begin, float) and isinstance(end, float):
                spent[stage] += end - begin
            elif isinstance(begin, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
                spent[stage] += begin.elapsed_time(end) / 1e3
        self._marks = self._marks[-1:]
        return spent


def profile_steps(
    steps: int, run_step: Callable[[Clock], object], model: ActNet, ranks: Ranks, out: Path | None
) -> str:
    """Runs `steps` steps after a warm-up; the table and the verdict. All ranks of a run take part, in the same steps.

    Args:
        run_step: fetches the data of a step and takes it, telling the clock.
        model: not compiled: the hooks of the clock would be compiled with it, into another program.
        out: folder for `profile.json` and, of one further step, the chrome trace `trace.json`; None writes nothing, but
            takes that step too: the rank that is traced waits for its peers in it.
    """
    device = ranks.device
    clock = StageClock(device)
    clock.follow(model)
    clock.at("data wait")
    for _ in range(WARM_UP):
        run_step(clock)
    clock.seconds()
    for _ in range(steps):
        run_step(clock)
    spent = _of_all_ranks({stage: total / steps for stage, total in clock.seconds().items()}, ranks)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) if out else nullcontext() as trace:
        run_step(clock)
    rank = _starved(spent)
    starved = spent[rank]
    if out is not None and trace is not None:
        out.mkdir(parents=True, exist_ok=True)
        trace.export_chrome_trace(str(out / "trace.json"))
        (out / "profile.json").write_text(
            json.dumps({"seconds_a_step": starved, "verdict": verdict(spent, device)}, indent=1)
        )
    whose = f"rank {rank}, which waited for data the most:\n" if ranks.count > 1 else ""
    return whose + table(starved) + "\n" + verdict(spent, device)


def _of_all_ranks(spent: dict[str, float], ranks: Ranks) -> list[dict[str, float]]:
    """The seconds of each stage on each rank."""
    shared = torch.zeros(ranks.count, len(spent), dtype=torch.float64)
    shared[ranks.rank] = torch.tensor(list(spent.values()), dtype=torch.float64)
    rows: list[list[float]] = ranks.sum(shared.to(ranks.device)).tolist()
    return [dict(zip(spent, row, strict=True)) for row in rows]


def _starved(spent: list[dict[str, float]]) -> int:
    """The rank that waited for data the most."""
    return max(range(len(spent)), key=lambda rank: spent[rank]["data wait"])


def table(spent: dict[str, float]) -> str:
    """A line a stage that took any time: milliseconds and share."""
    whole = sum(spent.values())
    lines = [
        f"{PARTS[stage]:26s} {seconds * 1e3:10.2f} ms {seconds / whole:6.1%}"
        for stage, seconds in spent.items()
        if seconds > 0
    ]
    return "\n".join([*lines, f"{'a step':26s} {whole * 1e3:10.2f} ms"])


def verdict(spent: list[dict[str, float]], device: torch.device) -> str:
    """One sentence: how long the device waited for data, and what takes most of the time.

    Args:
        spent: the seconds of each stage on each rank. The sentence is about the one that waited for data the most, and,
            where that one waited for its peers even more, about the one that they waited for too.
    """
    rank = _starved(spent)
    name = ("GPU" if device.type == "cuda" else "CPU") + (f" of rank {rank}" if len(spent) > 1 else "")
    parts = _shares(spent[rank])
    most = max(parts, key=lambda part: parts[part])
    told = f"The {name} waited for data {parts[LOADER]:.0%} of the time; most of it, {parts[most]:.0%}, went to {most}"
    if most == WAITING:
        late = min(range(len(spent)), key=lambda rank: spent[rank]["peers"])
        parts = _shares(spent[late])
        del parts[WAITING]
        most = max(parts, key=lambda part: parts[part])
        told += f"; rank {late}, which waited for them the least, spent {parts[most]:.0%} on {most}"
    return told + "."


def _shares(spent: dict[str, float]) -> dict[str, float]:
    """What each culprit has of the time."""
    seconds = {
        LOADER: spent["data wait"],
        WAITING: spent["peers"],
        "copying and colours": spent["copy"],
        "the backbone": spent["backbone"] + spent["backbone backward"],
        "the heads": spent["forward"] + spent["heads"] + spent["heads backward"],
        "the loss": spent["loss"] + spent["backward"],
        "the all-reduce": spent["all-reduce"],
        "the optimiser": spent["optimiser"],
    }
    whole = sum(seconds.values())
    return {name: part / whole for name, part in seconds.items()}
