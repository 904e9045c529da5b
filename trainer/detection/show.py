"""The tubes of any video, as JSON and drawn into an mp4."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from rich.console import Console
from rich.progress import track

from data_manifests.errors import InputError
from trainer.data.resample import resample
from trainer.detection.find import ClipTubelets, Detector
from trainer.detection.footage import gaps_of, open_footage, write_video
from trainer.detection.link import Tubes, link
from trainer.detection.tubelets import VideoTubelets
from trainer.detections_file import weights_digest
from trainer.evaluation import check_writable, write_json
from trainer.pictures import PALETTE

BLOCK = 16
LEAST_LINKED = 0.05
"""Tubelets of a lower score are kept for linking only where weaker tubes are to be shown."""


def _worthy(clips: Iterator[ClipTubelets], least_score: float) -> Iterator[ClipTubelets]:
    """The any-class tubelets of which some class scores `least_score`: a handful a clip, so that hours fit in
    memory.
    """
    for clip in clips:
        chosen = clip.any_scores[:, 1:].max(1) >= least_score
        yield replace(clip, any_scores=clip.any_scores[chosen], any_boxes=clip.any_boxes[chosen])


def find_tubes(
    detector: Detector, frames: Iterator[UInt8[np.ndarray, "h w 3"]], name: str, *, least_score: float = LEAST_LINKED
) -> tuple[Tubes, int, tuple[int, int]]:
    """The tubes of a stream of frames, the number of frames, and their width and height.

    Memory holds a block of frames and, a clip, the few tubelets that score `least_score` or more.

    Raises:
        InputError: there is not one frame.
    """
    first = next(frames, None)
    if first is None:
        raise InputError(f"{name} has no frame", todo="give a video that decodes")
    height, width = first.shape[:2]
    whole, size = np.array([0, 0, width, height], np.int32), detector.model.spec.image_size
    count = 0

    def blocks() -> Iterator[UInt8[np.ndarray, "_ size size 3"]]:
        nonlocal count
        stream = chain([first], frames)
        while block := list(islice(stream, BLOCK)):
            count += len(block)
            yield resample(np.stack(block), whole, False, size)

    clips = list(_worthy(detector.clips(blocks(), width, height, name), least_score))
    K, labels = detector.model.K, detector.model.classes + 1
    nothing = np.zeros(len(clips) + 1, np.int64)
    tubelets = VideoTubelets(
        count,
        nothing,
        np.empty(0, np.int16),
        np.empty(0, np.float32),
        np.empty((0, K, 4), np.float32),
        np.concatenate(([0], np.cumsum([len(clip.any_scores) for clip in clips], dtype=np.int64))).astype(np.int64),
        np.concatenate([clip.any_scores for clip in clips] or [np.empty((0, labels), np.float32)]),
        np.concatenate([clip.any_boxes for clip in clips] or [np.empty((0, K, 4), np.float32)]),
    )
    return link(tubelets), count, (width, height)


def tubes_json(tubes: Tubes, chosen: list[int], classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """The chosen tubes, best first: class, score, first frame, and a box and score a frame (x1 y1 x2 y2, pixels)."""
    return [
        {
            "class": classes[int(tubes.label[t])],
            "score": round(float(tubes.score[t]), 4),
            "first_frame": int(tubes.first[t]),
            "boxes": tubes.boxes[tubes.ptr[t] : tubes.ptr[t + 1]].round(1).astype(float).round(1).tolist(),
            "scores": tubes.box_scores[tubes.ptr[t] : tubes.ptr[t + 1]].astype(float).round(4).tolist(),
        }
        for t in chosen
    ]


def draw_tubes(
    frames: Iterator[UInt8[np.ndarray, "h w 3"]], tubes: Tubes, chosen: list[int], classes: tuple[str, ...]
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """The frames with the chosen tubes: a colour a tube, its class and score."""
    for number, pixels in enumerate(frames):
        drawn = pixels.copy()
        scale = max(0.4, pixels.shape[0] / 700)
        for identity, t in enumerate(chosen):
            place = number - int(tubes.first[t])
            if not 0 <= place < tubes.ptr[t + 1] - tubes.ptr[t]:
                continue
            colour = PALETTE[identity % len(PALETTE)]
            x1, y1, x2, y2 = (round(float(value)) for value in tubes.boxes[tubes.ptr[t] + place])
            cv2.rectangle(drawn, (x1, y1), (x2, y2), colour, 2)
            text = f"{classes[int(tubes.label[t])]} {tubes.score[t]:.2f}"
            (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
            top = max(y1, height + base)
            cv2.rectangle(drawn, (x1, top - height - base), (x1 + width, top), colour, cv2.FILLED)
            cv2.putText(drawn, text, (x1, top - base), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)
        yield drawn


def _until_interrupted(frames: Iterator[UInt8[np.ndarray, "h w 3"]]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Ctrl-C ends a camera's stream as if it had ended by itself, whatever is done with a frame; a second one ends all."""
    asked = threading.Event()
    before = signal.getsignal(signal.SIGINT)

    def ask(*_: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)
        os.write(2, b"\nCtrl-C: ends with the next frame; once more gives the recording up\n")

    if before is signal.default_int_handler:  # else it is ignored, or somebody else's
        signal.signal(signal.SIGINT, ask)
    try:
        for frame in frames:
            yield frame
            if asked.is_set():
                return
    finally:
        signal.signal(signal.SIGINT, before)


