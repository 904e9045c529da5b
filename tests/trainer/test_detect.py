from __future__ import annotations

import json
import struct
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from data_manifests.errors import InputError, run_command_line
from data_manifests.prior_spec import ACT300
from trainer.checkpoint import CheckpointMeta, save_checkpoint
from trainer.detect import main
from trainer.detection.footage import gaps_of, open_footage, write_video
from trainer.detection.show import name_of
from trainer.model import ActNet


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    model = ActNet(ACT300, 2, 2, 1 / 16)
    path = tmp_path_factory.mktemp("run") / "last.pt"
    meta = CheckpointMeta(1, 2, ("Up", "Down"), 1 / 16, "none", ACT300, "none", {})
    save_checkpoint(path, model, torch.optim.SGD(model.parameters(), 0.1), meta)
    return path


def _frames(count: int, height: int = 63, width: int = 80) -> list[np.ndarray]:
    frames = np.full((count, height, width, 3), 90, np.uint8)
    for i in range(count):
        frames[i, 10:40, 5 + i : 35 + i] = (200, 30, 30)
    return list(frames)


def _detect(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["detect", *map(str, arguments)])
    main()


def test_a_video_file_of_odd_size_gives_tubes_and_an_mp4(checkpoint, tmp_path, monkeypatch, capsys):
    video, out = tmp_path / "clip.mp4", tmp_path / "found"
    assert write_video(video, iter(_frames(21)), Fraction(10)) == 21
    _detect(monkeypatch, "--checkpoint", checkpoint, video, "--out", out, "--least-score", 0, "--device", "cpu")
    found = json.loads((out / "clip.json").read_text())
    assert found["frames"] == 21
    assert found["rate"] == 10
    assert found["tubes"]
    for tube in found["tubes"]:
        assert tube["class"] in ("Up", "Down")
        assert len(tube["boxes"]) == len(tube["scores"]) >= 15
        assert tube["first_frame"] + len(tube["boxes"]) <= 21
    rate, read = open_footage(str(out / "clip.mp4"))
    assert rate == 10
    assert [frame.shape for frame in read()] == [(64, 80, 3)] * 21
    told = capsys.readouterr().out
    assert "frames/s" in told
    assert told.count("  frames ") == min(10, len(found["tubes"]))
    assert (f"  and {len(found['tubes']) - 10} more\n" in told) == (len(found["tubes"]) > 10)
    assert {path.name for path in out.iterdir()} == {"clip.json", "clip.mp4"}


def test_bfloat16_finds_nearly_the_same(checkpoint, tmp_path, monkeypatch):
    video = tmp_path / "clip.mp4"
    write_video(video, iter(_frames(16)), Fraction(10))
    best = []
    for option in ("--amp", "--no-amp"):
        given = (video, "--out", tmp_path / option, "--least-score", 0, "--device", "cpu", option)
        _detect(monkeypatch, "--checkpoint", checkpoint, *given)
        best.append(json.loads((tmp_path / option / "clip.json").read_text())["tubes"][0]["score"])
    assert best[0] == pytest.approx(best[1], abs=0.02)


def test_quiet_prints_nothing_and_a_pipe_gets_no_bar(checkpoint, tmp_path, monkeypatch, capfd):
    video = tmp_path / "clip.mp4"
    write_video(video, iter(_frames(3)), Fraction(10))
    for options, lines in ((["--quiet"], 0), ([], 3)):
        _detect(monkeypatch, "--checkpoint", checkpoint, video, "--out", tmp_path / "out", "--device", "cpu", *options)
        said = capfd.readouterr()
        assert said.out.count("\n") == lines
        assert said.err == ""


def test_a_folder_of_images_in_the_order_of_their_numbers(checkpoint, tmp_path, monkeypatch):
    folder = tmp_path / "images"
    folder.mkdir()
    for i, frame in enumerate(_frames(12, 64)):
        cv2.imwrite(str(folder / f"{i}.png"), frame[..., ::-1])
    _, read = open_footage(str(folder))
    np.testing.assert_array_equal(np.stack(list(read())), np.stack(_frames(12, 64)))
    _detect(monkeypatch, "--checkpoint", checkpoint, folder, "--out", tmp_path, "--frames", 1, "--device", "cpu")
    assert json.loads((tmp_path / "images.json").read_text())["tubes"] == [], "one frame is shorter than a clip"


