"""The figures of an evaluation as text."""

from __future__ import annotations

import textwrap
from typing import Any

from trainer.metrics.figures import Evaluation, map_figures
from trainer.metrics.frame import Detections
from trainer.metrics.protocol import ALL_PROTOCOLS
from trainer.metrics.video import TubeDetections

NAMED = 10
"""Videos or classes that are told on the terminal; all are in the figures' file."""


def _points(value: float | None) -> str:
    return "    -" if value is None else f"{100 * value:5.1f}"


def _some(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def table(metrics: dict[str, Any]) -> str:
    """The figures in points of 100, with the protocol below them."""
    frame, video = metrics["frame_ap"]["0.5"], metrics["video_ap"]
    width = max(len(name) for name in ["mean", *frame])
    lines = [f"{'':{width}}  frame@0.5  video@0.2  video@0.5  video@0.75  video@0.5:0.95"]
    rows = [(name, [frame[name], *(video[overlap][name] for overlap in video)]) for name in frame]
    rows.append(("mean", [metrics["frame_map"]["0.5"], *metrics["video_map"].values()]))
    for name, values in rows:
        cells = "".join(f"{_points(value):>{space}}" for value, space in zip(values, (11, 11, 11, 12, 16), strict=True))
        lines.append(f"{name:{width}}{cells}")
    errors = ", ".join(f"{kind} {_points(value).strip()}" for kind, value in metrics["errors"]["mean"].items())
    lines += ["", f"frames at 0.5, of 100: {errors}", f"protocol: {metrics['protocol']['name']}"]
    lines += textwrap.wrap(metrics["protocol"]["words"], 110, initial_indent="  ", subsequent_indent="  ")
    lines += [f"{what.replace('_', ' ')}: {_some(names)}" for what, names in metrics["left_out"].items() if names]
    return "\n".join(lines)


def protocol_table(evaluation: Evaluation) -> tuple[str, list[dict[str, Any]]]:
    """The same detections under each published protocol: as text, and as the figures."""
    detections = Detections.of([one.detections for one in evaluation.findings])
    tubes = TubeDetections.of([one.tubes for one in evaluation.findings])
    lines, rows = [], []
    for protocol in ALL_PROTOCOLS:
        figure = map_figures(detections, tubes, evaluation.truth, evaluation.classes, protocol)
        rows.append({"protocol": protocol.name, "frame_map": figure["frame_map"], "video_map": figure["video_map"]})
        cells = [figure["frame_map"]["0.5"], *figure["video_map"].values()]
        lines.append(f"{protocol.name:34}" + "".join(f"{_points(value):>16}" for value in cells))
    names = ["frame@0.5", *(f"video@{overlap}" for overlap in rows[0]["video_map"])]
    head = f"{'protocol':34}" + "".join(f"{name:>16}" for name in names)
    return "\n".join([head, *lines]), rows
