"""Pictures of a store: a clip as the network sees it, and a whole video with its tubes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Integer, UInt8
from PIL import Image, ImageDraw

from data_manifests.layout import IGNORED
from data_manifests.lettering import WHITE, Colour, write_text
from data_manifests.manifest import write_atomically
from pipeline.stored import StoredShard, StoredVideo

MEAN = (123, 117, 104)
COLOURS = ((255, 90, 80), (80, 200, 120), (90, 160, 255), (255, 200, 60), (220, 120, 255), (90, 230, 230))
"""Of tubes, by their index in the video."""
GREY = (165, 165, 165)
"""Of ignored priors."""
MARGIN = 20
"""Height of the title, pixels."""
MILLISECONDS = 120
"""For each frame of a clip's moving picture."""
SHEET_FRAMES, SHEET_COLUMNS, SHEET_WIDTH = 32, 4, 240
MOVING_FRAMES = 300
"""A whole video is drawn with so many frames at most, evenly chosen."""


@dataclass(frozen=True)
class ClipPicture:
    """One clip through one view: its frames as the network sees them, what was matched, and what it should predict.

    Args:
        labels: name of each prior's class; `ignored` of ignored ones.
        tubes: the tube that each prior is matched to; of ignored ones 255.
        boxes: the tubes' boxes decoded back from the targets, in [0, 1] of the view.
    """

    title: str
    frames: list[Image.Image]
    labels: list[str]
    tubes: Integer[np.ndarray, " M"]
    priors: Float32[np.ndarray, "M 4"]
    boxes: Float32[np.ndarray, "M K 4"]

    @property
    def matched(self) -> Integer[np.ndarray, " matched"]:
        """Rows of the priors that are matched to a tube."""
        return np.flatnonzero(self.tubes != IGNORED)


def decode(
    loc: Float32[np.ndarray, "M K 4"], priors: Float32[np.ndarray, "M 4"], variances: tuple[float, ...]
) -> Float32[np.ndarray, "M K 4"]:
    """The boxes that encoded offsets stand for, x1 y1 x2 y2 in [0, 1] (SSD's CENTER_SIZE code)."""
    centre, size = ((priors[:, :2] + priors[:, 2:]) / 2)[:, None], (priors[:, 2:] - priors[:, :2])[:, None]
    variance = np.array(variances, np.float32)
    middle = loc[..., :2] * variance[:2] * size + centre
    half = np.exp(loc[..., 2:] * variance[2:]) * size / 2
    return np.concatenate([middle - half, middle + half], -1)


def see(
    frame: UInt8[np.ndarray, "height width 3"], rectangle: Integer[np.ndarray, "4"], mirrored: bool, size: int
) -> Image.Image:
    """A frame through a view: `size` x `size` pixels of the rectangle, the mean colour outside of the frame."""
    x0, y0, x1, y1 = (int(value) for value in rectangle)
    canvas = Image.new("RGB", (x1 - x0, y1 - y0), MEAN)
    canvas.paste(Image.fromarray(frame), (-x0, -y0))
    seen = canvas.resize((size, size), Image.Resampling.BILINEAR)
    return seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else seen


def picture_of_clip(picture: ClipPicture) -> Image.Image:
    """Two rows of frames: the tubes as the targets decode, and the priors (matched in colour, ignored in grey) below."""
    return _side_by_side([_clip_column(picture, k) for k in range(len(picture.frames))], _title(picture))


def draw_clip(picture: ClipPicture, path: Path) -> None:
    """Writes `picture_of_clip` as PNG."""
    _save(picture_of_clip(picture), path)


def animate_clip(picture: ClipPicture, path: Path) -> None:
    """The same as a moving picture (GIF) of one frame after another."""
    sheets = [_side_by_side([_clip_column(picture, k)], _title(picture)) for k in range(len(picture.frames))]
    _save_moving(sheets, path, MILLISECONDS)


def draw_tubes(frame: UInt8[np.ndarray, "height width 3"], number: int, video: StoredVideo, width: int) -> Image.Image:
    """Frame `number` of a video, `width` pixels wide, with the boxes of its tubes."""
    height = max(1, round(width * video.height / video.width))
    picture = Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR)
    pen, scale = ImageDraw.Draw(picture), np.array([width / video.width, height / video.height] * 2)
    for tube in video.tubes:
        if 0 <= number - tube.first_frame < len(tube.boxes):
            box = tube.boxes[number - tube.first_frame] * scale
            pen.rectangle(_inside(box, width, height), outline=colour_of(tube.index), width=2)
    return picture