def test_folders_whose_names_differ_behind_a_dot_keep_them(tmp_path):
    (tmp_path / "scene.1").mkdir()
    assert name_of(str(tmp_path / "scene.1")) == "scene.1"
    assert name_of(str(tmp_path / "scene.mp4")) == "scene"


@pytest.mark.parametrize(
    ("kept", "told"), [(0, "is not a video"), (0.5, "is cut off\n  found: "), (None, "is not a video")]
)
def test_what_is_no_video_ends_with_2(checkpoint, tmp_path, monkeypatch, capsys, kept, told):
    broken, out = tmp_path / "broken.mp4", tmp_path / "found"
    write_video(broken, iter(_frames(20)), Fraction(10))
    content = broken.read_bytes()
    broken.write_bytes(b"this is no video" if kept is None else content[: int(kept * len(content))])
    with pytest.raises(SystemExit) as end:
        run_command_line(
            lambda: _detect(monkeypatch, "--checkpoint", checkpoint, broken, "--out", out, "--device", "cpu")
        )
    assert end.value.code == 2
    assert f"{broken} {told}" in capsys.readouterr().err
    assert not out.exists()
    with pytest.raises(InputError, match="is not there"):
        _detect(monkeypatch, "--checkpoint", checkpoint, tmp_path / "absent.mp4", "--out", out, "--device", "cpu")


def test_a_video_is_not_overwritten_by_its_own_picture(checkpoint, tmp_path, monkeypatch):
    video = tmp_path / "clip.mp4"
    write_video(video, iter(_frames(3)), Fraction(10))
    before = video.read_bytes()
    with pytest.raises(InputError, match="overwritten"):
        _detect(monkeypatch, "--checkpoint", checkpoint, video, "--out", tmp_path, "--device", "cpu")
    assert video.read_bytes() == before


def test_files_that_are_not_of_a_detection_are_not_overwritten(checkpoint, tmp_path, monkeypatch):
    """A video of the same name among the user's own files; what an earlier detection wrote is replaced."""
    video, out = tmp_path / "clip.avi", tmp_path / "out"
    write_video(tmp_path / "clip.mp4", iter(_frames(3)), Fraction(10))
    (tmp_path / "clip.mp4").rename(video)
    mine = out / "clip.mp4"
    out.mkdir()
    mine.write_bytes(b"mine")
    given = ("--checkpoint", checkpoint, video, "--out", out, "--device", "cpu")
    with pytest.raises(InputError, match=r"clip\.mp4 would be overwritten\n  found: no clip.json"):
        _detect(monkeypatch, *given)
    (out / "clip.json").write_text('{"shapes": []}')
    with pytest.raises(InputError, match=r"clip\.json would be overwritten"):
        _detect(monkeypatch, *given)
    assert mine.read_bytes() == b"mine"
    mine.unlink()
    (out / "clip.json").unlink()
    for _ in range(2):
        _detect(monkeypatch, *given)


def test_a_source_that_is_wrong_is_told_before_the_first_is_looked_at(checkpoint, tmp_path, monkeypatch):
    video, out = tmp_path / "clip.mp4", tmp_path / "out"
    write_video(video, iter(_frames(3)), Fraction(10))
    with pytest.raises(InputError, match="absent is not there"):
        _detect(monkeypatch, "--checkpoint", checkpoint, video, tmp_path / "absent", "--out", out, "--device", "cpu")
    assert not out.exists()


