"""The demo dataset: videos in which only motion tells the classes apart.

Every actor has four coordinates: x, y, log size and angle, each drawn uniformly from the same span for every class.
Its class says which coordinate sweeps through its span during the actor's life, and in which direction; the others stay
where they were drawn. So at a random moment of a random life all four are distributed alike for all classes, and so
are shape and colour: a single frame tells nothing.
"""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from jaxtyping import Float, UInt8

WIDTH, HEIGHT, FRAMES = 320, 240, 48
VIDEOS = {"train": 120, "test": 20}
"""Of half as many the same training learns more by heart, and takes Approach for Leave in others (-8 points at worst)."""
SWEEPS: dict[str, tuple[int, int]] = {
    "Left": (0, -1),
    "Right": (0, +1),
    "Rise": (1, -1),
    "Sink": (1, +1),
    "Approach": (2, +1),
    "Leave": (2, -1),
}
"""Class: the coordinate that sweeps (0 x, 1 y, 2 log size) and its direction."""

SPAN = np.array([50.0, 40.0, 0.8, np.pi])
"""Half the span of x and y (pixels), of log2 size, and of the angle (radians)."""

SIZE = 60.0
LIFE = (24, 40)
LARGEST = SIZE * 2 ** SPAN[2] / 2 + 3


@dataclass(frozen=True)
class Actor:
    """One tube of the demo: `base` + `SPAN` * place(t), as long as it lives."""

    action: str
    first_frame: int
    frames: int
    base: Float[np.ndarray, "2"]
    place: Float[np.ndarray, "4"]
    corners: int
    colour: tuple[int, int, int]

    @property
    def end(self) -> int:
        """The first frame without it."""
        return self.first_frame + self.frames

    def outlines(self) -> Float[np.ndarray, "frames corners 2"]:
        """The polygon's corners in each frame of its life, in pixels."""
        place = np.tile(self.place, (self.frames, 1))
        axis, direction = SWEEPS[self.action]
        place[:, axis] = direction * (2 * np.arange(self.frames) / (self.frames - 1) - 1)
        x, y, log_size, angle = (place * SPAN).T[:, :, None]
        turns = angle + 2 * np.pi * np.arange(self.corners) / self.corners
        radius = SIZE * 2**log_size / 2
        return self.base + np.stack([x + radius * np.cos(turns), y + radius * np.sin(turns)], 2)

    def boxes(self) -> Float[np.ndarray, "frames 4"]:
        """x1 y1 x2 y2 around the drawn polygon in each frame of its life, its two-pixel rim included."""
        corners = self.outlines()
        return np.concatenate([corners.min(1) - 1, corners.max(1) + 1], 1)


@dataclass(frozen=True)
class Scene:
    """Everything about one video; drawing it needs no further randomness."""

    video_id: str
    split: str
    actors: tuple[Actor, ...]
    seed: tuple[int, ...]


def make_scenes(seed: int) -> Iterator[Scene]:
    """All videos of the dataset; scene i of a split is a pure function of (seed, split, i)."""
    classes = tuple(SWEEPS)
    for code, (split, videos) in enumerate(VIDEOS.items()):
        for index in range(videos):
            key = (seed, code, index)
            random = np.random.default_rng(key)
            action = classes[index % len(classes)]
            yield Scene(f"{action}/v_{action}_{split}_{index:03d}", split, _draw_actors(random, action), key)


def _draw_actors(random: np.random.Generator, first_action: str) -> tuple[Actor, ...]:
    actors: list[Actor] = []
    wanted = 1 + random.choice(3, p=[0.4, 0.35, 0.25])
    for _ in range(200):
        others = [action for action in SWEEPS if action not in {actor.action for actor in actors}]
        frames = int(random.integers(LIFE[0], LIFE[1] + 1))
        margin = SPAN[:2] + LARGEST
        actor = Actor(
            action=str(random.choice(others)) if actors else first_action,
            first_frame=int(random.integers(0, FRAMES - frames + 1)),
            frames=frames,
            base=random.uniform(margin, [WIDTH, HEIGHT] - margin),
            place=random.uniform(-1, 1, 4),
            corners=int(random.choice([3, 4, 5, 24])),
            colour=_draw_colour(random),
        )
        if all(_largest_overlap(actor, other) < 0.25 for other in actors):
            actors.append(actor)
        if len(actors) == wanted:
            break
    return tuple(actors)


def _draw_colour(random: np.random.Generator) -> tuple[int, int, int]:
    hsv = np.array([[[random.integers(0, 180), random.integers(190, 256), random.integers(200, 256)]]], np.uint8)
    red, green, blue = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue


