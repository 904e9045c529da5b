"""Whether boxes lie where and when the frames move: shifted, swapped, mirrored or scaled annotations give themselves away.

Two figures are measured in each of some videos, and averaged:

- *place*: the correlation, over a frame's pixels, of motion (what differs from both the frame before and the frame after) with
  lying in the box. It is measured again for boxes that were mirrored, whose x and y were swapped, or whose centres were scaled
  by 320/340 and 340/320. Something is wrong if one of those fits better, by more than `CERTAIN` standard errors over the videos.
- *time*: the correlation, over a tube's frames, of its centre's speed with the optical flow inside it, measured again for the
  flow of up to `SHIFT` frames earlier and later. Something is wrong if the best shift is more than `APART` frames from none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from jaxtyping import Float, Float32, Float64, Integer, UInt8

from pipeline.reconcile import Tube
from pipeline.stored import StoredShard, StoredVideo

VIDEOS, FRAMES = 64, 240
"""How many videos are measured, evenly chosen, and how many frames of each."""
LEAST_VIDEOS = 8
SIDE = 160
"""Frames are measured with this longer side, pixels."""
SMALLEST = 32
SHIFT = 8
CERTAIN = 3.0
LEAST_SPREAD = 0.01
"""Videos are taken to differ by at least this much of a correlation: copies of one video agree, and prove no more than it does."""
APART = 0.6
LEAST_FIT = 0.1
"""Speeds of boxes that fit the flow less than this at every shift tell no shift: nothing moves, or all moves evenly."""
FASTEST = 3.0
"""Speeds are clipped to it, small pixels a frame: a jump of a box is a mistake of another kind."""
INNER = 0.7
"""Part of a box's width and height in which its flow is measured."""

Boxes = Float[np.ndarray, "_ 4"]


def _moved_to(factor: float) -> Callable[[Boxes, tuple[int, int]], Boxes]:
    def moved(boxes: Boxes, size: tuple[int, int]) -> Boxes:
        return boxes + np.tile((boxes[:, :2] + boxes[:, 2:]) / 2 * (factor - 1), 2)

    return moved


PLACES: dict[str, Callable[[Boxes, tuple[int, int]], Boxes]] = {
    "mirrored": lambda boxes, size: np.array([size[0], 0, size[0], 0]) + boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1],
    "with x and y swapped": lambda boxes, size: boxes[:, [1, 0, 3, 2]],
    "scaled by 320/340": _moved_to(320 / 340),
    "scaled by 340/320": _moved_to(340 / 320),
}
"""What may have been done to boxes, (frames, 4) of frames of a (width, height): done again, it would mend them."""


@dataclass(frozen=True)
class Evidence:
    """What one video says.

    Args:
        place: how well its boxes fit the motion as they are, then as each of `PLACES`.
        time: how well they fit the flow of -SHIFT to SHIFT frames later; None if no tube is long enough.
    """

    place: Float64[np.ndarray, " hypotheses"]
    time: Float64[np.ndarray, " shifts"] | None


@dataclass(frozen=True)
class Alignment:
    """What all measured videos say together.

    Args:
        gains: of each of `PLACES`, by how many standard errors it fits better than the boxes as they are.
        shift: frames by which the boxes should move to fit best, with its 95 % interval; None if the videos cannot tell.
    """

    videos: int
    place: float
    gains: dict[str, float]
    shift: tuple[float, float, float] | None

    @property
    def warnings(self) -> list[str]:
        """In words, what is likely to be wrong. Where the place is, the time cannot be told."""
        best_place = max(self.gains, key=self.gains.__getitem__, default=None)
        if best_place is not None and self.gains[best_place] > CERTAIN:
            gain = self.gains[best_place]
            return [f"boxes fit the motion better {best_place} ({gain:.1f} standard errors over {self.videos} videos)"]
        if self.shift is None:
            return []
        best, low, high = self.shift
        if abs(best) <= APART or low * high <= 0:
            return []
        way = "later" if best > 0 else "earlier"
        return [f"boxes fit the motion better {abs(best):.1f} frames {way} (95 %: {low:.1f} to {high:.1f})"]

    @property
    def summary(self) -> str:
        """The figures, in a sentence."""
        if not self.gains:
            return (
                f"boxes against motion: too few videos with tubes to tell ({self.videos}, of at least {LEAST_VIDEOS})"
            )
        best = max(self.gains, key=self.gains.__getitem__)
        shift = "no shift can be told: tubes are too few, too short or move too evenly"
        if self.shift is not None:
            shift = "best shift {:+.1f} frames (95 %: {:+.1f} to {:+.1f})".format(*self.shift)
        return (
            f"boxes against motion in {self.videos} videos: correlation {self.place:.2f}; "
            f"the best alternative is {best}, at {self.gains[best]:+.1f} standard errors; {shift}"
        )


