"""Whole videos to RGB frames, in order: FrameSource against the decoders that others use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import decord

from pipeline.frames import open_frames
from tests.benchmarks.harness import Row, compare


def _ours(path: Path) -> None:
    for _ in open_frames(path):
        pass


def _decord(path: Path) -> None:
    reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
    for _ in range(len(reader)):
        reader.next().asnumpy()


def _pyav(path: Path) -> None:
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for frame in container.decode(video=0):
            frame.to_ndarray(format="rgb24")


def _opencv(path: Path) -> None:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    while True:
        there, frame = capture.read()
        if not there:
            return
        cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def bench() -> list[Row]:
    """11 of the real AVI files (1,444 frames of 320 x 240), opening included; ours also looks whether the file is whole."""
    shared = Path(os.environ.get("TUBELETS_SHARED", Path(__file__).resolve().parents[3] / "shared"))
    videos = sorted(Path(os.environ.get("TUBELETS_REAL", shared / "real"), "ucf101/videos").rglob("*.avi"))[::6]
    if not videos:
        return []

    def every(decode: Callable[[Path], None]) -> Callable[[], None]:
        return lambda: [decode(path) for path in videos] and None

    peers = {
        "decord next()": (_decord, None),
        "PyAV to_ndarray('rgb24')": (_pyav, 1.5),
        "OpenCV VideoCapture to RGB": (_opencv, None),
    }
    return [
        compare(
            f"decoding real AVI files, against {name}",
            every(_ours),
            every(peer),
            peer_name=name,
            samples=5,
            wanted=wanted,
        )
        for name, (peer, wanted) in peers.items()
    ]