def test_a_folder_that_mixes_videos_is_refused_and_gaps_are_told(checkpoint, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "walk"
    folder.mkdir()
    for name in ("take2_005", "take2_010", "take2_015"):
        cv2.imwrite(str(folder / f"{name}.png"), np.zeros((63, 80, 3), np.uint8))
    given = ("--checkpoint", checkpoint, folder, "--out", tmp_path / "out", "--device", "cpu")
    _detect(monkeypatch, *given)
    assert f"warning: the numbers of the images in {folder} have 2 gaps" in capsys.readouterr().err
    cv2.imwrite(str(folder / "take2_016.png"), np.zeros((32, 40, 3), np.uint8))
    with pytest.raises(InputError, match=r"016\.png has another size[^\n]*\n  found: 40 x 32\n  wanted: 80 x 63"):
        _detect(monkeypatch, *given)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["1_360p", "2_360p", "3_360p"], ""),
        (["frame_0009_640x480", "frame_0010_640x480"], ""),
        (["take1_000", "take1_001", "take2_000"], "have 1 gaps"),
        (["0", "cover", "1"], "are not all numbered alike"),
        (["²1", "2"], "have 1 gaps"),
        (["b", "a"], "are not all numbered alike"),
        (["7"], ""),
    ],
)
def test_what_the_names_of_images_tell(names, told, tmp_path):
    for name in names:
        cv2.imwrite(str(tmp_path / "image.png"), np.zeros((8, 8, 3), np.uint8))
        (tmp_path / "image.png").rename(tmp_path / f"{name}.png")
    assert len(list(open_footage(str(tmp_path))[1]())) == len(names)
    found = gaps_of(str(tmp_path))
    assert told in found
    assert bool(found) == bool(told)