class VideoMotion:
    """Motion and optical flow of a video, ready to be summed over boxes.

    Args:
        frames: grey and small (see `SIDE`), at least 3.
    """

    def __init__(self, frames: Sequence[UInt8[np.ndarray, "height width"]]) -> None:
        self.frames, (self.height, self.width) = len(frames), frames[0].shape
        pixels = np.stack(frames).astype(np.float32)
        change = np.sqrt(np.abs(np.diff(pixels, axis=0)))
        motion = np.minimum(np.concatenate([change[:1], change]), np.concatenate([change, change[-1:]]))
        self.mean, self.deviation = motion.mean((1, 2)), motion.std((1, 2))
        self.motion = _summed(motion[..., None])
        of = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self.flow = _summed(
            np.stack([of.calc(a, b, np.zeros((*a.shape, 2), np.float32)) for a, b in zip(frames, frames[1:])])
        )

    def evidence(self, tubes: Sequence[tuple[int, Boxes]]) -> Evidence | None:
        """What tubes (first frame, boxes in small pixels) say; None if they have no box in these frames."""
        place, boxes_seen, time, speeds_seen = np.zeros(1 + len(PLACES)), 0, np.zeros(2 * SHIFT + 1), 0
        for first, boxes in tubes:
            boxes = boxes[: max(0, self.frames - first)]
            frames = first + np.arange(len(boxes))
            here = [boxes, *(moved(boxes, (self.width, self.height)) for moved in PLACES.values())]
            place += [self._fit(frames, moved).sum() for moved in here]
            boxes_seen += len(boxes)
            told = self._fit_in_time(frames, boxes)
            if told is not None:
                curve, speeds = told
                time += curve * speeds
                speeds_seen += speeds
        if not boxes_seen:
            return None
        return Evidence(place / boxes_seen, time / speeds_seen if speeds_seen else None)

    def _fit(self, frames: Integer[np.ndarray, " n"], boxes: Boxes) -> Float[np.ndarray, " n"]:
        """Correlation, over the pixels of each frame, of motion with lying in the box; 0 where nothing moves."""
        total, area = _inside(self.motion, frames, boxes)
        part = np.minimum(area / (self.width * self.height), 0.98)
        moves = self.deviation[frames] > 1e-3
        contrast = (total[:, 0] / area - self.mean[frames]) / np.where(moves, self.deviation[frames], 1)
        return np.where(moves, contrast * np.sqrt(part / (1 - part)), 0)

    def _fit_in_time(
        self, frames: Integer[np.ndarray, " n"], boxes: Boxes
    ) -> tuple[Float64[np.ndarray, " shifts"], int] | None:
        centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * INNER
        fits = (frames >= SHIFT) & (frames + SHIFT < len(self.flow))
        fits[-1:] = False
        if fits.sum() < SHIFT:
            return None
        speed = _around_mean(np.diff(centre, axis=0)[fits[:-1]])
        inner = np.concatenate([centre - half, centre + half], 1)[fits]
        curve = np.zeros(2 * SHIFT + 1)
        for place, shift in enumerate(range(-SHIFT, SHIFT + 1)):
            total, area = _inside(self.flow, frames[fits] + shift, inner)
            flow = _around_mean(total / area[:, None])
            curve[place] = (flow * speed).sum() / np.sqrt((flow**2).sum() * (speed**2).sum() + 1e-9)
        return curve, len(speed)


def judge(evidence: Sequence[Evidence]) -> Alignment:
    """What videos say together."""
    if len(evidence) < LEAST_VIDEOS:
        return Alignment(len(evidence), 0.0, {}, None)
    place = np.stack([one.place for one in evidence])
    better = place[:, 1:] - place[:, :1]
    error = np.maximum(better.std(0, ddof=1), LEAST_SPREAD) / np.sqrt(len(better))
    gains = dict(zip(PLACES, (better.mean(0) / error).tolist()))
    curves = [one.time for one in evidence if one.time is not None]
    shift = _best_shift(np.stack(curves)) if len(curves) >= LEAST_VIDEOS else None
    return Alignment(len(evidence), float(place[:, 0].mean()), gains, shift)