def draw_video(shard: StoredShard, video: StoredVideo, path: Path) -> int:
    """A sheet of up to `SHEET_FRAMES` frames, evenly chosen, with their tubes, and each tube's time below; their number."""
    numbers = _evenly(video.frames, SHEET_FRAMES)
    pictures = list(_tagged(shard, video, numbers, SHEET_WIDTH))
    width, height = pictures[0].size
    rows = -(-len(pictures) // SHEET_COLUMNS)
    columns = min(SHEET_COLUMNS, len(pictures))
    sheet = Image.new("RGB", (columns * width, MARGIN + rows * height + 18 * len(video.tubes)), "white")
    pen = ImageDraw.Draw(sheet)
    write_text(sheet, (4, 2), _video_title(video))
    for place, picture in enumerate(pictures):
        sheet.paste(picture, (place % columns * width, MARGIN + place // columns * height))
    for line, tube in enumerate(video.tubes):
        top, scale = MARGIN + rows * height + 18 * line, sheet.width / video.frames
        begin, end = tube.first_frame * scale, (tube.first_frame + len(tube.boxes)) * scale
        pen.rectangle((begin, top + 2, max(begin + 1, end - 1), top + 16), fill=colour_of(tube.index))
        write_text(sheet, (begin + 4, top + 1), _tube_title(shard, tube.index, tube.label))
    _save(sheet, path)
    return len(numbers)


def animate_video(shard: StoredShard, video: StoredVideo, path: Path) -> int:
    """The video as a moving picture (GIF) with its tubes, of up to `MOVING_FRAMES` frames; their number."""
    numbers = _evenly(video.frames, MOVING_FRAMES)
    _save_moving(list(_tagged(shard, video, numbers, min(video.width, 320))), path, 40 * video.frames // len(numbers))
    return len(numbers)


def colour_of(tube: int) -> Colour:
    """The colour of a tube in every picture."""
    return COLOURS[tube % len(COLOURS)]


def _tagged(shard: StoredShard, video: StoredVideo, numbers: Sequence[int], width: int) -> Iterator[Image.Image]:
    for number in numbers:
        picture = draw_tubes(shard.frames(video, number, number + 1)[0], number, video, width)
        write_text(picture, (0, 0), str(number), paper=WHITE)
        yield picture


def _clip_column(picture: ClipPicture, k: int) -> Image.Image:
    """Frame k above with the decoded tubes, below with the priors."""
    size = picture.frames[k].width
    tubes, priors = picture.frames[k].copy(), picture.frames[k].copy()
    pen = ImageDraw.Draw(priors)
    for row in np.argsort(picture.tubes != IGNORED, kind="stable"):
        tube = int(picture.tubes[row])
        pen.rectangle(
            _inside(picture.priors[row] * size, size, size), outline=GREY if tube == IGNORED else colour_of(tube)
        )
    pen = ImageDraw.Draw(tubes)
    for row in picture.matched[np.unique(picture.tubes[picture.matched], return_index=True)[1]]:
        box, colour = _inside(picture.boxes[row, k] * size, size, size), colour_of(int(picture.tubes[row]))
        pen.rectangle(box, outline=colour, width=2)
        write_text(tubes, (box[0] + 3, box[1] + 2), picture.labels[row], colour)
    column = Image.new("RGB", (size, 2 * size))
    column.paste(tubes, (0, 0))
    column.paste(priors, (0, size))
    return column


def _title(picture: ClipPicture) -> str:
    matched = len(picture.matched)
    return f"{picture.title}: {matched} matched priors, {len(picture.tubes) - matched} ignored (grey)"


def _video_title(video: StoredVideo) -> str:
    rules = f", rules: {', '.join(video.rules)}" if video.rules else ""
    return f"{video.video_id}: {video.frames} frames of {video.width} x {video.height}{rules}"


def _tube_title(shard: StoredShard, index: int, label: int) -> str:
    return f"tube {index}: {shard.settings.classes[label]}"


def _side_by_side(columns: Sequence[Image.Image], title: str) -> Image.Image:
    width, height = columns[0].size
    sheet = Image.new("RGB", (width * len(columns), height + MARGIN), "white")
    write_text(sheet, (4, 2), title)
    for place, column in enumerate(columns):
        sheet.paste(column, (place * width, MARGIN))
    return sheet


def _inside(box: np.ndarray, width: int, height: int) -> list[float]:
    return np.clip(box, 0, [width - 1, height - 1] * 2).tolist()


def _evenly(frames: int, most: int) -> list[int]:
    return np.unique(np.linspace(0, frames - 1, min(frames, most)).round().astype(int)).tolist()


def _save(picture: Image.Image, path: Path) -> None:
    content = io.BytesIO()
    picture.save(content, "PNG")
    write_atomically(path, content.getbuffer())


def _save_moving(pictures: Sequence[Image.Image], path: Path, milliseconds: int) -> None:
    content = io.BytesIO()
    first, *others = pictures
    first.save(content, "GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
    write_atomically(path, content.getbuffer())