def _largest_overlap(a: Actor, b: Actor) -> float:
    """The largest share of the smaller box that the two actors' boxes have in common at any frame."""
    begin, end = max(a.first_frame, b.first_frame), min(a.end, b.end)
    if begin >= end:
        return 0.0
    one, two = (actor.boxes()[begin - actor.first_frame : end - actor.first_frame] for actor in (a, b))
    common = np.clip(np.minimum(one[:, 2:], two[:, 2:]) - np.maximum(one[:, :2], two[:, :2]), 0, None).prod(1)
    smaller = np.minimum(*((boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (one, two)))
    return float((common / smaller).max())


def render(scene: Scene) -> Iterator[UInt8[np.ndarray, "240 320 3"]]:
    """The scene's frames, RGB: a drifting background, grey distractors, the actors, and a bar that passes over them."""
    random = np.random.default_rng((*scene.seed, 1))
    field = random.uniform(70, 150, (9, 12, 1)) + random.uniform(-18, 18, (9, 12, 3))
    ground = cv2.resize(field.astype(np.float32), (2 * WIDTH, 2 * HEIGHT), interpolation=cv2.INTER_CUBIC)
    ground = np.clip(ground, 0, 255).astype(np.uint8)
    drift = random.uniform(-1.5, 1.5, 2)
    distractors = [
        (
            random.uniform([0, 0], [WIDTH, HEIGHT]),
            random.uniform(-2, 2, 2),
            random.uniform(8, 30),
            int(random.choice([2, 24])),
        )
        for _ in range(random.integers(2, 6))
    ]
    bar_at, bar_speed, bar_width = random.uniform(0, WIDTH), random.uniform(-4, 4), random.uniform(6, 14)
    bar_grey = int(random.integers(40, 200))
    outlines = [actor.outlines() for actor in scene.actors]
    for frame in range(FRAMES):
        corner = np.array([WIDTH, HEIGHT]) / 2 + drift * (frame - FRAMES / 2)
        image = cv2.getRectSubPix(ground, (WIDTH, HEIGHT), tuple(corner + [WIDTH / 2, HEIGHT / 2]))
        for place, speed, radius, sides in distractors:
            turns = 2 * np.pi * np.arange(sides) / sides
            line = place + speed * frame + radius * np.stack([np.cos(turns), np.sin(turns)], 1)
            cv2.polylines(image, [_fixed(line)], True, (200, 200, 200), 2, cv2.LINE_AA, shift=4)
        for actor, outline in zip(scene.actors, outlines, strict=True):
            if actor.first_frame <= frame < actor.end:
                corners = _fixed(outline[frame - actor.first_frame])
                cv2.fillPoly(image, [corners], actor.colour, cv2.LINE_AA, shift=4)
                cv2.polylines(image, [corners], True, (255, 255, 255), 2, cv2.LINE_AA, shift=4)
        left = (bar_at + bar_speed * frame) % WIDTH
        bar = _fixed(
            np.array([[left, -9.0], [left + bar_width, -9], [left + bar_width, HEIGHT + 9.0], [left, HEIGHT + 9]])
        )
        cv2.fillPoly(image, [bar], (bar_grey,) * 3, cv2.LINE_AA, shift=4)
        yield image


def _fixed(points: Float[np.ndarray, "n 2"]) -> np.ndarray:
    """OpenCV's fixed-point pixel centres from continuous edges' coordinates."""
    return np.round((points - 0.5) * 16).astype(np.int32)


def make_demo(root: Path, seed: int = 0) -> None:
    """Writes the dataset below `root`: videos/<Class>/<name>.avi, annotations/demo.csv and annotations/testlist.txt.

    All or nothing: it is made beside its place and moved there. A root that holds anything is left as it is.
    """
    if root.exists() and any(root.iterdir()):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        (making / "annotations").mkdir()
        scenes = tuple(make_scenes(seed))
        for scene in scenes:
            _encode(scene, making / "videos" / f"{scene.video_id}.avi")
        _annotate(scenes, making / "annotations")
        making.chmod(0o755)
        os.rename(making, root)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _encode(scene: Scene, path: Path) -> None:
    """MPEG-4 in an AVI, as UCF101 is; one thread, so that the bytes are the same everywhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        options = {"qmin": "2", "qmax": "5", "flags": "+bitexact", "threads": "1"}
        stream = container.add_stream("mpeg4", rate=Fraction(25), options=options)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", 1_500_000
        for image in render(scene):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())


def _annotate(scenes: tuple[Scene, ...], folder: Path) -> None:
    with open(folder / "demo.csv", "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["video", "tube", "class", "frame", "x1", "y1", "x2", "y2"])
        for scene in scenes:
            for tube, actor in enumerate(scene.actors):
                for frame, box in enumerate(actor.boxes(), actor.first_frame):
                    rows.writerow([scene.video_id, tube, actor.action, frame, *(f"{value:.2f}" for value in box)])
    test = [scene.video_id for scene in scenes if scene.split == "test"]
    (folder / "testlist.txt").write_text("\n".join(test) + "\n")
