"""COCO with videos, in JSON: `videos`, `images` with `video_id` and a frame's number, `annotations` with the actor's track.

As CocoVID, TAO and their like have it. A box is `[x, y, width, height]`, as in COCO; the card declares the numbers of the
first frame and of the first pixel, because such files differ in both.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_manifests.card import Card
from data_manifests.errors import InputError
from pipeline.annotations.box_rows import BoxRows
from pipeline.annotations.rules import OddityCounter, RawVideo, whole_number

FRAME = ("frame_id", "frame_index", "frame_number")
TRACK = ("track_id", "instance_id")


def read(path: Path, card: Card, oddities: OddityCounter) -> list[RawVideo]:
    """All videos of the file, also those without an annotation. A video's id is its `name`, or its `file_name`.

    Raises:
        InputError: the file is no such JSON, an id or a video is there twice, something in it points at nothing, or a
            tube has a gap or two classes.
    """
    try:
        return _read(path, json.loads(path.read_text(encoding="utf-8-sig")), card, oddities)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is not COCO with videos",
            found=f"{type(error).__name__}: {error}",
            wanted="videos, images (video_id, frame_id), annotations (image_id, category_id, track_id, bbox), categories",
            todo="export it again, or write the boxes as csv",
        ) from error


def _read(path: Path, content: dict[str, Any], card: Card, oddities: OddityCounter) -> list[RawVideo]:
    rows = BoxRows(path.name, replace(card, boxes="width-height"), oddities)
    videos, categories, images = (_by_id(content, part, path.name) for part in ("videos", "categories", "images"))
    names = {key: str(video.get("name") or video["file_name"]) for key, video in videos.items()}
    classes = {key: str(category["name"]) for key, category in categories.items()}
    sizes: dict[str, tuple[int, int]] = {}
    frames = {}
    for video_id in names.values():
        rows.add_video(video_id, path.name)
    for image_id, image in images.items():
        where = f"{path.name}: image {image_id}"
        video_id = _look_up(names, image["video_id"], "video", where)
        frames[image_id] = video_id, whole_number(_one_of(image, FRAME, where), FRAME[0], where)
        size = whole_number(image["width"], "width", where), whole_number(image["height"], "height", where)
        if sizes.setdefault(video_id, size) != size:
            raise InputError(
                f"{where} of video {video_id} has another size than the images before it",
                found=f"{size[0]} x {size[1]}",
                wanted=f"{sizes[video_id][0]} x {sizes[video_id][1]}",
                todo="mend the images' width and height",
            )
    for annotation in content["annotations"]:
        where = f"{path.name}: annotation {annotation['id']}"
        video_id, frame = _look_up(frames, annotation["image_id"], "image", where)
        action = _look_up(classes, annotation["category_id"], "category", where)
        x, y, width, height = map(float, annotation["bbox"])
        track = _one_of(_given(annotation.get("attributes", {})) | _given(annotation), TRACK, where)
        rows.add(video_id, str(track), action, frame, (x, y, width, height), where)
    return rows.videos(sizes)


def _by_id(content: dict[str, Any], part: str, file: str) -> dict[Any, dict[str, Any]]:
    found: dict[Any, dict[str, Any]] = {}
    for entry in content[part]:
        if found.setdefault(entry["id"], entry) is not entry:
            raise InputError(
                f"{file} has two {part} of id {entry['id']}",
                wanted="an id of its own for each, in the whole file",
                todo="number them anew, as when several files were put into one",
            )
    return found


def _given(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if value is not None}


def _look_up(known: dict[Any, Any], key: Any, what: str, where: str) -> Any:
    if key not in known:
        raise InputError(f"{where}: {what} {key} is not in the file", todo=f"add the {what}, or remove that entry")
    return known[key]


def _one_of(entry: dict[str, Any], names: tuple[str, ...], where: str) -> Any:
    for name in names:
        if name in entry:
            return entry[name]
    raise InputError(f"{where} lacks {names[0]}", wanted=f"one of {', '.join(names)}", todo="add it")
