"""Every frame of a video, in order, or a refusal: real files, and files that the tests break."""

import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path

import av
import numpy as np
import pytest

from data_manifests.containers import listed_places, matroska_blocks
from data_manifests.errors import InputError
from pipeline.damage import DamagedVideo
from pipeline.frames import open_frames
from tests.pipeline.own_data import moving_square, write_video

AWKWARD = {  # frames, height and width after rotation
    "av1_video.mkv": (125, 360, 640), "bikes.mp4": (250, 272, 640), "carphone_pristine.mp4": (120, 144, 176),
    "discard_first_keyframe.mp4": (25, 64, 64), "flipping_a_pancake.mkv": (310, 240, 426),
    "h264_10bits.mp4": (30, 200, 200), "h265_video.mp4": (10, 128, 128), "nasa_13013_rotated.mp4": (17, 480, 270),
    "test_non_zero_start.mp4": (12, 112, 200), "testsrc2_odd_height_and_width_mpeg2.mp4": (10, 81, 121),
    "testsrc2_vp9.webm": (30, 720, 1280), "unordered.mov": (4, 50, 50), "video_180.mov": (3, 320, 568),
    "video_90.mov": (3, 568, 320),
}  # fmt: skip
PACKED = ["g10_c06", "g22_c01", "g22_c02", "g22_c03", "g22_c04", "g23_c02", "g23_c03"]


