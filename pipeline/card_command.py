"""`python -m pipeline card`: drafts a card of a dataset by looking, and tries it."""

from __future__ import annotations

from pathlib import Path

import click

from data_manifests.card import load_card
from data_manifests.errors import InputError
from pipeline.annotations import read_annotations
from pipeline.draft import draft_card


def draft_at(root: Path, annotations: Path | None, place: Path) -> None:
    """Writes a card of the dataset below `root`, and reads the annotations by it.

    Args:
        annotations: which ones, where there are several below the root.
        place: of the card.

    Raises:
        InputError: something is at that place, no card can be drafted, or the annotations do not read by it yet.
    """
    if place.exists():
        raise InputError(f"{place} is there already", wanted="a new file", todo="choose another --out, or remove it")
    text = draft_card(root, annotations)
    place.write_text(text, encoding="utf-8")
    checks = text.count("CHECK:")
    click.echo(f"drafted {place}" + (f": look at {checks} CHECK in it" if checks else ""))
    try:
        read = read_annotations(load_card(str(place)), root)
    except InputError as error:
        raise InputError(
            "the annotations do not read by that card yet", found=str(error), todo=f"mend {place} or the annotations"
        ) from error
    then = "look at what it marks CHECK, then go on with plan" if checks else "go on with plan"
    click.echo(f"it reads annotations of {read.videos.num_rows:,} videos, {read.tubes.num_rows:,} tubes: {then}")
