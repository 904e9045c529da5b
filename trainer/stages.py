"""Where a step's time goes (`--profile N`): the device's own clock at the border of each stage, and a verdict."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import register_multi_grad_hook

from trainer.model import ActNet

WARM_UP = 2
"""Steps before the first that counts."""
PARTS = {
    "data wait": "data wait",
    "copy": "copying and colours",
    "forward": "forward",
    "backbone": "backbone, forward",
    "heads": "heads, forward",
    "loss": "loss",
    "backward": "loss and heads, backward",
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
        """Tells the backbone from the heads, in forward and backward, by hooks."""
        model.backbone.register_forward_pre_hook(lambda *_: self.at("backbone"))
        model.backbone.register_forward_hook(lambda _, __, maps: self._heads_begin(maps))

    def _heads_begin(self, maps: list[Tensor]) -> None:
        register_multi_grad_hook(maps, lambda _: self.at("backbone backward"))
        self.at("heads")

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
    steps: int, run_step: Callable[[Clock], object], model: ActNet, device: torch.device, out: Path | None
) -> str:
    """Runs `steps` steps after a warm-up; the table and the verdict. All ranks of a run take part, in the same steps.

    Args:
        run_step: fetches the data of a step and takes it, telling the clock.
        out: folder for `profile.json` and, of one further step, the chrome trace `trace.json`; None writes nothing, but
            takes that step too: the rank that is traced waits for its peers in it.
    """
    clock = StageClock(device)
    clock.follow(model)
    clock.at("data wait")
    for _ in range(WARM_UP):
        run_step(clock)
    clock.seconds()
    for _ in range(steps):
        run_step(clock)
    spent = {stage: total / steps for stage, total in clock.seconds().items()}
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) if out else nullcontext() as trace:
        run_step(clock)
    if out is not None and trace is not None:
        out.mkdir(parents=True, exist_ok=True)
        trace.export_chrome_trace(str(out / "trace.json"))
        (out / "profile.json").write_text(
            json.dumps({"seconds_a_step": spent, "verdict": verdict(spent, device)}, indent=1)
        )
    return table(spent) + "\n" + verdict(spent, device)


def table(spent: dict[str, float]) -> str:
    """A line a stage that took any time: milliseconds and share."""
    whole = sum(spent.values())
    lines = [
        f"{PARTS[stage]:26s} {seconds * 1e3:10.2f} ms {seconds / whole:6.1%}"
        for stage, seconds in spent.items()
        if seconds > 0
    ]
    return "\n".join([*lines, f"{'a step':26s} {whole * 1e3:10.2f} ms"])


def verdict(spent: dict[str, float], device: torch.device) -> str:
    """One sentence: how long the device waited for data, and what takes most of the time."""
    whole = sum(spent.values())
    culprits = {
        "the loader": spent["data wait"],
        "copying and colours": spent["copy"],
        "the backbone": spent["backbone"] + spent["backbone backward"],
        "the heads": spent["heads"] + spent["forward"],
        "the loss (with the heads' backward)": spent["loss"] + spent["backward"],
        "the all-reduce": spent["all-reduce"],
        "the optimiser": spent["optimiser"],
    }
    most = max(culprits, key=lambda name: culprits[name])
    name = "GPU" if device.type == "cuda" else "CPU"
    return f"The {name} waited for data {spent['data wait'] / whole:.0%} of the time; most of it, {culprits[most] / whole:.0%}, went to {most}."
