"""CVAT's "CVAT for video 1.1" XML: one file a task, which is one video.

The annotation place of the card is a folder of such files: `<folder>/Class/name.xml` is the video `Class/name`. (A place
that is one file is the video of that file's name.) CVAT fixes the units: frames count from 0, boxes are continuous
edges in pixels of `original_size`. A track is a tube from where it comes into view to where it goes `outside`; a track
that comes back is another tube. See https://docs.cvat.ai/docs/other/xml_format.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from data_manifests.card import MOST_SIDE, Card
from data_manifests.errors import InputError
from pipeline.annotations.box_rows import label_of
from pipeline.annotations.rules import OddityCounter, RawTube, RawVideo, safe_video_id
from pipeline.walk import folders_below

_CORNERS = ("xtl", "ytl", "xbr", "ybr")
_OUTSIDE = {"0": False, "1": True, "false": False, "true": True}
_MARKUP = ("<!DOCTYPE", "<!ENTITY")


def read(path: Path, card: Card, oddities: OddityCounter) -> list[RawVideo]:
    """The videos of a folder of tasks, or of one.

    Raises:
        InputError: a file is not an XML of CVAT for video, is a task of some of a video's frames, has shapes other than
            boxes, an unknown class, or a track with a gap.
    """
    files = sorted(_below(path)) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} has no .xml", wanted="a CVAT file a video", todo="export them as CVAT for video 1.1")
    folder = path if path.is_dir() else path.parent
    return [_video(file, video_id_of(file, folder), card) for file in files]


def _below(folder: Path) -> Iterator[Path]:
    for _, files in folders_below(folder, unreadable=False):
        yield from (file for file in files if file.suffix.lower() == ".xml")


def video_id_of(path: Path, folder: Path) -> str:
    """A file's place below the folder, without `.xml`."""
    return path.relative_to(folder).with_suffix("").as_posix()


def _video(path: Path, video_id: str, card: Card) -> RawVideo:
    root = parse(path)
    if root.tag != "annotations" or root.find("meta/project") is not None or root.find("image") is not None:
        found = "a whole project" if root.find("meta/project") is not None else f"<{root.tag}>"
        if root.find("image") is not None:
            found = "CVAT for images"
        raise InputError(
            f"{path} is not the task of one video",
            found=found,
            wanted="<annotations> with a <track> an actor",
            todo="export each video's task by itself, as CVAT for video 1.1",
        )
    step = root.findtext("meta/task/frame_filter") or root.findtext("meta/job/frame_filter")
    if step:
        raise InputError(
            f"{path} is of a task that leaves frames out",
            found=f"frame_filter {step}",
            wanted="a box at every frame",
            todo="make the task with frame step 1",
        )
    tubes = []
    for track in root.iter("track"):
        where = f"{path.name}: track {track.get('id', '?')}"
        label = label_of(track.get("label", ""), card, where)
        tubes += [RawTube(label, *tube, f"track {track.get('id', '?')}") for tube in _tubes(track, where)]
    return RawVideo(safe_video_id(video_id, path.name), None, tuple(tubes), _size(root, path))


def parse(path: Path) -> ElementTree.Element:
    """The root element.

    Raises:
        InputError: it is not XML, or declares entities.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if any(word in text for word in _MARKUP):  # entities that blow up; CVAT writes none
            raise InputError(f"{path} declares entities", todo="fetch the file again from CVAT")
        return ElementTree.fromstring(text)
    except (UnicodeDecodeError, ElementTree.ParseError) as error:
        raise InputError(f"{path} does not read as XML", found=str(error), todo="export it again from CVAT") from error


def _size(root: ElementTree.Element, path: Path) -> tuple[int, int]:
    for size in root.iter("original_size"):
        width, height = (int(size.findtext(side) or 0) for side in ("width", "height"))
        if 0 < width <= MOST_SIDE and 0 < height <= MOST_SIDE:
            return width, height
    raise InputError(
        f"{path} does not say its video's size", wanted="<original_size>", todo="export it as CVAT for video 1.1"
    )


def _tubes(track: ElementTree.Element, where: str) -> Iterator[tuple[int, np.ndarray]]:
    """First frame and boxes of each stretch in view."""
    shapes = []
    for shape in track:
        if shape.tag != "box":
            raise InputError(f"{where} is not a box", found=f"<{shape.tag}>", wanted="<box>", todo="draw it as a box")
        try:
            corners = [float(shape.attrib[name]) for name in _CORNERS]
            shapes.append((int(shape.attrib["frame"]), _OUTSIDE[shape.attrib.get("outside", "0")], corners))
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{where}: a box does not read", found=f"{type(error).__name__}: {error}", todo="export it again"
            ) from error
        if float(shape.attrib.get("rotation") or 0):
            raise InputError(
                f"{where}, frame {shape.attrib['frame']}: the box is rotated",
                wanted="upright boxes",
                todo="draw it upright",
            )
    shapes.sort()
    for (frame, gone, _), (following, still_gone, _) in itertools.pairwise(shapes):
        if frame == following and not (gone and still_gone):
            raise InputError(f"{where} has two boxes at frame {frame}", wanted="one a frame", todo="remove one")
    first, boxes = 0, list[list[float]]()
    for frame, outside, corners in shapes:
        if boxes and frame != first + len(boxes):
            raise InputError(
                f"{where} has no box after its frame {first + len(boxes) - 1}",
                found=f"the next is at frame {frame}",
                wanted="a box at every frame until the track is outside",
                todo="export it again as CVAT for video 1.1, which fills in the frames between keyframes",
            )
        if outside and boxes:
            yield first, np.array(boxes, np.float32)
            boxes = []
        elif not outside:
            first = first if boxes else frame
            boxes.append(corners)
    if boxes:
        yield first, np.array(boxes, np.float32)