def name_of(source: str) -> str:
    """What the files of a source are called, without a suffix: a folder's whole name, which may have a dot in it."""
    if _is_camera(source):
        return f"camera-{source}"
    path = Path(os.path.abspath(source))
    return path.name if path.is_dir() else path.stem


def _is_camera(source: str) -> bool:
    return source.isdigit() and not Path(source).exists()


def check_sources(sources: Sequence[str], out: Path, *, keep: bool) -> list[str]:
    """Opens each source and makes `out`, before the first one takes its time. Returns what is odd about them, in words.

    Args:
        keep: as `open_footage`.

    Raises:
        InputError: one is not there or cannot be read, two sources' files would have one name, or a file that is
            not of an earlier detection would be overwritten.
    """
    named: dict[str, str] = {}
    for source in sources:
        _, read = open_footage(source, keep=keep)
        if _is_camera(source):
            next(read(), None)
        name = name_of(source)
        other = named.setdefault(name, source)
        if other != source:
            raise InputError(
                f"{name}.json would be written twice", found=f"{other} and {source}",
                wanted="sources of different names", todo="detect in one of them by itself, with another --out",
            )  # fmt: skip
        for path in (out / f"{name}.json", out / f"{name}.mp4"):
            if path.exists() and (found := _kept(path, out / f"{name}.json", source)):
                raise InputError(
                    f"{path} would be overwritten", found=found, todo="give another --out, or move it away"
                )
    check_writable(out)
    return [oddity for source in sources if (oddity := gaps_of(source))]


def _kept(path: Path, described: Path, source: str) -> str:
    """Why a file is not to be replaced by what is found in a source; "" if it was found in it before.

    Args:
        described: the JSON of the detection that wrote the file, if one did.
    """
    if path.resolve() == Path(source).resolve():
        return "the video itself"
    try:
        before = json.loads(described.read_bytes())
        source_before = str(before["source"])
        if not {"tubes", "weights"} <= before.keys():
            raise KeyError("tubes and weights")
    except (OSError, ValueError, KeyError, TypeError):
        return f"no {described.name} of an earlier detection beside it"
    return "" if source_before == _whole_path(source) else f"what was found in {source_before}"


def _whole_path(source: str) -> str:
    return source if _is_camera(source) else os.path.abspath(source)


def detect(
    detector: Detector,
    classes: tuple[str, ...],
    source: str,
    out: Path,
    *,
    least_score: float,
    frames: int | None,
    keep: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Writes `out/NAME.json` and `out/NAME.mp4` for one source; returns the JSON's content and the speed.

    On a terminal, unless `quiet`, a bar tells how many frames are done. A camera is recorded to the mp4 first, and then read like a file.
    """
    name = name_of(source)
    rate, read = open_footage(source, keep=keep)
    picture = out / f"{name}.mp4"
    if _is_camera(source):
        write_video(picture, _until_interrupted(islice(read(), frames)), rate)
        rate, read = open_footage(str(picture))
    begun = time.perf_counter()
    seen = track(
        islice(read(), frames),
        source,
        console=Console(stderr=True),
        transient=True,
        disable=quiet or not sys.stderr.isatty(),
    )
    tubes, count, (width, height) = find_tubes(detector, iter(seen), source, least_score=min(LEAST_LINKED, least_score))
    seconds = time.perf_counter() - begun
    kept = [int(t) for t in np.flatnonzero(tubes.kept & (tubes.score >= least_score))]
    kept.sort(key=lambda t: -float(tubes.score[t]))
    content = {
        "source": _whole_path(source),
        "frames": count,
        "rate": float(rate),
        "width": width,
        "height": height,
        "classes": list(classes),
        "weights": weights_digest(detector.model),
        "tubes": tubes_json(tubes, kept, classes),
    }
    write_json(out / f"{name}.json", content)
    write_video(picture, draw_tubes(islice(read(), frames), tubes, kept, classes), rate)
    return content | {"frames_per_second": count / seconds}
