"""Dataset cards: what a dataset is, in a TOML file that anyone can write."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from data_manifests.did_you_mean import did_you_mean
from data_manifests.errors import InputError
from data_manifests.prior_spec import ACT300, PriorLayer, PriorSpec

MOST_SIDE = 32_767
"""Pixels of the width or height that boxes may be drawn in."""
FORMATS = {
    "ucf101": ("box_width", "box_height"),
    "csv": ("box_width", "box_height", "boxes", "first_frame", "first_pixel"),
    "cvat": (),
    "coco": ("first_frame", "first_pixel"),
    "act": ("boxes", "first_pixel"),
}
"""What a card may declare of the units of each annotation format; the rest is fixed by the format itself."""

MUST_SAY = {
    "ucf101": {"box_width": "the frames' width", "box_height": "the frames' height"},
    "csv": {
        "boxes": "corners, inclusive-corners or width-height",
        "first_frame": "the number of a video's first frame",
        "first_pixel": "the coordinate of the leftmost pixel, 0 or 1",
    },
    "coco": {
        "first_frame": "the number of a video's first frame",
        "first_pixel": "the coordinate of the leftmost pixel, 0 or 1",
    },
}
"""Those of `FORMATS` that a card must declare, as nothing is assumed that moves boxes."""

BOXES = {
    "corners": "x1 y1 x2 y2, x2 - x1 is the width",
    "inclusive-corners": "x1 y1 x2 y2, x2 is the last pixel: x2 - x1 + 1 is the width",
    "width-height": "x y width height",
}
"""How a csv, or a pickle of ACT's, may write a box."""


