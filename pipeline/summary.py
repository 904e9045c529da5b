"""What the command line prints, for a person."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
    track,
)
from rich.table import Column, Table

from data_manifests.layout import MANIFEST
from pipeline.build import BuildReport
from pipeline.plan import ASSUMED_SIZE, Plan
from pipeline.reconcile import RULES

Item = TypeVar("Item")
WIDE = 200
"""Characters a line where stdout is no terminal."""
SHOWN = 10
"""Skipped videos that are named on the screen."""


def _console(*, plain: bool = False) -> Console:
    """Of stdout: as wide as a terminal, or in a pipe or a file wide enough for every table.

    Args:
        plain: what it prints is the user's, in which brackets and numbers mean nothing.
    """
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE
    return Console(width=width, markup=not plain, highlight=not plain)


def _table(*names: str | Column) -> Table:
    """One that breaks numbers in two, rather than cut them off, where it must be narrow."""
    return Table(*(Column(name, overflow="fold") if isinstance(name, str) else name for name in names))


def watched(items: Sequence[Item], what: str) -> Iterable[Item]:
    """The items, with a bar of how many are done on stderr if that is a terminal."""
    console = Console(stderr=True)
    return track(items, what, console=console, transient=True, disable=not console.is_terminal)


def measuring() -> AbstractContextManager[object]:
    """Says on stderr, if that is a terminal, that boxes are held against motion: it takes seconds."""
    return Console(stderr=True).status("measuring whether the boxes lie where the frames move")


@contextmanager
def reading_progress() -> Iterator[Callable[[int, int], None]]:
    """A bar over the bytes to read, on stderr if that is a terminal; told the bytes just read, and all there are."""
    console = Console(stderr=True)
    columns = TextColumn("reading"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda size, total: bar.update(task, advance=size, total=total)


def print_plan(plan: Plan, workers: int) -> None:
    """Counts, sizes, oddities."""
    console, told = _console(), plan.to_json(workers)
    console.print(
        f"[bold]{plan.settings.title}[/]: K = {plan.settings.K}, stride {plan.settings.stride}, {plan.settings.views} views"
    )
    table = _table("split", "videos", "windows", "clips", "(clip, tube) pairs", "clips with 2 tubes or more")
    per_class = _table(
        "split", Column("class", no_wrap=True), "videos", "tubes", "clips", "pairs", "clips with 2 or more"
    )
    for key in (key for key in told if key.endswith("_videos")):
        counts = told[key]
        names = ("videos", "windows", "clips", "pairs", "clips_with_2_or_more_gt")
        table.add_row(key.removesuffix("_videos"), *(f"{counts[name]:,}" for name in names))
        for name, of_class in counts["per_class"].items():
            row = (f"{of_class[field]:,}" for field in ("videos", "tubes", "clips", "pairs", "clips_ge2"))
            per_class.add_row(key.removesuffix("_videos"), name, *row)
    console.print(table, per_class)
    if plan.skipped:
        console.print(f"without {len(plan.skipped):,} videos that are not there")
    estimate = told["estimate"]
    console.print(
        f"{told['shards']} shards to build, about {decimal(estimate['bytes'], precision=2)}, "
        f"about {_duration(estimate['seconds'])} with {workers} workers"
    )
    if estimate["videos_of_unknown_size"]:
        console.print(
            f"  taking the frames of {estimate['videos_of_unknown_size']:,} videos as {ASSUMED_SIZE[0]} x {ASSUMED_SIZE[1]}: "
            "their own size is known when they are decoded"
        )
    if not estimate["lengths_are_known"]:
        console.print(
            "  windows, size and time are of each video up to its last box: these annotations do not say how long it is"
        )
    print_oddities(plan)


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def print_oddities(plan: Plan) -> None:
    """The rules that the annotations of the dataset were read by, and what of them no clip holds."""
    console = _console(plain=True)
    short, tubes = plan.short_tubes()
    if short:
        console.print(
            f"{short:,} of {tubes:,} tubes are shorter than a clip of K = {plan.settings.K} frames: no clip holds them"
        )
    of_train = np.flatnonzero(plan.videos["split"].to_numpy(zero_copy_only=False) == "train")
    if len(of_train) and not np.isin(plan.clips.video, of_train).any():
        console.print("warning: no clip to train on: no tube of a training video is as long as a clip")
    for oddity in plan.annotations.oddities:
        console.print(f"rule {oddity.rule} applied {oddity.count:,} times in the annotations: {oddity.meaning}")
        console.print(f"  first: {', '.join(oddity.examples)}")


@contextmanager
def build_progress(hidden: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar over the frames to build, with rate and time left, on stderr."""
    columns = (
        TextColumn("building"), BarColumn(), MofNCompleteColumn(), TextColumn("frames  {task.fields[rate]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), disable=hidden, transient=True) as bar:
        task = bar.add_task("", total=None, rate="")

        def advance(frames: int, total: int) -> None:
            done = bar.tasks[0].completed + frames
            rate = done / max(bar.tasks[0].elapsed or 0, 1e-9)
            bar.update(task, advance=frames, total=max(total, done), rate=f"{rate:,.0f}/s")

        yield advance


def print_build(report: BuildReport, store: Path) -> None:
    """What a build did, and what it skipped, by name."""
    if report.shards:
        rate = report.frames / max(report.seconds, 1e-9)
        print(
            f"built {report.shards} shards, {report.frames:,} frames in {report.seconds:.1f} s ({rate:,.0f} frames/s): {store}"
        )
    else:
        print(f"nothing to do: all {report.shards_before} shards are there: {store}")
        print("  (a video that is in the store is not looked at again)")
    for rule, videos in sorted(report.rules.items()):
        print(f"rule {rule} applied to {len(videos):,} videos: {RULES[rule]}")
        print(f"  {_some(sorted(videos))}")
    if report.other_versions:
        print("the store was begun with other versions (there / here), which may give other bytes for the same frames:")
        for version in report.other_versions:
            print(f"  {version}")
    if report.cut:
        print(f"{len(report.cut):,} videos are in the store up to their damage only (an earlier --damaged keep):")
        print(f"  {_some(report.cut)}")
    if report.skipped:
        print(f"skipped {len(report.skipped):,} videos that are not there:")
        for video_id in list(report.skipped)[:SHOWN]:
            print(f"  {video_id}")
        if len(report.skipped) > SHOWN:
            print(f"  and {len(report.skipped) - SHOWN:,} more: {store / MANIFEST} names them")
    if report.left_out:
        print(f"left out {len(report.left_out):,} videos that an interrupted build was to build and this one was not:")
        for video_id in report.left_out:
            print(f"  {video_id}")


def _some(videos: Sequence[str]) -> str:
    return ", ".join(videos[:5]) + (" ..." if len(videos) > 5 else "")


def print_motion(summary: str, warnings: list[str]) -> None:
    """Whether the boxes lie where the frames move: one line, and one more for each warning."""
    console = _console()
    console.print(summary, highlight=False)
    for warning in warnings:
        console.print(f"[bold red]warning[/]: {warning}: look at them (python -m pipeline report)", highlight=False)


def print_store(described: dict[str, Any]) -> None:
    """What is in a store."""
    console = _console()
    console.print(f"[bold]{described['title']}[/]")
    for name, value in described["settings"].items():
        console.print(f"  {name}: {value}", highlight=False)
    table = _table("split", "shards", "videos", "frames", "clips", "views", "targets a view", "bytes")
    for split, row in described["splits"].items():
        table.add_row(
            split, *(f"{row[name]:,}" for name in ("shards", "videos", "frames", "clips", "views")),
            f"{row['targets_per_view']:.2f}", f"{row['bytes']:,}",
        )  # fmt: skip
    per_class = _table(
        "split", Column("class", no_wrap=True), "videos", "tubes", "boxes", "clips", "priors a tube", "tubes that no prior fits",
        "dropped by views",
    )  # fmt: skip
    for row in described["classes"]:
        per_class.add_row(
            row["split"], row["class"], *(f"{row[name]:,}" for name in ("videos", "tubes", "boxes", "clips")),
            f"{row['priors_a_tube']:.1f}", f"{row['without_fitting_prior']:.1%}", f"{row['dropped_by_views']:.1%}",
        )  # fmt: skip
    console.print(table, per_class)
    for rule, videos in described["rules"].items():
        console.print(f"rule {rule} applied to {len(videos)} videos: {_some(videos)}", markup=False, highlight=False)
    console.print("unfinished shards: " + (", ".join(described["unfinished"]) or "none"), highlight=False)
    wrong = described["health"]
    console.print("health: " + ("; ".join(wrong) or "sizes and small files are right (verify --deep reads every byte)"))
    if "motion" in described:
        print_motion(described["motion"]["summary"], described["motion"]["warnings"])
