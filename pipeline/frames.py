"""One video, whole, in order: from a file or a folder of images to RGB frames."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

from data_manifests.containers import Blocks, listed_places, matroska_blocks, stored_chunks
from data_manifests.errors import InputError
from data_manifests.layout import MOST_PIXELS
from pipeline.damage import DamagedVideo, check_blocks, check_whole
from pipeline.images import Picture, pictures

CONTAINERS = "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,flv,asf,ogg"
"""What FFmpeg may take a file for. Playlists, which name other files, are not among them."""
UNSURE = {"mpegts": "MPEG-TS", "mpeg": "MPEG-PS", "flv": "FLV", "asf": "ASF (WMV)", "ogg": "Ogg"}
"""Those in which nothing says how many frames there are: cut or damaged ones give fewer without a word."""
PACKET_A_FRAME = "h264", "hevc", "av1", "vp9"
"""Codecs of which MP4 and Matroska keep each frame that is shown in a packet of its own."""

Frame = UInt8[np.ndarray, "height width 3"]

_VOP = b"\x00\x00\x01\xb6"
"""How a coded frame begins in MPEG-4 part 2."""


@dataclass(frozen=True)
class FrameSource:
    """Iterates over every frame of a video, in order, RGB. What comes out is the count; headers are not trusted.

    Args:
        path: the file or folder.
        decoder: `pyav` or `images`.
        blocks: of a Matroska file.
    """

    path: Path
    decoder: str
    blocks: Blocks | None = None

    def __iter__(self) -> Iterator[Frame]:
        """Raises DamagedVideo, naming file and frame, where the video does not decode to its end."""
        return (picture.pixels for picture in self.pictures())

    def pictures(self) -> Iterator[Picture]:
        """The frames, each with what is known of its place in the file. Raises as iterating does."""
        return pictures(self.path) if self.decoder == "images" else _video_frames(self.path, self.blocks)


def open_frames(path: Path, *, whole: bool = True) -> FrameSource:
    """A folder is read as images, a file by PyAV.

    decord is not used: on damaged UCF101 files it gives wrong frames without a word where FFmpeg flags them, and with one
    reformatter for the whole video PyAV is as fast (tests/benchmarks/bench_decode.py shows both).

    Args:
        whole: refuses a file that was cut off. Otherwise its frames may end without a word.

    Raises:
        InputError: the path is neither a (whole) video nor a folder.
    """
    if path.is_dir():
        return FrameSource(path, "images")
    if not path.is_file():
        raise InputError(f"video {path} is not there", todo="check the path, or build with --missing skip")
    blocks = matroska_blocks(path)
    if whole:
        check_whole(path)
        check_blocks(path, blocks)
    try:
        with _open(path) as container:
            if container.format.name in UNSURE:
                raise InputError(
                    f"{path} is of a kind that may lose frames unseen", found=UNSURE[container.format.name],
                    wanted="AVI, MP4, MOV, Matroska or WebM",
                    todo=f"ffmpeg -i {path.name} -c copy {path.stem}.mkv, and see that it warns of nothing",
                )  # fmt: skip
            if not container.streams.video:
                raise InputError(f"{path} has no video stream", todo="remove it from the lists, or replace the file")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise InputError(
                    f"{path}: FFmpeg knows no codec of its video stream's name",
                    todo="encode the video anew, or replace the file",
                )
            if stream.width * stream.height > MOST_PIXELS:
                raise InputError(
                    f"{path}: frames of {stream.width} x {stream.height} are refused",
                    wanted=f"at most {MOST_PIXELS:,} pixels",
                    todo="scale the video down, or replace the file",
                )
    except av.FFmpegError as error:
        raise InputError(f"{path} does not open as a video", found=str(error), todo="replace the file") from error
    return FrameSource(path, "pyav", blocks)


def _open(path: Path) -> av.container.InputContainer:
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    place = str(path.absolute())  # of a relative one, what stands before a colon would be a protocol
    return av.open(place, container_options=options, metadata_errors="replace")  # titles may be in any encoding


def _broken(path: Path, found: str) -> DamagedVideo:
    return DamagedVideo(
        f"{path} does not decode to its end",
        found=found,
        wanted="a whole video",
        todo="replace the file, take the video out of the lists, or build with --damaged keep",
    )


def _broken_after(path: Path, frames: int, why: object) -> DamagedVideo:
    return _broken(path, f"after frame {frames - 1}: {why}" if frames else str(why))


def _packets(
    path: Path, container: av.container.InputContainer, stream: av.video.stream.VideoStream, blocks: Blocks | None
) -> Iterator[av.Packet]:
    """A stream's packets, and the empty one that ends it. A damaged head of a chunk makes FFmpeg pass over an AVI's frame
    without a word: the packets are held to the file's index, or where it is lost too, to the count in its header. Those of
    a Matroska file are held to its blocks. An MP4's tables, which say where each lies, are trusted.

    Raises:
        DamagedVideo: frames that are listed are not there, as soon as the next one comes.
        InputError: some are missing, and nothing says which.
    """
    listed = _numbered(listed_places(path, stream.index))
    # what an AVI's index leaves out may be there; what is in no block of a Matroska file is damage
    lists, unlisted = ("its index lists", 0) if blocks is None else ("its blocks hold", sys.maxsize)
    seen = end = 0
    for packet in container.demux(stream):
        if packet.size:
            if blocks is not None and not listed:
                listed = _numbered(next((places for places in blocks.of_track.values() if packet.pos in places), []))
            if packet.pos is not None and listed.get(packet.pos, unlisted) > seen:
                raise _broken(path, f"frame {seen}, which {lists}, is not where it should be")
            seen, end = seen + 1, seen if packet.dts is None else packet.dts + 1
        elif seen < len(listed):
            raise _broken(path, f"{seen} of the {len(listed)} frames that {lists}")
        elif blocks is not None and blocks.misplaced is not None:
            # the frames that the decoder still holds may come after a lost one
            raise _broken(path, f"{seen} frames up to its damage")
        yield packet
    promised = stream.frames if container.format.name == "avi" and seen > len(listed) else 0
    if end < promised and stored_chunks(path, stream.index) < promised:
        check_whole(path)
        raise InputError(
            f"{path} lacks frames, and an index that says which",
            found=f"{end} frames",
            wanted=f"{stream.frames}, by its own header",
            todo="replace the file, or take the video out of the lists",
        )


def _numbered(places: list[int]) -> dict[int, int]:
    return {place: number for number, place in enumerate(dict.fromkeys(places))}


class _Awaited:
    """The times of packets whose frames are to come. Frames come in the order of their times, so of a packet that is passed
    over none will come, which some decoders do without a word.

    Not awaited are those of before the keyframe that they follow: in a stream that was cut there none can be decoded.
    """

    def __init__(self, container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> None:
        indexed = container.format.name.startswith(("mov", "matroska"))
        self._known = indexed and stream.codec_context.codec.canonical_name in PACKET_A_FRAME
        self._times: set[int] = set()
        self._keyframe = 0

    def sent(self, packet: av.Packet) -> None:
        """A packet was given to the decoder."""
        if not self._known or not packet.size or packet.pts is None or packet.is_discard:
            return
        if packet.is_keyframe:
            self._keyframe = packet.pts
        if packet.pts >= self._keyframe:
            self._times.add(packet.pts)

    def came(self, frame: av.VideoFrame) -> bool:
        """Whether none before this frame was passed over."""
        now = frame.pts
        if now is None or frame.interlaced_frame:  # two packets may be the two fields of a frame
            self._known = False
        if now is None or not self._known:
            return True
        earlier = {time for time in self._times if time < now}
        self._times -= {*earlier, now}
        return not earlier

    def over(self) -> bool:
        """Whether none is awaited at the end."""
        return not self._known or not self._times


def _video_frames(path: Path, blocks: Blocks | None) -> Iterator[Picture]:
    count, packed = 0, False
    reformatter = VideoReformatter()  # one a video: a new one a frame takes longer than the decoding
    try:
        with _open(path) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
            mpeg4 = stream.codec_context.name == "mpeg4"
            awaited = _Awaited(container, stream)
            for packet in _packets(path, container, stream, blocks):
                awaited.sent(packet)
                if mpeg4 and packet.size > 1:  # DivX has packets of 1 byte for a frame shown again
                    coded = bytes(packet).count(_VOP)
                    packed = packed or coded > 1
                    if not coded and container.format.name == "avi":  # FFmpeg may pass over it without a word
                        raise _broken_after(path, count, "a packet without a frame")
                for frame in packet.decode():
                    if not awaited.came(frame):
                        raise _broken_after(path, count, "a packet without a frame")
                    if frame.is_corrupt:
                        raise _broken_after(path, count, "the frame is damaged")
                    if frame.rotation % 90:
                        raise _broken_after(path, count, f"a rotation by {frame.rotation} degrees")
                    image = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
                    upright = np.ascontiguousarray(np.rot90(image, frame.rotation // 90))
                    yield Picture(upright, packed=packed)
                    count += 1
            if count and not awaited.over():
                raise _broken_after(path, count, "packets without a frame, at the end")
    except av.FFmpegError as error:
        raise _broken_after(path, count, error) from error
    if not count:
        raise _broken(path, "no frame came out")
