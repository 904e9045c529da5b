"""A video's frames as they are stored: decoded here or, where a limit is set, in a process that can be killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8

from data_manifests.errors import InputError
from pipeline.damage import check_whole
from pipeline.frames import Frame, open_frames

GRACE = 10.0
"""Seconds past its limit after which a decoder ends by itself, should nobody be left to kill it."""
MESSAGE = 2**18
"""Bytes of frames that a decoder process sends at once, at least: each message costs as much as a small frame's decoding."""


@dataclass(frozen=True)
class Decoding:
    """What becomes of awkward videos.

    Args:
        damaged: `refuse`, or `keep` the frames before the damage.
        limit: seconds that decoding one video may take; None: no limit.
    """

    damaged: str = "refuse"
    limit: float | None = None


STRICT = Decoding()


class StoredFrame(NamedTuple):
    """A frame's stored bytes, its (width, height), those that it was decoded with, whether its file's bytes are stored, and
    whether the video was seen to have packed B-frames.
    """

    content: bytes
    size: tuple[int, int]
    native: tuple[int, int]
    as_found: bool
    packed: bool


class Request(NamedTuple):
    """A video, where it lies, how its frames are stored, and whether it may be damaged."""

    video_id: str
    path: Path
    codec: str
    max_side: int | None
    keep: bool


def stored_frames(request: Request, limit: float | None) -> Iterator[StoredFrame]:
    """Every frame of a video, in order.

    Args:
        limit: seconds; None decodes in this process.

    Raises:
        DamagedVideo: after the frames before the damage.
        InputError: it is no video, changes its frame size, or its decoder took too long or died.
    """
    return _decode(request) if limit is None else _decode_apart(request, limit)


def encode_frame(frame: Frame, codec: str) -> bytes:
    """A frame's stored bytes: a JPEG (4:2:0), or the RGB bytes themselves."""
    if codec == "raw":
        return frame.tobytes()
    quality = int(codec.removeprefix("jpeg:"))
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(frame), quality=quality, colorspace="RGB", colorsubsampling="420"
    )


def serve(descriptor: int) -> None:
    """What a decoder process does: requests in, frames out, until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the build's to handle
    cv2.setNumThreads(1)
    with Connection(descriptor) as connection:
        while True:
            try:
                request, limit = connection.recv()
                signal.setitimer(signal.ITIMER_REAL, limit + GRACE)
                _send_all(connection, request)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except (EOFError, ConnectionError):
                return


def _send_all(connection: Connection, request: Request) -> None:
    """Lists of frames, then None or what ended them."""
    frames: list[StoredFrame] = []
    size = 0
    ended = None
    try:
        for frame in _decode(request):
            frames.append(frame)
            size += len(frame.content)
            if size >= MESSAGE:
                connection.send(frames)
                frames, size = [], 0
    except ConnectionError:
        raise
    except Exception as error:  # noqa: BLE001  (it is raised where the frames are wanted)
        ended = error
    connection.send(frames)
    connection.send(ended)


def _decode(request: Request) -> Iterator[StoredFrame]:
    native: tuple[int, int] | None = None
    for index, (frame, jpeg, packed) in enumerate(open_frames(request.path, whole=not request.keep).pictures()):
        size = frame.shape[1], frame.shape[0]
        if native is not None and size != native:
            raise InputError(
                f"video {request.video_id} changes its frame size at frame {index}",
                found=f"{size[0]} x {size[1]}",
                wanted=f"{native[0]} x {native[1]}",
                todo="replace the file, or take the video out of the lists",
            )
        native = size
        stored = _shrunk(frame, request.max_side)
        as_found = jpeg if stored is frame and request.codec != "raw" else None  # encoding it anew would only lose
        content = encode_frame(stored, request.codec) if as_found is None else as_found
        yield StoredFrame(content, (stored.shape[1], stored.shape[0]), native, as_found is not None, packed)
    if request.keep and request.path.is_file():
        check_whole(request.path)


def _shrunk(frame: Frame, max_side: int | None) -> UInt8[np.ndarray, "shrunk_height shrunk_width 3"]:
    longer = max(frame.shape[:2])
    if max_side is None or longer <= max_side:
        return frame
    size = tuple(max(1, round(side * max_side / longer)) for side in frame.shape[1::-1])
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


_here = threading.local()
"""The decoder of this thread that waits for its next video, if there is one."""


def _decode_apart(request: Request, limit: float) -> Iterator[StoredFrame]:
    decoder = getattr(_here, "decoder", None) or _Decoder()
    _here.decoder = None
    try:
        yield from decoder.frames(request, limit)
    except BaseException:
        decoder.kill()
        raise
    _here.decoder = decoder


class _Decoder:
    """A process that decodes one video after another. It ends when it is killed or nobody holds its other end."""

    def __init__(self) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve({theirs.fileno()})"],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": paths},
        )
        theirs.close()

    def frames(self, request: Request, limit: float) -> Iterator[StoredFrame]:
        end, count = time.monotonic() + limit, 0
        try:
            self._connection.send((request, limit))
            while True:
                left = end - time.monotonic()
                if left <= 0 or not self._connection.poll(left):
                    raise InputError(
                        f"decoding video {request.video_id} takes longer than {limit:g} s, and was stopped",
                        found=f"{count} frames or a few more of {request.path}",
                        todo="raise --decode-limit, replace the file, or take the video out of the lists",
                    )
                item = self._connection.recv()
                if item is None:
                    return
                if isinstance(item, Exception):
                    raise item
                yield from item
                count += len(item)
        except (EOFError, ConnectionError) as error:
            raise InputError(
                f"the decoder of video {request.video_id} died",
                found=f"after {count} frames or a few more of {request.path}, exit code {self._process.wait()}",
                todo="replace the file, or take the video out of the lists; if memory is short, use fewer --workers",
            ) from error

    def kill(self) -> None:
        """Ends it, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._connection.close()
