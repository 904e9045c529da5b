"""Annotations meet the decoded video: frame counts and sizes are reconciled by named rules, or the video is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32

from data_manifests.errors import InputError
from pipeline.annotations.rules import clip_boxes

KEPT = "kept-before-damage"
RULES = {
    KEPT: "the frames before the video's damage are kept, and the tubes cut there (--damaged keep); "
    "should such a file have packed B-frames, which only its full count tells, its boxes lie one frame late",
    "packed-b-frames": "packets of the file hold two frames (DivX), and it decodes to one frame fewer than annotated: "
    "annotation frame i is decoded frame i - 1",
    "clipped-boxes": "boxes that reach past the decoded frame are clipped to it",
    "scaled-boxes": "the video has another size than the boxes were drawn in: boxes are scaled along",
    "jpegs-as-found": "the folder's JPEGs are stored as they are, of whatever quality: encoding them anew would only lose",
}


@dataclass(frozen=True)
class Tube:
    """One tube of a video: its index there, class, first frame, and x1 y1 x2 y2 a frame in pixels; and what its annotation
    file calls it.
    """

    index: int
    label: int
    first_frame: int
    boxes: Float32[np.ndarray, "frames 4"]
    called: str = ""

    @property
    def name(self) -> str:
        """What a message calls it."""
        return self.called or f"tube {self.index}"


@dataclass(frozen=True)
class Decoded:
    """What came out of a video file, of a damaged one, what came before the damage; whether JPEGs were found in it, and
    whether some of its packets held two frames (packed B-frames).
    """

    frames: int
    width: int
    height: int
    decoder: str
    damaged: bool = False
    as_found: bool = False
    packed: bool = False


def reconcile(
    video_id: str,
    tubes: list[Tube],
    decoded: Decoded,
    *,
    annotated_frames: int | None,
    box_size: tuple[int, int],
    counted_from: int = 0,
) -> tuple[list[Tube], tuple[str, ...]]:
    """The tubes in frames and pixels of the decoded video, and the names of the rules applied.

    Args:
        annotated_frames: None where the annotation format does not count frames.
        box_size: width and height that the boxes were drawn in.
        counted_from: the number of a video's first frame in the annotations, for messages.

    Raises:
        InputError: the counts differ in another way than a rule explains, a tube reaches past the video's end, or a
            box lies outside the frame.
    """
    rules = []
    if decoded.damaged:
        rules.append(KEPT)
        tubes = [cut for tube in tubes if len((cut := _before(tube, decoded.frames)).boxes)]
    elif annotated_frames is not None and decoded.frames != annotated_frames:
        if not decoded.packed or decoded.frames != annotated_frames - 1:
            raise InputError(
                f"video {video_id} has another number of frames than its annotations",
                found=f"{decoded.frames} decoded frames ({decoded.decoder})",
                wanted=f"{annotated_frames}",
                todo="replace the file, or take the video out of the lists",
            )
        rules.append("packed-b-frames")
        tubes = [moved for tube in tubes if len((moved := _one_frame_earlier(tube)).boxes)]
    for tube in tubes:
        if tube.first_frame + len(tube.boxes) > decoded.frames:
            raise InputError(
                f"video {video_id} ends before its {tube.name}",
                found=f"{decoded.frames} decoded frames",
                wanted=f"at least {tube.first_frame + len(tube.boxes)}, as the tube's last frame is number "
                f"{tube.first_frame + len(tube.boxes) - 1 + counted_from}, counted from {counted_from}",
                todo="replace the file, or mend the annotations"
                + ("" if counted_from else "; if they count frames from 1, let the card say first_frame = 1"),
            )
    clipped = [_clipped(tube, video_id, box_size, counted_from) for tube in tubes]
    if any(after is not before for before, after in zip(tubes, clipped, strict=True)):
        rules.append("clipped-boxes")
    tubes = clipped
    if (decoded.width, decoded.height) != box_size:
        rules.append("scaled-boxes")
        scale = np.array([decoded.width / box_size[0], decoded.height / box_size[1]] * 2, np.float32)
        tubes = [replace(tube, boxes=tube.boxes * scale) for tube in tubes]
    if decoded.as_found:
        rules.append("jpegs-as-found")
    return tubes, tuple(rules)


def _before(tube: Tube, frame: int) -> Tube:
    return replace(tube, boxes=tube.boxes[: max(0, frame - tube.first_frame)])


def _clipped(tube: Tube, video_id: str, size: tuple[int, int], counted_from: int) -> Tube:
    boxes = clip_boxes(tube.boxes, size, f"{video_id} {tube.name}", tube.first_frame + counted_from)
    return tube if np.array_equal(boxes, tube.boxes) else replace(tube, boxes=boxes)


def _one_frame_earlier(tube: Tube) -> Tube:
    if tube.first_frame > 0:
        return replace(tube, first_frame=tube.first_frame - 1)
    return replace(tube, boxes=tube.boxes[1:])
