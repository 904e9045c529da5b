"""Pictures for people: a strip of a video's frames with its annotated and its detected tubes, and their time axis
below.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from data_manifests.lettering import LINE, WHITE, Colour, write_text
from data_manifests.manifest import write_atomically
from trainer.detection.link import Tubes
from trainer.metrics.figures import Evaluation
from trainer.metrics.truth import Truth

PALETTE = (
    (230, 97, 1), (94, 60, 153), (0, 136, 55), (202, 0, 32), (5, 113, 176), (191, 129, 45), (1, 133, 113), (208, 28,
    139),
)  # fmt: skip
"""One colour a class, repeated; told apart by most colour-blind people."""
TRUTH = WHITE
_INK, _PAPER, _GRID = (30, 30, 30), (250, 250, 248), (205, 205, 205)


def colour_of(label: int) -> Colour:
    """The colour of a class in every picture."""
    return PALETTE[label % len(PALETTE)]


def shown_tubes(tubes: Tubes, most: int = 6) -> list[int]:
    """The tubes worth drawing: kept by 3-D NMS, at least a quarter of the best one's score, best first."""
    kept = np.flatnonzero(tubes.kept)
    order = kept[np.argsort(-tubes.score[kept], kind="stable")]
    return [int(t) for t in order[:most] if tubes.score[t] >= 0.25 * tubes.score[order[0]]]


def _tag(image: Image.Image, x: float, y: float, text: str, colour: Colour) -> None:
    write_text(image, (x, y), text, _INK if sum(colour) > 500 else WHITE, paper=colour)


def draw_frame(
    pixels: UInt8[np.ndarray, "h w 3"],
    frame: int,
    truth: Truth,
    tubes: Tubes,
    classes: Sequence[str],
    scale: float,
    shown: Sequence[int] | None = None,
) -> Image.Image:
    """One frame, enlarged, with the annotated boxes (thin, white) and the detected ones (class colour, class and
    score).
    """
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels).resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    for t in range(len(truth.label)):
        place = frame - int(truth.first[t])
        if 0 <= place < truth.ptr[t + 1] - truth.ptr[t]:
            x1, y1, x2, y2 = (float(v) * scale for v in truth.boxes[truth.ptr[t] + place])
            draw.rectangle((x1, y1, x2, y2), outline=TRUTH, width=1)
            _tag(image, x1, y2 - LINE, classes[int(truth.label[t])], TRUTH)
    for t in shown_tubes(tubes) if shown is None else shown:
        place = frame - int(tubes.first[t])
        if 0 <= place < tubes.ptr[t + 1] - tubes.ptr[t]:
            label = int(tubes.label[t])
            x1, y1, x2, y2 = (float(v) * scale for v in tubes.boxes[tubes.ptr[t] + place])
            draw.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour_of(label), width=2)
            _tag(image, x1, y1, f"{classes[label]} {tubes.score[t]:.2f}", colour_of(label))
    write_text(image, (2, image.height - LINE - 2), f"frame {frame}", WHITE, paper=_INK)
    return image


def _time_axis(
    width: int, frames: int, places: Sequence[int], truth: Truth, tubes: Tubes, classes: Sequence[str]
) -> Image.Image:
    """A bar a tube: annotated ones in outline, detected ones filled; ticks at the frames shown."""
    shown = shown_tubes(tubes)
    rows = len(truth.label) + len(shown)
    name, bar = 190, LINE
    image = Image.new("RGB", (width, rows * bar + 8), _PAPER)
    draw = ImageDraw.Draw(image)

    def across(frame: int) -> float:
        return name + frame / max(1, frames) * (width - name - 8)

    for frame in places:
        draw.line((across(frame), 0, across(frame), image.height), fill=_GRID)
    for row in range(rows):
        top = 4 + row * bar
        if row < len(truth.label):
            label, first, length = int(truth.label[row]), int(truth.first[row]), int(np.diff(truth.ptr)[row])
            text = f"annotated  {classes[label]}"
        else:
            t = shown[row - len(truth.label)]
            label, first, length = int(tubes.label[t]), int(tubes.first[t]), int(np.diff(tubes.ptr)[t])
            text = f"found {tubes.score[t]:.2f}  {classes[label]}"
        write_text(image, (4, top), text, _INK)
        place = (across(first), top + 2, across(first + length), top + bar - 3)
        if row < len(truth.label):
            draw.rectangle(place, outline=colour_of(label), width=2)
        else:
            draw.rectangle(place, fill=colour_of(label))
    return image


def strip(
    read: Callable[[int], UInt8[np.ndarray, "h w 3"]],
    video_id: str,
    truth: Truth,
    tubes: Tubes,
    classes: Sequence[str],
    *,
    columns: int = 4,
    rows: int = 2,
    frame_height: int = 200,
) -> Image.Image:
    """A contact strip of one video: `columns` x `rows` frames, evenly spaced, and the time axis.

    Args:
        read: one frame by its number.
        truth: that video's alone.
    """
    frames = int(truth.frames[0])
    places = sorted({round(place) for place in np.linspace(0, frames - 1, columns * rows)})
    drawn = []
    for frame in places:
        pixels = read(frame)
        drawn.append(draw_frame(pixels, frame, truth, tubes, classes, frame_height / pixels.shape[0]))
    width, height = drawn[0].size
    axis = _time_axis(width * columns, frames, places, truth, tubes, classes)
    head = 20
    sheet = Image.new("RGB", (width * columns, head + height * -(-len(drawn) // columns) + axis.height), _PAPER)
    title = f"{video_id}   white: annotated, colour: detected"
    write_text(sheet, (4, 2), title, _INK)
    for i, image in enumerate(drawn):
        sheet.paste(image, (i % columns * width, head + i // columns * height))
    sheet.paste(axis, (0, sheet.height - axis.height))
    return sheet


def draw_pictures(
    evaluation: Evaluation, read: Callable[[str, int], UInt8[np.ndarray, "h w 3"]], folder: Path, count: int
) -> list[Path]:
    """Strips of `count` videos, spread evenly over the evaluation's, as PNG files in `folder`, each at its video's id.

    Args:
        read: a video's frame by its number.
    """
    total = len(evaluation.video_ids)
    written = []
    for row in sorted({round(place) for place in np.linspace(0, total - 1, min(count, total))}):
        video_id = evaluation.video_ids[row]
        image = strip(
            partial(read, video_id),
            video_id,
            evaluation.truth.of_video(row),
            evaluation.findings[row].tubes,
            evaluation.classes,
        )
        path, content = folder / f"{video_id}.png", io.BytesIO()
        image.save(content, format="PNG")
        write_atomically(path, content.getbuffer())
        written.append(path)
    return written