@dataclass(frozen=True)
class Card:
    """A dataset: its classes, where its parts lie below the root, and what its numbers mean.

    Args:
        name: one word.
        title: one line.
        classes: class names; their order is the label.
        annotation_format: a reader in `pipeline.annotations`, one of `FORMATS`.
        annotation_files: places below the root; the first that is there is read.
        box_size: width and height of the frames that the boxes were drawn in, pixels; None: each video's own, or as
            the annotation file says.
        boxes: how a box is written, one of `BOXES`.
        first_frame: the number of a video's first frame in the annotations.
        first_pixel: the coordinate of the leftmost and the topmost pixel in the annotations, 0 or 1.
        test_lists: places of the list of test videos; empty means that there is no test split, or that the annotation
            file says it itself.
        split: which of the annotation file's splits, counted from 1, where the file has several.
        video_places: places of a video with `{video_id}` in them, files or folders of frames.
        mirrored: for each class the class that its mirror image shows, itself by default.
        priors: the network's prior boxes.
        expected: counts that the annotations are known to give, by split.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    annotation_format: str
    annotation_files: tuple[str, ...]
    box_size: tuple[int, int] | None
    first_frame: int
    test_lists: tuple[str, ...]
    video_places: tuple[str, ...]
    mirrored: tuple[int, ...]
    boxes: str = "corners"
    first_pixel: int = 0
    split: int = 1
    priors: PriorSpec = ACT300
    expected: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def known_cards() -> tuple[str, ...]:
    """Names of the cards that come with the project."""
    folder = resources.files("data_manifests") / "cards"
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


def load_card(name_or_path: str) -> Card:
    """The card of that name, or in that `.toml` file.

    Raises:
        InputError: there is no such card, or a field is missing, unknown or of the wrong type.
    """
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        if not path.is_file():
            raise InputError(
                f"dataset card {path} is not there", wanted="a .toml file", todo="check the path of --dataset"
            )
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(
                f"dataset card {path} is not text in UTF-8", found=str(error), todo="save it so"
            ) from error
    elif name_or_path in known_cards():
        text = (resources.files("data_manifests") / "cards" / f"{name_or_path}.toml").read_text()
    else:
        inside = Path(name_or_path) / "card.toml"
        raise InputError(
            f"unknown dataset {name_or_path!r}",
            wanted=f"one of {', '.join(known_cards())}, or the path of a card (.toml)",
            todo=f"did you mean {inside}?"
            if inside.is_file()
            else did_you_mean(name_or_path, known_cards(), "check --dataset"),
        )
    try:
        return _parse(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"dataset card {name_or_path} is not TOML", found=str(error), todo="mend that line") from error
    except KeyError as error:
        raise InputError(
            f"dataset card {name_or_path} lacks {error}", todo="add it; data_manifests/cards/demo.toml is an example"
        ) from error
    except (TypeError, ValueError) as error:
        raise InputError(
            f"dataset card {name_or_path}: {error}", todo="mend it; data_manifests/cards/demo.toml is an example"
        ) from error


def _parse(raw: dict[str, Any]) -> Card:
    for name in ("annotations", "videos", "splits", "mirror", "expected"):
        if not isinstance(raw.get(name, {}), dict):
            raise TypeError(f"{name} must be a table, [{name}]")
    _only(raw, "", {"name", "title", "classes", "annotations", "splits", "videos", "mirror", "priors", "expected"})
    annotations, videos, splits = raw["annotations"], raw["videos"], raw.get("splits", {})
    units = _parse_units(annotations)
    _only(videos, "videos.", {"places"})
    _only(splits, "splits.", {"split"} if annotations["format"] == "act" else {"test_lists"})
    if not isinstance(splits.get("split", 1), int) or splits.get("split", 1) < 1:
        raise ValueError(f"splits.split must be a number from 1 on, found {splits['split']!r}")
    classes = _texts(raw, "classes")
    twice = sorted({name for name in classes if classes.count(name) > 1})
    if not classes or twice or len(classes) > 254:
        found = f"{', '.join(twice)} more than once" if twice else str(len(classes))
        raise ValueError(f"classes must be 1 to 254 different names, found {found}")
    mirror = raw.get("mirror", {})
    _only(mirror, "mirror.", set(classes))
    _only(dict.fromkeys(mirror.values()), "mirror.", set(classes))
    for name, image in mirror.items():
        if mirror.get(image, image) != name:
            line = f'"{image}" = "{name}"'
            raise ValueError(
                f"mirror: {name} looks like {image} in a mirror, so {image} looks like {name}; let [mirror] say {line}"
                + (f" instead of {mirror[image]}" if image in mirror else " too")
            )
    files, places = _texts(annotations, "files"), _texts(videos, "places")
    test_lists = _texts(splits, "test_lists", ())
    for place in (*files, *test_lists, *places):
        if PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts:
            raise ValueError(f"the place {place!r} is not below the dataset's root")
    for place in places:
        if set(re.findall(r"{.*?}", place)) != {"{video_id}"} or place.count("{") != place.count("}"):
            raise ValueError(f"videos.places: {place!r} must have {{video_id}} in it, and no other braces")
    return Card(
        name=raw["name"],
        title=raw.get("title", raw["name"]),
        classes=classes,
        annotation_format=annotations["format"],
        annotation_files=files,
        **units,
        test_lists=test_lists,
        split=splits.get("split", 1),
        video_places=places,
        mirrored=tuple(classes.index(mirror.get(name, name)) for name in classes),
        priors=_parse_priors(raw["priors"]) if "priors" in raw else ACT300,
        expected=raw.get("expected", {}),
    )


def _parse_units(annotations: dict[str, Any]) -> dict[str, Any]:
    """The fields of a `Card` that say what the numbers of the annotations mean."""
    allowed = FORMATS.get(annotations["format"], FORMATS["csv"])  # the readers tell an unknown format
    declarable = {key for keys in FORMATS.values() for key in keys}
    _only(annotations, "annotations.", {"format", "files", *declarable})
    for key in sorted(declarable & annotations.keys() - set(allowed)):
        raise ValueError(f"annotations.{key} is not for the card to say: the format {annotations['format']} fixes it")
    for key in ("box_width", "box_height", "first_frame", "first_pixel"):
        if type(annotations.get(key, 0)) is not int:
            raise TypeError(f"annotations.{key} must be a whole number, found {annotations[key]!r}")
    sides = [annotations[side] for side in ("box_width", "box_height") if side in annotations]
    if len(sides) == 1:
        raise ValueError("annotations.box_width and box_height go together: give both, or neither")
    if not all(0 < side <= MOST_SIDE for side in sides):
        raise ValueError(
            f"annotations.box_width and box_height must be 1 to {MOST_SIDE}, found {sides[0]} x {sides[1]}"
        )
    unsaid = {k: what for k, what in MUST_SAY.get(annotations["format"], {}).items() if k not in annotations}
    if unsaid:
        raise ValueError(
            f"annotations.{next(iter(unsaid))} is missing: a card of format {annotations['format']} says "
            + "; ".join(f"{key} ({what})" for key, what in unsaid.items())
        )
    boxes, first_pixel = annotations.get("boxes", "corners"), annotations.get("first_pixel", 0)
    if boxes not in BOXES:
        raise ValueError(f"annotations.boxes must be one of {', '.join(BOXES)}, found {boxes!r}")
    if first_pixel not in (0, 1):
        raise ValueError(f"annotations.first_pixel must be 0 or 1, found {first_pixel!r}")
    return {
        "box_size": (sides[0], sides[1]) if sides else None,
        "boxes": boxes,
        "first_frame": annotations.get("first_frame", int(annotations["format"] == "act")),
        "first_pixel": first_pixel,
    }


def _texts(table: Mapping[str, Any], key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
    values = table[key] if default is None else table.get(key, default)
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) and value for value in values):
        raise TypeError(f"{key} must be a list of texts, found {values!r}")
    return tuple(values)


def _parse_priors(raw: dict[str, Any]) -> PriorSpec:
    """Sizes become floats, so that 30 and 30.0 give one digest."""
    layers = (
        {
            **layer,
            "min_size": float(layer["min_size"]),
            "max_size": float(layer["max_size"]),
            "ratios": tuple(map(float, layer["ratios"])),
        }
        for layer in raw["layers"]
    )
    return PriorSpec(int(raw["image_size"]), tuple(PriorLayer(**layer) for layer in layers))


def _only(table: Mapping[str, Any], prefix: str, known: set[str]) -> None:
    for key in table:
        if key not in known:
            raise ValueError(
                f"unknown {prefix}{key}, " + did_you_mean(str(key), known, f"not one of {', '.join(sorted(known))}")
            )
