"""Pictures of clips and whole videos: what is drawn where."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.__main__ import cli
from pipeline.drawing import GREY, MARGIN, ClipPicture, animate_clip, colour_of, draw_clip
from pipeline.stored import find_video
from tests.pipeline.small_store import K, build_small, refusal

RUN, T0 = "Run/v_1", "Jump/t_0"


def _inspect(store: Path, *arguments: object) -> None:
    cli.main(["inspect", str(store), *map(str, arguments)], standalone_mode=False)


@pytest.fixture
def picture() -> ClipPicture:
    """Two frames of 100 pixels; one matched prior of tube 3, one ignored one, and the box that the first decodes to."""
    priors = np.array([[0.1, 0.1, 0.5, 0.5], [0.4, 0.4, 0.9, 0.9]], np.float32)
    boxes = np.array([[[0.2, 0.2, 0.6, 0.6], [0.3, 0.2, 0.7, 0.6]], np.zeros((2, 4))], np.float32)
    frames = [Image.new("RGB", (100, 100)) for _ in range(2)]
    return ClipPicture("title", frames, ["Run", "ignored"], np.array([3, 255]), priors, boxes)


def test_a_clip_shows_decoded_tubes_matched_and_ignored_priors(picture: ClipPicture, tmp_path: Path) -> None:
    draw_clip(picture, tmp_path / "new" / "clip.png")
    sheet = Image.open(tmp_path / "new" / "clip.png")
    assert sheet.size == (200, 200 + MARGIN)
    tube = colour_of(3)
    assert sheet.getpixel((20, MARGIN + 40)) == sheet.getpixel((130, MARGIN + 40)) == tube
    assert sheet.getpixel((30, MARGIN + 40)) != tube, "the second frame's box is not the first's"
    for left in (0, 100):
        assert sheet.getpixel((left + 10, MARGIN + 100 + 30)) == tube
        assert sheet.getpixel((left + 90, MARGIN + 100 + 60)) == GREY
        assert sheet.getpixel((left + 90, MARGIN + 60)) == (0, 0, 0), "ignored priors have no tube"
    animate_clip(picture, tmp_path / "clip.gif")
    with Image.open(tmp_path / "clip.gif") as moving:
        assert (moving.size, moving.n_frames) == ((100, 200 + MARGIN), 2)


def test_a_whole_video_is_drawn_with_its_tubes(small_store: Path, tmp_path: Path, capsys) -> None:
    sheet, moving = tmp_path / "video.png", tmp_path / "video.gif"
    _inspect(small_store, "--video", RUN, "--png", sheet, "--gif", moving)
    assert "21 of 21 frames" in capsys.readouterr().out
    _, video = find_video(small_store, RUN)
    assert len(video.tubes) == 2
    with Image.open(sheet) as picture:
        width, height = 240, 180
        assert picture.size == (4 * width, MARGIN + 6 * height + 18 * 2)
        x1, y1, _, y2 = video.tubes[0].boxes[4] * 240 / 64
        at = 5  # annotated from frame 1 on
        pixel = picture.getpixel((int(at % 4 * width + x1), int(MARGIN + at // 4 * height + (y1 + y2) / 2)))
        assert pixel == colour_of(0)
        assert picture.getpixel((int(x1), int(MARGIN + (y1 + y2) / 2))) != colour_of(0), "no tube covers frame 0"
        assert picture.getpixel((900, MARGIN + 6 * height + 15)) == colour_of(0)
    with Image.open(moving) as film:
        assert (film.size, film.n_frames) == ((64, 48), 21)


def test_ignored_priors_of_a_store_are_drawn(small_root: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    build_small(small_root, store, negative_overlap=0.3)
    picture = tmp_path / "clip.png"
    _inspect(store, "--clip", f"{T0}:3", "--png", picture, "--gif", tmp_path / "clip.gif")
    with Image.open(picture) as sheet:
        assert sheet.size == (K * 300, 600 + MARGIN)
        lower = np.asarray(sheet.convert("RGB"))[MARGIN + 300 :]
    assert (lower == GREY).all(-1).any()
    assert (lower == colour_of(0)).all(-1).any()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--video", RUN), "--png FILE or --gif FILE"),
        (("--video", "Run/none", "--png", "x.png"), "no video 'Run/none'"),
        (("--video", RUN, "--clip", f"{RUN}:3", "--png", "x.png"), "one of them"),
        (("--clip", RUN, "--png", "x.png"), "VIDEO_ID:FIRST_FRAME"),
        (("--clip", f"{RUN}:3", "--view", 3, "--png", "x.png"), "0 to 2"),
    ],
)
def test_what_cannot_be_drawn_is_refused(small_store: Path, arguments: tuple, told: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert told in refusal(_inspect, small_store, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_frame_is_named(small_store: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(small_store, store)
    data = store / "shards" / "test-00000" / "frames" / "bytes" / "c" / "0"
    content = bytearray(data.read_bytes())
    content[10] ^= 1
    data.write_bytes(content)
    told = refusal(_inspect, store, "--video", T0, "--png", tmp_path / "x.png")
    assert "shard test-00000: frame row 0 is damaged" in told
    assert "verify STORE --repair" in told
