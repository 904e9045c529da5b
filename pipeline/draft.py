"""Drafts a dataset card by looking at a folder: what can be seen is filled in, what only a person knows says CHECK."""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_manifests.card import known_cards
from data_manifests.errors import InputError
from pipeline.annotations import coco, csv_boxes, cvat, read_ids
from pipeline.frames import open_frames
from pipeline.images import SUFFIXES as IMAGES
from pipeline.walk import folders_below

VIDEOS = (".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv")
SIZES_LOOKED_AT = 20


@dataclass(frozen=True)
class Seen:
    """What an annotation file shows.

    Args:
        place: of the file or folder, below the root.
        units: lines of the card's `[annotations]` that say what its numbers mean.
        reach: the largest x and y of its boxes, where the card has to say in which pixels they are.
    """

    format: str
    place: str
    video_ids: tuple[str, ...]
    classes: tuple[str, ...]
    units: tuple[str, ...] = ()
    reach: tuple[float, float] | None = None


def draft_card(root: Path, annotations: Path | None = None) -> str:
    """A card for what lies below `root`, in TOML.

    Args:
        annotations: the file, or the folder of CVAT files, where there are several below `root`.

    Raises:
        InputError: there are no annotations of a known format, or several, or one of them is damaged.
    """
    for path, option in ((root, "--from"), (annotations, "--annotations")):
        if path is not None and not (path.is_dir() or (path.is_file() and option == "--annotations")):
            raise InputError(
                f"{path} is not there", wanted="a folder of videos and annotations", todo=f"check {option}"
            )
    root = root.resolve()
    texts, videos = _walk(root if annotations is None else annotations.resolve(), root)
    found = [seen for seen in (*_csv_and_json(texts, root), _cvat(texts, root)) if seen is not None]
    if len(found) != 1:
        raise InputError(
            f"{'no' if not found else 'several'} annotations below {root}",
            found=", ".join(seen.place for seen in found) or "; ".join(_first_lines(texts, root)),
            wanted=f"one csv with the columns {', '.join(csv_boxes.COLUMNS + csv_boxes.CORNERS)}, one COCO .json with "
            "videos, or a folder of CVAT for video .xml",
            todo="say which with --annotations" if found else "put them there; for UCF101-24 use --dataset ucf101",
        )
    return _write(found[0], root, videos, [text for text in texts if text.suffix.lower() == ".txt"])


def _first_lines(texts: list[Path], root: Path) -> Iterator[str]:
    """How the csv files begin that have not the columns, or are no text in UTF-8."""
    for path in texts:
        if path.suffix.lower() == ".csv":
            with open(path, "rb") as file:
                line = file.readline(200).strip()
            try:
                yield f"{_below(path, root)} begins {line.decode('utf-8-sig')!r}"
            except UnicodeDecodeError:
                yield f"{_below(path, root)} is not text in UTF-8"


def _walk(annotations: Path, root: Path) -> tuple[list[Path], list[Path]]:
    """Texts that may be annotations or lists, and videos: files, and folders with images."""
    texts = [annotations] if annotations.is_file() else []
    videos: list[Path] = []
    for folder, here in folders_below(root, unreadable=True):  # a disk's lost+found, perhaps
        if here and all(path.suffix.lower() in IMAGES for path in here):
            videos.append(folder)
        videos += [path for path in here if path.suffix.lower() in VIDEOS]
        texts += [path for path in here if path.suffix.lower() == ".txt"]
        if annotations.is_dir():
            inside = [path for path in here if path.is_relative_to(annotations)]
            texts += [path for path in inside if path.suffix.lower() in (".csv", ".json", ".xml")]
    return texts, videos


def _csv_and_json(texts: list[Path], root: Path) -> Iterator[Seen | None]:
    for path in texts:
        place = _below(path, root)
        if path.suffix.lower() == ".csv":
            try:
                yield _csv(path, place)
            except csv.Error:
                yield None  # some other text, in UTF-16 perhaps
        elif path.suffix.lower() == ".json":
            yield _coco(path, place)


def _csv(path: Path, place: str) -> Seen | None:
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = csv.DictReader(file, skipinitialspace=True)
        names = set(rows.fieldnames or ())
        corners = set(csv_boxes.CORNERS) <= names
        columns = csv_boxes.CORNERS if corners else csv_boxes.WIDTH_HEIGHT
        if not names >= {*csv_boxes.COLUMNS, *columns}:
            return None
        boxes, frames, videos, classes = [], [], set(), set()
        for row in rows:
            try:
                boxes.append([float(row[column]) for column in columns])
                frames.append(int(row["frame"]))
            except (TypeError, ValueError) as error:
                raise InputError(
                    f"{place}, line {rows.line_num}: a number is wanted", found=str(error), todo="mend it"
                ) from error
            videos.add(row["video"])
            classes.add(row["class"])
    if not boxes:
        raise InputError(f"{place} has no box", wanted="a row a box", todo="fill it first")
    far = [(x, y) if corners else (box[0] + x, box[1] + y) for box in boxes for x, y in (box[2:],)]
    smallest = min(min(box[:2]) for box in boxes)
    units = (
        'boxes = "corners" # CHECK: or "inclusive-corners", if x2 is the last pixel'
        if corners
        else 'boxes = "width-height"',
        _declared("first_frame", min(frames), "frame"),
        _declared("first_pixel", smallest, "coordinate"),
    )
    reach = max(x for x, _ in far), max(y for _, y in far)
    return Seen("csv", place, tuple(sorted(videos)), tuple(sorted(classes)), units, reach)