def plain_frames(path: Path) -> Iterator[np.ndarray]:
    """PyAV's own conversion, a new one for each frame, and the rotation that the file asks for."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_files_give_what_pyav_gives(name: str, real: Path) -> None:
    count = 0
    for ours, theirs in zip_longest(open_frames(real / "decode" / name), plain_frames(real / "decode" / name)):
        np.testing.assert_array_equal(ours, theirs)
        assert (ours.dtype, ours.flags.c_contiguous) == (np.uint8, True)
        count += 1
    assert (count, *ours.shape[:2]) == AWKWARD[name]


@pytest.mark.parametrize("name", ["nasa_13013_rotated.mp4", "video_90.mov", "video_180.mov"])
def test_rotation_is_that_of_another_decoder(name: str, real: Path) -> None:
    decord = pytest.importorskip("decord")
    other = decord.VideoReader(str(real / "decode" / name)).next().asnumpy()
    ours = next(iter(open_frames(real / "decode" / name)))
    assert ours.shape == other.shape
    assert np.abs(ours.astype(int) - other).mean() < 1


def test_all_frames_of_the_real_avi_files(real: Path) -> None:
    """Counts of all 65 against the packets; pixels of every sixth. Seven, and none else, are told to have packed B-frames."""
    videos = sorted((real / "ucf101/videos").rglob("*.avi"))
    assert len(videos) == 65
    packed = []
    for index, path in enumerate(videos):
        with av.open(str(path)) as container:
            wanted = sum(packet.size > 0 for packet in container.demux(video=0))
        theirs = plain_frames(path) if index % 6 == 0 else None
        count = 0
        for picture in open_frames(path).pictures():
            count += 1
            assert theirs is None or np.array_equal(picture.pixels, next(theirs)), path
        assert count == wanted, path
        packed += [path.stem] * picture.packed
    assert packed == [f"v_Surfing_{name}" for name in PACKED]


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".avi", "mpeg4"), (".mp4", "libx264"), (".mkv", "libx264"), (".webm", "libvpx-vp9")]
)
def test_written_frames_come_back_in_order(suffix: str, codec: str, tmp_path: Path) -> None:
    written = moving_square(30)
    write_video(tmp_path / f"v{suffix}", written, codec)
    source = open_frames(tmp_path / f"v{suffix}")
    frames = list(source)
    assert source.decoder == "pyav"
    assert len(frames) == 30
    for index, frame in enumerate(frames):
        distance = [np.abs(frame.astype(int) - other).mean() for other in written]
        assert int(np.argmin(distance)) == index


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".avi", "mpeg4"), (".mp4", "libx264"), (".mkv", "libx264"), (".webm", "libvpx-vp9")]
)
def test_a_file_that_was_cut_off_is_refused_wherever_the_cut(suffix: str, codec: str, tmp_path: Path) -> None:
    """At the edge of a packet too, where a decoder sees nothing but a shorter video."""
    path, cut = tmp_path / f"v{suffix}", tmp_path / f"cut{suffix}"
    write_video(path, moving_square(30), codec)
    content = path.read_bytes()
    with av.open(str(path)) as container:
        edges = [packet.pos for packet in container.demux(video=0) if packet.pos]
    for length in (*edges[2::5], len(content) // 2, len(content) - 9, len(content) - 1):
        cut.write_bytes(content[:length])
        with pytest.raises(InputError, match=rf"cut\{suffix} (is cut off|does not open)"):
            open_frames(cut)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mkv", "libx264"), (".webm", "libvpx-vp9"), (".mp4", "libx264"), (".mp4", "libx265"), (".mp4", "libsvtav1")],
)
def test_a_lost_packet_is_missed_in_any_container(suffix: str, codec: str, tmp_path: Path) -> None:
    """Decoders and demuxers take the rest for a shorter video."""
    path, damaged = tmp_path / f"v{suffix}", tmp_path / f"damaged{suffix}"
    write_video(path, [frame.repeat(3, 0).repeat(3, 1) for frame in moving_square(20)], codec)
    whole, content = list(open_frames(path)), path.read_bytes()
    assert len(whole) == 20
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for place, size in packets[1::3] + packets[-1:]:
        damaged.write_bytes(content[:place] + bytes(size) + content[place + size :])
        with pytest.raises(DamagedVideo, match=rf"damaged\{suffix} (is damaged|does not decode to its end)"):
            list(open_frames(damaged))
        came: list[np.ndarray] = []
        with suppress(DamagedVideo):  # where a Matroska file's end was known to be lost, nobody is told again
            came.extend(open_frames(damaged, whole=False))
        assert len(came) < 20
        assert all(map(np.array_equal, came, whole)), "what came before is what was there"


@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9", "mpeg4"])
def test_a_block_that_a_flipped_bit_of_its_head_hides_is_missed(codec: str, tmp_path: Path) -> None:
    path, damaged = tmp_path / "v.mkv", tmp_path / "damaged.mkv"
    write_video(path, moving_square(20), codec)
    whole, content = list(open_frames(path)), path.read_bytes()
    blocks = matroska_blocks(path)
    assert blocks is not None
    heads = [content.rindex(b"\xa3", 0, place) for place in blocks.of_track[1]]
    clusters = [content.index(bytes.fromhex("1f43b675"))]
    for place in clusters + heads[1::6] + heads[-1:]:
        for bit in range(32 if place in clusters else 8):
            flipped = bytearray(content)
            flipped[place + bit // 8] ^= 1 << bit % 8
            damaged.write_bytes(flipped)
            with pytest.raises(InputError):
                list(open_frames(damaged))
            came: list[np.ndarray] = []
            with suppress(InputError):
                came.extend(open_frames(damaged, whole=False))
            assert len(came) < 20
            assert all(map(np.array_equal, came, whole)), "what came before is what was there"


def test_files_that_may_lose_frames_unseen_are_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "v.ts", moving_square(5), "libx264")
    with pytest.raises(InputError, match=r"v\.ts is of a kind [\s\S]*MPEG-TS[\s\S]*ffmpeg -i v\.ts -c copy v\.mkv"):
        open_frames(tmp_path / "v.ts")


def test_damage_in_the_middle_is_refused_with_the_frame(real: Path, tmp_path: Path) -> None:
    """Bytes of a real file are overwritten; decord gives wrong frames for these, without a word."""
    content = bytearray((real / "ucf101/videos/Biking/v_Biking_g19_c01.avi").read_bytes())
    draw = np.random.default_rng(0)
    for trial in range(8):
        damaged = content.copy()
        if trial % 2:
            for place in draw.integers(4096, len(content), 20):
                damaged[place] ^= 1 << int(draw.integers(8))
        else:
            place = int(draw.integers(20_000, len(content) - 20_000))
            damaged[place : place + 4096] = bytes(4096)
        (tmp_path / "damaged.avi").write_bytes(damaged)
        with pytest.raises(
            InputError, match=r"damaged\.avi does not decode to its end\s+found: (after frame \d+: |)\S+"
        ):
            list(open_frames(tmp_path / "damaged.avi"))


def chunks(path: Path) -> list[int]:
    """Where an AVI's frames begin, heads included."""
    with av.open(str(path)) as container:
        return [packet.pos - 8 for packet in container.demux(video=0) if packet.size and packet.pos]