def test_of_a_damaged_video_the_frames_before_the_damage_can_be_kept(checkpoint, tmp_path, monkeypatch):
    cut, spoiled = tmp_path / "cut.avi", tmp_path / "spoiled.ts"
    for path, codec in ((cut, "mjpeg"), (spoiled, "libx264")):
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt = 80, 64, "yuvj420p" if path == cut else "yuv420p"
            noise = np.random.default_rng(0)
            for pixels in _frames(30, 64):
                noisy = pixels + noise.integers(0, 40, pixels.shape, dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(noisy, format="rgb24")))
            container.mux(stream.encode(None))
        content = path.read_bytes()
        middle = len(content) // 2 // 188 * 188
        hole = content[:middle] + content[middle + 3 * 188 :]
        path.write_bytes(hole if path == spoiled else content[: len(content) * 4 // 5])
    given = ("--checkpoint", checkpoint, "--out", tmp_path / "out", "--device", "cpu")
    with pytest.raises(InputError, match=r"cut\.avi is cut off[\s\S]*--damaged keep"):
        _detect(monkeypatch, *given, cut)
    with pytest.raises(InputError, match=r"spoiled\.ts is damaged at frame \d+[\s\S]*--damaged keep"):
        _detect(monkeypatch, *given, spoiled)
    _detect(monkeypatch, *given, cut, spoiled, "--damaged", "keep")
    for name in ("cut", "spoiled"):
        assert 5 < json.loads((tmp_path / "out" / f"{name}.json").read_text())["frames"] < 30


def test_a_place_that_cannot_be_written_is_told_before_the_first_frame(checkpoint, tmp_path, monkeypatch):
    video = tmp_path / "clip.mp4"
    write_video(video, iter(_frames(3)), Fraction(10))
    monkeypatch.setattr("trainer.detection.show.find_tubes", lambda *_, **__: pytest.fail("it looked"))
    with pytest.raises(FileExistsError):
        _detect(monkeypatch, "--checkpoint", checkpoint, video, "--out", video, "--device", "cpu")


def test_the_folder_one_stands_in_gives_files_of_its_name(checkpoint, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "walk"
    folder.mkdir()
    for i, frame in enumerate(_frames(3, 64)):
        cv2.imwrite(str(folder / f"{i}.png"), frame[..., ::-1])
    (folder / "._0.png").write_bytes(b"what macOS leaves")
    monkeypatch.chdir(folder)
    _detect(monkeypatch, "--checkpoint", checkpoint, ".", "--out", tmp_path / "out", "--device", "cpu")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"walk.json", "walk.mp4"}
    assert "too short: a tube takes 15 frames" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (("--frames", 0), "x>=1"),
        (("--frames", -3), "x>=1"),
        (("--least-score", -1), "0<=x<=1"),
        (("--least-score", "nan"), "nan is not a finite number"),
    ],
)
def test_numbers_out_of_range(option, told, checkpoint, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        run_command_line(lambda: _detect(monkeypatch, "--checkpoint", checkpoint, tmp_path, *option))
    assert end.value.code == 2
    assert told in capsys.readouterr().err


def test_two_videos_of_one_name_do_not_overwrite_each_other(checkpoint, tmp_path, monkeypatch):
    videos = [tmp_path / folder / "clip.mp4" for folder in "ab"]
    for video in videos:
        video.parent.mkdir()
        write_video(video, iter(_frames(3)), Fraction(10))
    with pytest.raises(InputError, match=r"clip\.json[\s\S]*a/clip\.mp4[\s\S]*b/clip\.mp4"):
        _detect(monkeypatch, "--checkpoint", checkpoint, *videos, "--out", tmp_path / "out", "--device", "cpu")
    assert not (tmp_path / "out").exists()


def test_what_was_found_in_another_video_of_that_name_is_kept(checkpoint, tmp_path, monkeypatch):
    videos, out = [tmp_path / folder / "clip.mp4" for folder in "ab"], tmp_path / "out"
    for video in videos:
        video.parent.mkdir()
        write_video(video, iter(_frames(3)), Fraction(10))
    given = ("--out", out, "--device", "cpu", "--quiet")
    monkeypatch.chdir(videos[0].parent)
    _detect(monkeypatch, "--checkpoint", checkpoint, videos[0].name, *given)
    before = {path: path.read_bytes() for path in out.iterdir()}
    monkeypatch.chdir(videos[1].parent)
    with pytest.raises(InputError, match=r"clip\.json would be overwritten\n  found: what was found in .*a/clip\.mp4"):
        _detect(monkeypatch, "--checkpoint", checkpoint, videos[1].name, *given)
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    _detect(monkeypatch, "--checkpoint", checkpoint, videos[0], *given)  # the same by another path


@pytest.mark.parametrize("name", ["10:30.mp4", "http:clip.mp4", "-clip.mp4"])
def test_a_colon_in_a_name_is_no_protocol(name, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(Path(name), iter(_frames(3)), Fraction(10))
    _detect(monkeypatch, "--checkpoint", checkpoint, "--out", "out", "--device", "cpu", "--quiet", "--", name)
    assert json.loads((Path("out") / name).with_suffix(".json").read_text())["frames"] == 3


def test_weak_tubes_are_shown_if_asked_for(checkpoint, tmp_path, monkeypatch):
    """Of 40 classes none scores 0.05."""
    torch.manual_seed(0)
    model = ActNet(ACT300, 40, 2, 1 / 16)
    with torch.no_grad():
        for head in model.conf:
            head.weight.mul_(0.01)
    meta = CheckpointMeta(1, 2, tuple(map(str, range(40))), 1 / 16, "none", ACT300, "none", {})
    save_checkpoint(tmp_path / "last.pt", model, torch.optim.SGD(model.parameters(), 0.1), meta)
    write_video(tmp_path / "clip.mp4", iter(_frames(16)), Fraction(10))
    given = ("--checkpoint", tmp_path / "last.pt", tmp_path / "clip.mp4", "--out", tmp_path / "out", "--device", "cpu")
    _detect(monkeypatch, *given, "--least-score", "0.02")
    scores = [tube["score"] for tube in json.loads((tmp_path / "out/clip.json").read_text())["tubes"]]
    assert scores
    assert all(0.02 <= score < 0.05 for score in scores)


def test_a_rotated_video_is_read_upright(tmp_path):
    lying, upright = tmp_path / "lying.mp4", tmp_path / "upright.mp4"
    write_video(lying, iter([np.rot90(frame) for frame in _frames(3, 64)]), Fraction(10))
    content = bytearray(lying.read_bytes())
    matrix = content.index(struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30), content.index(b"tkhd"))
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    upright.write_bytes(content)
    read = list(open_footage(str(upright))[1]())
    assert len(read) == 3
    for frame, wanted in zip(read, _frames(3, 64), strict=True):
        assert frame.shape == wanted.shape
        assert np.abs(frame.astype(int) - wanted).mean() < 5
