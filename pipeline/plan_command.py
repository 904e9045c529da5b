"""`python -m pipeline plan`: from a command line's options to a plan; `build` begins with the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from data_manifests.card import Card, load_card
from data_manifests.errors import InputError
from data_manifests.layout import LIMITS, Settings
from data_manifests.manifest import Manifest
from pipeline.demo import make_demo
from pipeline.matching import MatchRule
from pipeline.plan import Plan, make_plan
from pipeline.summary import print_plan

SIDES = 32, 32768
"""Least and most of `--max-side`. (A store that was built with another reads all the same.)"""


def say_plan(options: dict[str, Any], *, workers: int, as_json: bool) -> None:
    """Prints what a build would make; no video need be there, unless `missing` is given.

    Args:
        options: of `pipeline.options.what_to_build`.
        workers: processes that the time is estimated for.
    """
    plan, _, _ = plan_of(options, look_for_videos=False)
    if as_json:
        click.echo(json.dumps(plan.to_json(workers), indent=1))
    else:
        print_plan(plan, workers)


def plan_of(
    options: dict[str, Any], *, look_for_videos: bool, present: Manifest | None = None
) -> tuple[Plan, Card, Path]:
    """The plan, its dataset's card and root. The demo dataset is made if it is not there.

    Args:
        options: of `pipeline.options.what_to_build`.
        look_for_videos: also where the options do not say what is to be done if one is missing.
        present: manifest of the store to be built, whose videos are not planned again.

    Raises:
        InputError: an option is out of its range, or as `make_plan`.
    """
    card = load_card(options["dataset"])
    root = options["root"]
    if options["dataset"] == "demo":
        root = root or Path("data/demo")
        make_demo(root)
    if root is None:
        raise InputError("--root is missing", wanted=f"the folder of {card.title}", todo="add --root DIR")
    settings = Settings(
        dataset=card.name,
        title=card.title,
        classes=card.classes,
        mirrored=card.mirrored,
        **{name: options[name] for name in ("K", "stride", "views", "seed", "positive_overlap", "negative_overlap")},
        variances=MatchRule().variances,
        frames=_codec(options["frames"]),
        max_side=options["max_side"],
        priors=card.priors,
    )
    _check(settings)
    plan = make_plan(
        card,
        root,
        settings,
        split=options["split"],
        train_list=options["train_list"],
        missing=options["missing"] or ("error" if look_for_videos else None),
        present=present,
    )
    return plan, card, root


def _codec(text: str) -> str:
    name, _, quality = text.partition(":")
    if text == "raw" or (name == "jpeg" and quality in map(str, range(1, 101))):
        return text
    raise InputError(f"--frames {text}", wanted="jpeg:1 to jpeg:100, or raw", todo="use jpeg:95")


def _check(settings: Settings) -> None:
    for name, (least, most) in (LIMITS | {"max_side": SIDES}).items():
        value = getattr(settings, name)
        if value is not None and not least <= value <= most:
            option = {"K": "clip-length"}.get(name, name.replace("_", "-"))
            raise InputError(f"--{option} {value}", wanted=f"{least} to {most}", todo="change it")
    MatchRule(settings.positive_overlap, settings.negative_overlap)  # refuses what does not go together