def video_motion(shard: StoredShard, video: StoredVideo) -> VideoMotion | None:
    """The motion of a video's first `FRAMES` frames; None if they are too few or too small to tell.

    Raises:
        InputError: a frame is damaged.
    """
    frames = [
        _small_grey(frame, shard.settings.frames == "raw", video)
        for frame in shard.encoded(video, 0, min(video.frames, FRAMES))
    ]
    return VideoMotion(frames) if len(frames) > 2 and min(frames[0].shape) >= SMALLEST else None


def small_tubes(video: StoredVideo, tubes: Sequence[Tube], motion: VideoMotion) -> list[tuple[int, Boxes]]:
    """Tubes in the pixels of `motion`."""
    scale = np.array([motion.width / video.width, motion.height / video.height] * 2)
    return [(tube.first_frame, tube.boxes * scale) for tube in tubes]


def measure_alignment(shards: Sequence[StoredShard]) -> Alignment:
    """Measures up to `VIDEOS` videos of a store, evenly chosen. Raises as `video_motion`."""
    everything = [(shard, video) for shard in shards for video in shard.videos if video.tubes]
    chosen = (
        [everything[i] for i in np.unique(np.linspace(0, len(everything) - 1, VIDEOS).astype(int))]
        if everything
        else []
    )

    def one(shard: StoredShard, video: StoredVideo) -> Evidence | None:
        motion = video_motion(shard, video)
        return None if motion is None else motion.evidence(small_tubes(video, video.tubes, motion))

    with ThreadPoolExecutor(min(4, len(os.sched_getaffinity(0)))) as pool:
        told = list(pool.map(lambda of: one(*of), chosen))
    return judge([evidence for evidence in told if evidence is not None])


def _best_shift(curves: Float64[np.ndarray, "videos shifts"]) -> tuple[float, float, float] | None:
    """Where the mean curve is highest (between frames, by a parabola), and 95 % of 400 resamplings of the videos."""
    if curves.mean(0).max() < LEAST_FIT:
        return None
    draw = np.random.default_rng(0)
    peaks = [_peak(curves[draw.integers(0, len(curves), len(curves))].mean(0)) for _ in range(400)]
    low, high = np.percentile(peaks, [2.5, 97.5])
    return _peak(curves.mean(0)), float(low), float(high)


def _peak(curve: Float64[np.ndarray, " shifts"]) -> float:
    top = 1 + int(np.argmax(curve[1:-1]))
    before, here, after = curve[top - 1 : top + 2]
    bend = before - 2 * here + after
    is_top = here >= max(before, after) and bend < 0
    return float(top - SHIFT + (0.5 * (before - after) / bend if is_top else 0))


def _around_mean(speed: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    clipped = np.clip(speed, -FASTEST, FASTEST)
    return clipped - clipped.mean(0)


def _summed(values: Float32[np.ndarray, "frames height width n"]) -> Float32[np.ndarray, "frames height1 width1 n"]:
    """Sums over all pixels above and to the left."""
    frames, height, width, n = values.shape
    table = np.zeros((frames, height + 1, width + 1, n), np.float32)
    inner = table[:, 1:, 1:]
    np.cumsum(values, 1, out=inner)
    np.cumsum(inner, 2, out=inner)
    return table


def _inside(
    table: Float32[np.ndarray, "frames height1 width1 n"],
    frames: Integer[np.ndarray, " m"],
    boxes: Float[np.ndarray, "m 4"],
) -> tuple[Float[np.ndarray, "m n"], Float[np.ndarray, " m"]]:
    """Sums over the whole pixels of boxes clipped to the frame (one pixel at least), and how many they are."""
    height, width = table.shape[1] - 1, table.shape[2] - 1
    x1, y1, x2, y2 = np.rint(boxes).astype(int).T
    x1, y1 = x1.clip(0, width - 1), y1.clip(0, height - 1)
    x2, y2 = np.clip(x2, x1 + 1, width), np.clip(y2, y1 + 1, height)
    total = table[frames, y2, x2] - table[frames, y1, x2] - table[frames, y2, x1] + table[frames, y1, x1]
    return total, ((x2 - x1) * (y2 - y1)).astype(float)


def _small_grey(encoded: bytes, raw: bool, video: StoredVideo) -> UInt8[np.ndarray, "height width"]:
    factor = min(1.0, SIDE / max(video.width, video.height))
    width, height = max(1, round(video.width * factor)), max(1, round(video.height * factor))
    if raw:
        pixels = np.frombuffer(encoded, np.uint8).reshape(video.height, video.width, 3)
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    else:
        grey = simplejpeg.decode_jpeg(encoded, colorspace="GRAY", min_width=width, min_height=height)[..., 0]
    return grey if grey.shape == (height, width) else cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