def _coco(path: Path, place: str) -> Seen | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        videos = [str(video.get("name") or video["file_name"]) for video in content["videos"]]
        frames = [image[key] for image in content["images"] for key in coco.FRAME if key in image]
        corners = [min(annotation["bbox"][:2]) for annotation in content["annotations"]]
        classes = [category["name"] for category in sorted(content["categories"], key=lambda one: one["id"])]
    except (UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError):
        return None  # some other json
    units = (
        _declared("first_frame", min(frames, default=0), "frame"),
        _declared("first_pixel", min(corners, default=0), "coordinate"),
    )
    return Seen("coco", place, tuple(videos), tuple(classes), units)


def _cvat(texts: list[Path], root: Path) -> Seen | None:
    labels: dict[Path, set[str]] = {}
    for path in texts:
        if path.suffix.lower() == ".xml":
            try:
                tracks = cvat.parse(path).findall("track")
            except InputError:
                continue  # some other xml
            if tracks:
                labels[path] = {track.get("label", "") for track in tracks}
    if not labels:
        return None
    folder = Path(os.path.commonpath([path.parent for path in labels]))
    ids = [cvat.video_id_of(path, folder) for path in labels]
    return Seen("cvat", _below(folder, root), tuple(ids), tuple(sorted(set().union(*labels.values()))))


def _declared(key: str, smallest: float | int, what: str) -> str:
    """0 where the file has a 0; else what is likely, for a person to confirm."""
    if smallest < 1:
        return f"{key} = 0"
    return f"{key} = {int(smallest == 1)} # CHECK: 0 or 1? The smallest {what} in the file is {smallest:g}"


def _below(path: Path, root: Path) -> str:
    if not path.is_relative_to(root):
        raise InputError(f"{path} is not below {root}", wanted="all of a dataset below one folder", todo="check --from")
    return path.relative_to(root).as_posix()


def _places(video_ids: tuple[str, ...], videos: list[Path], root: Path) -> tuple[list[str], dict[str, Path]]:
    """Places with `{video_id}`, those of most videos first, and the path of each video that is there."""
    by_name: dict[str, list[tuple[Path, str]]] = defaultdict(list)
    for path in videos:
        by_name[path.name].append((path, ""))
        if path.is_file():
            by_name[path.stem].append((path, path.suffix))
    places: Counter[str] = Counter()
    there: dict[str, Path] = {}
    for video_id in video_ids:
        for path, suffix in by_name[video_id.rpartition("/")[2]]:
            stem = _below(path, root).removesuffix(suffix)
            before = stem.removesuffix(video_id)
            if stem.endswith(video_id) and (not before or before.endswith("/")) and not set("{}") & set(before):
                places[f"{before}{{video_id}}{suffix}"] += 1
                there.setdefault(video_id, path)
    return [place for place, _ in places.most_common()], there


def _is_test_list(path: Path, video_ids: set[str]) -> bool:
    if "test" not in path.stem.lower():
        return False
    try:
        return bool(read_ids(path, video_ids))
    except InputError:
        return False  # some other text


def _write(seen: Seen, root: Path, videos: list[Path], texts: list[Path]) -> str:
    places, there = _places(seen.video_ids, videos, root)
    name = re.sub(r"[^\w-]+", "-", root.name) or "own"
    lists = [_below(path, root) for path in texts if _is_test_list(path, set(seen.video_ids))]
    lines = [
        "# Drafted by `python -m pipeline card`. Look at every CHECK, then take it away.",
        f"name = {_quoted(f'my-{name}' if name in known_cards() else name)}",
        f"classes = {_quoted(seen.classes)}",
        "",
        "[annotations]",
        f'format = "{seen.format}"',
        f"files = {_quoted([seen.place])}",
        *seen.units,
        *(_sizes(seen, list(there.values())[:SIZES_LOOKED_AT]) if seen.reach else []),
    ]
    if lists:
        lines += ["", "[splits]", f"test_lists = {_quoted(lists)}"]
    gone = [video_id for video_id in seen.video_ids if video_id not in there]
    lines += ["", "[videos]", f"places = {_quoted(places or ['videos/{video_id}.mp4'])}"]
    if gone:
        more = f" and {len(gone) - 3} more" if len(gone) > 3 else ""
        lines.append(f"# CHECK: not found: {', '.join(map(_quoted, gone[:3]))}{more}")
    return "\n".join(lines) + "\n"


def _sizes(seen: Seen, videos: list[Path]) -> list[str]:
    """Comments that hold the boxes against the frames."""
    assert seen.reach is not None
    shapes = [next(iter(open_frames(path))).shape for path in videos]
    sizes = Counter((width, height) for height, width, _ in shapes)
    told = ", ".join(f"{width} x {height} ({count})" for (width, height), count in sizes.most_common())
    reach = f"boxes reach to x = {seen.reach[0]:g}, y = {seen.reach[1]:g}"
    lines = [f"# frames of the first {len(videos)} videos: {told}; {reach}" if videos else f"# {reach}"]
    largest = [max((size[side] for size in sizes), default=0) for side in (0, 1)]
    if videos and (seen.reach[0] > largest[0] + 1 or seen.reach[1] > largest[1] + 1):
        lines.append("# CHECK: that is past the frames. Say box_width and box_height, the size the boxes were drawn in")
    return lines


def _quoted(value: object) -> str:
    """A text, or a list of texts, in TOML, whose basic strings are escaped as in JSON."""
    return json.dumps(value, ensure_ascii=False)
