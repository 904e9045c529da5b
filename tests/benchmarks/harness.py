"""Interleaved timing: a speed is a ratio to a peer, measured in one run, median of several."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch


@dataclass(frozen=True)
class Row:
    """One line of `out/benchmarks.json`; ratio > 1 means that the subject is better."""

    name: str
    subject: str
    peer: str
    ratio: float
    spread: tuple[float, float]
    samples: int
    machine: str
    wanted: float | None = None


def devices() -> list[torch.device]:
    """The processor, and the GPU if there is one."""
    return [torch.device("cpu")] + [torch.device("cuda")] * torch.cuda.is_available()


def machine(device: torch.device | None = None) -> str:
    """The processor and the core count, as the operating system tells them, or the GPU."""
    if device is not None and device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with open("/proc/cpuinfo") as lines:
        model = next(
            (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine()
        )

    return f"{model}, {os.cpu_count()} cores"


def seconds(call: Callable[[], object], repeat: int = 1) -> float:
    """Wall seconds of one call, averaged over `repeat` calls; those of a GPU too, to their end."""
    wait = torch.cuda.synchronize if torch.cuda.is_initialized() else (lambda: None)
    wait()
    start = time.perf_counter()
    for _ in range(repeat):
        call()
    wait()
    return (time.perf_counter() - start) / repeat


Call = Callable[[], object]


def compare(
    name: str,
    subject: Call,
    peer: Call,
    *,
    peer_name: str,
    samples: int = 7,
    subject_repeat: int = 1,
    peer_repeat: int = 1,
    wanted: float | None = None,
    device: torch.device | None = None,
) -> Row:
    """Times subject and peer in turn, after one uncounted call of each; the ratio is peer time / subject time, pair by pair.

    The row's texts carry the median milliseconds of each.
    """
    subject(), peer()
    pairs = [(seconds(subject, subject_repeat), seconds(peer, peer_repeat)) for _ in range(samples)]
    return row(name, [ours for ours, _ in pairs], peer_name, [theirs for _, theirs in pairs], wanted, device)


def compare_all(
    name: str, subject: Call, peers: dict[str, tuple[Call, float | None]], *, samples: int = 7
) -> list[Row]:
    """Times the subject and all peers (by name: call, ratio wanted) in turn, in one interleaved run; as `compare`.

    Each round begins with another, so that none is always timed behind the same one and what that leaves running.
    """
    calls = {"": subject, **{peer: call for peer, (call, _) in peers.items()}}
    for call in calls.values():
        call()
    names = list(calls)
    orders = [names[first:] + names[:first] for first in (i % len(names) for i in range(samples))]
    rounds = [{name: seconds(calls[name]) for name in order} for order in orders]
    ours = [times[""] for times in rounds]
    return [
        row(f"{name}, against {peer}", ours, peer, [times[peer] for times in rounds], wanted)
        for peer, (_, wanted) in peers.items()
    ]


def row(
    name: str,
    ours: list[float],
    peer_name: str,
    theirs: list[float],
    wanted: float | None = None,
    device: torch.device | None = None,
) -> Row:
    """The row of seconds that were measured in pairs."""
    ratios = sorted(peer / subject for subject, peer in zip(ours, theirs, strict=True))
    return Row(
        name=name,
        subject=f"{median(ours) * 1e3:.3f} ms",
        peer=f"{peer_name}: {median(theirs) * 1e3:.3f} ms",
        ratio=median(ratios),
        spread=(ratios[0], ratios[-1]),
        samples=len(ratios),
        machine=machine(device),
        wanted=wanted,
    )
