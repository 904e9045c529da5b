"""The training part of `python -m trainer.report`: one run, or several overlaid with the spread over their seeds."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_manifests.errors import InputError
from data_manifests.manifest import write_atomically
from trainer.run_page import RUN_PAGE
from trainer.run_record import Run, read_run
from trainer.stages import PARTS

COLOURS = ("#2b8cbe", "#d95f0e", "#31a354", "#c51b8a", "#807dba", "#b8860b")
"""One a group of runs, repeated; each stands out on white and on black."""
CHARTS = {
    "loss": "loss",
    "loc": "localisation part",
    "conf": "confidence part",
    "positives": "positives a clip",
    "rate": "learning rate of the heads' weights",
    "speed": "clips a second",
    "val_frame_map": "validation frame-mAP@0.5",
    "val_video_map": "validation video-mAP@0.5",
}
MOST_POINTS = 400
Points = list[tuple[int, float]]


def series(run: Run) -> dict[str, Points]:
    """The curves of a run, by `CHARTS`; those that it has no point of are left out.

    The speed is of the steps since the line before, not the mean that the log tells, which is since the process' start.
    """
    lines = [line for line in run.lines if "loss" in line]
    batch = run.config["batch"]
    curves: dict[str, Points] = {name: [] for name in CHARTS}
    before: dict[str, float] = {"step": 0, "seconds": 0.0}
    begun_before = 0
    for line in lines:
        step, seconds = int(line["step"]), line["seconds"] - before["seconds"]
        begun = round(step - line["clips_per_second"] * line["seconds"] / batch)
        for name in ("loss", "loc", "conf"):
            curves[name].append((step, line[name]))
        curves["positives"].append((step, line["positives"] / batch))
        curves["rate"].append((step, line["base_lr"]))
        resumed = begun != begun_before
        speed = line["clips_per_second"] if resumed else batch * (step - before["step"]) / seconds
        curves["speed"].append((step, speed))
        before, begun_before = line, begun
    for line in run.lines:
        for name in ("val_frame_map", "val_video_map"):
            if name in line:
                curves[name].append((int(line["step"]), line[name]))
    return {name: points for name, points in curves.items() if points}


def spread(curves: Sequence[Points]) -> list[tuple[int, float, float, float]]:
    """Step, mean, least and most, at the steps that all curves have."""
    tables = [dict(points) for points in curves]
    steps = sorted(set.intersection(*(set(table) for table in tables)))
    values = {step: [table[step] for table in tables] for step in steps}
    return [(step, statistics.fmean(at), min(at), max(at)) for step, at in values.items()]


def report_data(runs: Sequence[Run]) -> dict[str, Any]:
    """All that the page shows, for JSON."""
    curves = [series(run) for run in runs]
    keys = list(dict.fromkeys(run.key for run in runs))
    groups = []
    for place, key in enumerate(keys):
        mine = [i for i, run in enumerate(runs) if run.key == key]
        shared = [name for name in CHARTS if all(name in curves[i] for i in mine)]
        bands = {name: spread([curves[i][name] for i in mine]) for name in shared} if len(mine) > 1 else {}
        groups.append(
            {
                "name": _group_name(runs, mine, len(keys)),
                "colour": COLOURS[place % len(COLOURS)],
                "runs": mine,
                "bands": {name: _thin(rows) for name, rows in bands.items()},
                "last": {name: _last([curves[i][name] for i in mine]) for name in shared},
            }
        )
    return {
        "charts": [(name, title) for name, title in CHARTS.items() if any(name in curve for curve in curves)],
        "groups": groups,
        "runs": [
            {
                "name": str(run.folder),
                "seed": run.config["seed"],
                "about": run.about + [("rates", _rates(run))],
                "verdict": run.verdict,
                "stages": [(PARTS[stage], 1e3 * seconds) for stage, seconds in run.stages.items() if seconds > 0],
                "evaluations": _evaluations(run.folder),
                "curves": {name: _thin(points) for name, points in curve.items()},
            }
            for run, curve in zip(runs, curves, strict=True)
        ],
        "settings": _settings(runs),
    }


def _group_name(runs: Sequence[Run], mine: list[int], groups: int) -> str:
    seeds = ", ".join(str(runs[i].config["seed"]) for i in mine)
    if groups == 1 or len(mine) == 1:
        return f"{runs[mine[0]].folder}" if len(mine) == 1 else f"seeds {seeds}"
    return f"{runs[mine[0]].folder} and {len(mine) - 1} more, seeds {seeds}"


def _last(curves: Sequence[Points]) -> dict[str, Any] | None:
    """Mean and standard deviation at the last step that all have; None if they share none."""
    shared = set.intersection(*(set(dict(points)) for points in curves))
    if not shared:
        return None
    step = max(shared)
    values = [dict(points)[step] for points in curves]
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"step": step, "mean": statistics.fmean(values), "deviation": deviation, "values": values}


def _rates(run: Run) -> str:
    factor = run.config["shared_rate"] or 1 / run.K
    return f"backbone weights {factor:.3g} x the heads', biases twice their weights'"


def _settings(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A row a setting: its value in each run and in each run's preset; those that differ come first."""
    rows = []
    for name in runs[0].config:
        values = [run.config[name] for run in runs]
        presets = [run.preset[name] for run in runs]
        differs = any(value != values[0] for value in values) or values != presets
        rows.append(
            {
                "name": name,
                "values": [_text(v) for v in values],
                "presets": [_text(v) for v in presets],
                "differs": differs,
            }
        )
    return sorted(rows, key=lambda row: not row["differs"])


def _text(value: Any) -> str:
    return json.dumps(value).strip('"')


def _evaluations(folder: Path) -> list[dict[str, Any]]:
    """The evaluations beside a run's checkpoints, by step; one a protocol that they were scored by."""
    found = []
    for out in sorted(folder.glob("checkpoints/evaluation-*")):
        for path in sorted(out.glob("metrics-*.json")) or sorted(out.glob("metrics.json")):
            try:
                metrics = json.loads(path.read_bytes())
                found.append(
                    {
                        "folder": str(out),
                        "step": metrics["checkpoint"]["step"],
                        "frame": metrics["frame_map"]["0.5"],
                        "video": metrics["video_map"]["0.5"],
                        "videos": f"{metrics['store']['split']}, {metrics['store']['path']}",
                        "protocol": metrics["protocol"]["name"] + (", bfloat16" if metrics.get("amp") else ""),
                    }
                )
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{path} is damaged", found=str(error), todo="evaluate again, or remove it") from error
    return sorted(found, key=lambda one: one["step"])


def _thin(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """At most `MOST_POINTS` rows, the last among them, each the mean of those since the row before; rounded."""
    width = max(1, math.ceil(len(rows) / MOST_POINTS))
    parts = [rows[max(0, end - width) : end] for end in range(len(rows), 0, -width)][::-1]
    return [
        (
            part[-1][0],
            *(float(f"{statistics.fmean(column):.5g}") for column in zip(*(row[1:] for row in part), strict=True)),
        )
        for part in parts
    ]


def write_run_report(folders: Sequence[Path], page: Path) -> Path:
    """Writes the page of one or more runs, whole or not at all. See `read_run` for what may be wrong."""
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError("a run is given twice", found=", ".join(map(str, folders)), todo="give each once")
    data = json.dumps(report_data([read_run(folder) for folder in folders]), allow_nan=False).replace("<", "\\u003c")
    write_atomically(page, RUN_PAGE.replace("@DATA@", data).encode())
    return page
