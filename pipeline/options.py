"""Options that several commands share. Nothing heavy is imported, so that `--help` is quick."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from data_manifests.finite import FiniteRange

PATH = click.Path(path_type=Path)
WHAT_TO_BUILD = {
    "What to build": (
        "dataset",
        "root",
        "place",
        "scratch",
        "split",
        "train_list",
        "missing",
        "damaged",
        "decode_limit",
    ),
    "Clips and views": ("K", "stride", "views", "seed", "frames", "max_side"),
    "Matching": ("positive_overlap", "negative_overlap"),
}
"""Headings of the options of `what_to_build`, and of what else `build` has, for `GroupedCommand`."""


def what_to_build(command: Any) -> Any:
    """The options that `plan` and `build` share: all that decides a store's content."""
    options = [
        click.option(
            "--dataset", required=True, help="ucf101, jhmdb21, ucfsports, multisports, demo, or a card's path (.toml)."
        ),
        click.option("--root", type=PATH, help="Folder of the videos and annotations (demo: made there)."),
        click.option("--split", type=click.Choice(["train", "test"]), help="Only this split. [default: all]"),
        click.option("--train-list", type=PATH, help="File of video ids, one a line: only these training videos."),
        click.option("--clip-length", "K", default=6, show_default=True, help="K, frames a clip."),
        click.option("--stride", default=1, show_default=True, help="Frames from one clip to the next."),
        click.option("--views", default=8, show_default=True, help="Augmented views a clip, besides the whole frame."),
        click.option("--seed", default=0, show_default=True, help="Decides the views."),
        click.option("--positive-overlap", default=0.5, show_default=True, help="Priors from here on match a tube."),
        click.option(
            "--negative-overlap", default=0.5, show_default=True, help="Unmatched priors from here on are ignored."
        ),
        click.option(
            "--frames",
            default="jpeg:95",
            show_default=True,
            help="jpeg:QUALITY or raw (lossless). JPEGs found in a folder are stored as they are.",
        ),
        click.option("--max-side", type=int, help="Shrink frames whose longer side is larger, boxes along."),
        click.option(
            "--missing",
            type=click.Choice(["error", "skip"]),
            help="Videos that are not there. [default: error; plan does not look without it]",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def how_to_decode(command: Any) -> Any:
    """The options that `build` and `verify --repair` share."""
    keep = click.option(
        "--damaged",
        type=click.Choice(["refuse", "keep"]),
        default="refuse",
        show_default=True,
        help="Videos that do not decode to their end: keep the frames before the damage.",
    )
    limit = click.option(
        "--decode-limit",
        type=FiniteRange(min=0),
        default=3600,
        show_default=True,
        help="Seconds one video may take; 0: as long as it likes.",
    )
    return keep(limit(command))


def how_many_workers(what: str = "Processes.") -> Any:
    """The option `--workers`: a number of processes, by default one a core.

    Args:
        what: it is, for the help.
    """

    def resolved(_: click.Context, __: click.Parameter, value: int) -> int:
        if value < 0:
            raise click.BadParameter("a number of processes is wanted, or 0")
        return value or len(os.sched_getaffinity(0))

    return click.option("--workers", default=0, callback=resolved, help=f"{what} [default: 0, one a core]")