@pytest.mark.parametrize("bit", [6, 23, 37, 60], ids=["stream", "type", "size", "huge size"])
@pytest.mark.parametrize("lost", [0, 1, 13, 28, 29])
def test_a_chunk_that_a_flipped_bit_of_its_head_hides_is_missed(bit: int, lost: int, tmp_path: Path) -> None:
    """Decoders take the others for a shorter video. What came before is what was there."""
    path = tmp_path / "v.avi"
    write_video(path, moving_square(30))
    whole, content = list(open_frames(path)), bytearray(path.read_bytes())
    content[chunks(path)[lost] + bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    came: list[np.ndarray] = []
    with pytest.raises(DamagedVideo, match=r"v\.avi does not decode to its end\s+found: .*"):
        came.extend(open_frames(path))
    assert len(came) <= lost + 1
    assert all(map(np.array_equal, came, whole))


def test_a_packet_without_a_frame_is_damage(real: Path, tmp_path: Path) -> None:
    """FFmpeg passes over it in a file with packed B-frames."""
    source = real / "ucf101/videos/Surfing/v_Surfing_g22_c02.avi"
    content, begins = bytearray(source.read_bytes()), chunks(source)
    assert sum(1 for _ in open_frames(source)) == len(begins)
    for lost in (30, 31, 32):
        damaged = content.copy()
        damaged[begins[lost] + 8 : begins[lost + 1]] = bytes(begins[lost + 1] - begins[lost] - 8)
        (tmp_path / "v.avi").write_bytes(damaged)
        with pytest.raises(DamagedVideo, match=r"v\.avi does not decode"):
            list(open_frames(tmp_path / "v.avi"))


def test_without_an_index_the_header_s_count_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    write_video(path, moving_square(30))
    content = bytearray(path.read_bytes())
    at = content.rindex(b"idx1")
    content[at : at + 4] = b"JUNK"
    path.write_bytes(content)
    assert sum(1 for _ in open_frames(path)) == 30
    content[chunks(path)[13]] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"v\.avi lacks frames[\s\S]*29 frames[\s\S]*30, by its own header") as refused:
        list(open_frames(path))
    assert not isinstance(refused.value, DamagedVideo), (
        "what comes after the place, which nobody knows, is not to be kept"
    )


def test_without_an_index_frames_shown_again_at_the_end_are_no_loss(tmp_path: Path) -> None:
    """Chunks of no bytes, which the header counts, and no decoder returns."""
    path = tmp_path / "v.avi"
    write_video(path, moving_square(30))
    content = bytearray(path.read_bytes())
    at, frames, header = content.rindex(b"idx1"), content.index(b"movi") - 8, content.index(b"strh") + 8
    content = content[:at] + b"00dc\0\0\0\0" * 3
    for place, value in ((frames + 4, at - frames - 8 + 24), (header + 32, 33), (4, len(content) - 8)):
        content[place : place + 4] = value.to_bytes(4, "little")
    path.write_bytes(content)
    assert sum(1 for _ in open_frames(path)) == 30
    content[header + 32 : header + 36] = (34).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"lacks frames[\s\S]*34, by its own header"):
        list(open_frames(path))


