"""Interleaved timing: a speed is a ratio to a peer, measured in one run, median of several."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median


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


def machine() -> str:
    """The processor and the core count, as the operating system tells them."""
    with open("/proc/cpuinfo") as lines:
        model = next(
            (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine()
        )

    return f"{model}, {os.cpu_count()} cores"


def seconds(call: Callable[[], object], repeat: int = 1) -> float:
    """Wall seconds of one call, averaged over `repeat` calls."""
    start = time.perf_counter()
    for _ in range(repeat):
        call()
    return (time.perf_counter() - start) / repeat


def compare(
    name: str,
    subject: Callable[[], object],
    peer: Callable[[], object],
    *,
    peer_name: str,
    samples: int = 7,
    subject_repeat: int = 1,
    peer_repeat: int = 1,
    wanted: float | None = None,
) -> Row:
    """Times subject and peer in turn, after one uncounted call of each; the ratio is peer time / subject time, pair by pair.

    The row's texts carry the median milliseconds of each.
    """
    subject(), peer()
    pairs = [(seconds(subject, subject_repeat), seconds(peer, peer_repeat)) for _ in range(samples)]
    ratios = sorted(theirs / ours for ours, theirs in pairs)
    return Row(
        name=name,
        subject=f"{median(ours for ours, _ in pairs) * 1e3:.3f} ms",
        peer=f"{peer_name}: {median(theirs for _, theirs in pairs) * 1e3:.3f} ms",
        ratio=median(ratios),
        spread=(ratios[0], ratios[-1]),
        samples=samples,
        machine=machine(),
        wanted=wanted,
    )