def test_an_index_as_large_as_it_likes_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    write_video(path, moving_square(30))
    content = bytearray(path.read_bytes())
    at = content.rindex(b"idx1") + 4
    content[at : at + 4] = (0xFFFFFFF0).to_bytes(4, "little")
    path.write_bytes(content)
    tracemalloc.start()
    places = listed_places(path, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(places) == 30
    assert peak < 10_000_000


def test_an_index_that_names_a_chunk_twice_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    write_video(path, moving_square(30))
    content = bytearray(path.read_bytes())
    at = content.rindex(b"idx1")
    size = int.from_bytes(content[at + 4 : at + 8], "little") + 16
    content = content[: at + 4] + size.to_bytes(4, "little") + content[at + 8 : at + 24] + content[at + 8 :]
    content[4:8] = (len(content) - 8).to_bytes(4, "little")
    path.write_bytes(content)
    assert sum(1 for _ in open_frames(path)) == 30


def test_a_colon_in_a_name_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(Path("at.avi"), moving_square(3))
    Path("at.avi").rename("10:30.avi")
    assert sum(1 for _ in open_frames(Path("10:30.avi"))) == 3


def test_whole_files_that_hold_fewer_frames_than_their_headers_count(tmp_path: Path) -> None:
    """FFmpeg itself writes a chunk of no bytes for each frame that is shown again, and a trimmed MP4 keeps its old tables."""
    pictures = moving_square(30)
    gap, trimmed = tmp_path / "gap.avi", tmp_path / "trimmed.mp4"
    for path, codec, skipped in ((gap, "mpeg4", 5), (trimmed, "libx264", 0)):
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 5
            for index, picture in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = index + (skipped if index > 9 else 0)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    content = bytearray(trimmed.read_bytes())
    length = content.index(b"elst") + 12
    content[length : length + 4] = (400).to_bytes(4, "big")  # of 1200 ms
    trimmed.write_bytes(content)
    for path, promised, there in ((gap, 35, 30), (trimmed, 30, 10)):
        with av.open(str(path)) as container:
            assert container.streams.video[0].frames == promised
        assert sum(1 for _ in open_frames(path)) == there


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.avi", b"hello\n" * 100), ("empty.avi", b""), ("text.txt", b"hello\n" * 100),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:10,\nother.mp4\n#EXT-X-ENDLIST\n"),
        ("list.avi", b"ffconcat version 1.0\nfile 'other.mp4'\n"),
    ],
)  # fmt: skip
def test_what_is_no_video_is_refused_and_names_no_other_file(name: str, content: bytes, tmp_path: Path) -> None:
    write_video(tmp_path / "other.mp4", moving_square(5), "libx264")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} does not open as a video"):
        open_frames(tmp_path / name)


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".avi", "mpeg4"), (".mp4", "libx264"), (".mkv", "libx264"), (".webm", "libvpx-vp9")]
)
def test_a_flipped_bit_gives_frames_or_a_refusal(suffix: str, codec: str, tmp_path: Path) -> None:
    path = tmp_path / f"v{suffix}"
    write_video(path, moving_square(3), codec)
    content, draw = path.read_bytes(), np.random.default_rng(0)
    for trial in range(100):
        flipped = bytearray(content)
        flipped[draw.integers(min(len(content), 1000) if trial % 4 else len(content))] ^= 1 << int(draw.integers(8))
        path.write_bytes(flipped)
        try:
            list(open_frames(path))
        except InputError:
            continue


def test_a_codec_that_nobody_knows(tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    write_video(path, moving_square(3))
    assert path.read_bytes().count(b"FMP4") == 2
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"?MP4"))
    with pytest.raises(InputError, match=r"v\.avi: FFmpeg knows no codec"):
        open_frames(path)


def test_titles_of_another_encoding_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Gr_n"
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(moving_square(1)[0], format="rgb24")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"Gr_n", "Grün".encode("latin1")))
    assert sum(1 for _ in open_frames(path)) == 1


def test_sound_without_pictures_and_no_file_at_all(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match=r"sound\.mkv has no video stream"):
        open_frames(tmp_path / "sound.mkv")
    with pytest.raises(InputError, match=r"none\.avi is not there"):
        open_frames(tmp_path / "none.avi")


def test_frames_are_decoded_as_they_are_asked_for(tmp_path: Path) -> None:
    """The first frames come out although the file is damaged later, and frames are not one another's memory."""
    write_video(tmp_path / "v.avi", moving_square(20))
    frames = iter(open_frames(tmp_path / "v.avi"))
    first, kept = next(frames), None
    kept = first.copy()
    next(frames)
    np.testing.assert_array_equal(first, kept)
