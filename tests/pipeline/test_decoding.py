"""Awkward videos: one that is damaged is kept up to there when asked for, one whose decoder hangs or dies is named."""

import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import zarr

from data_manifests.card import load_card
from data_manifests.errors import InputError
from data_manifests.layout import ROOT
from data_manifests.shard_videos import read_attributes
from pipeline import decoding
from pipeline.build import build
from pipeline.decoding import Decoding, Request, stored_frames
from pipeline.frames import open_frames
from pipeline.inspect import describe_store
from pipeline.reconcile import Tube
from pipeline.shards import ShardJob, VideoJob, build_shard
from pipeline.verify import repair, verify
from tests.pipeline.own_data import moving_square, plain_settings, tube_rows, write_own, write_video
from tests.pipeline.small_store import Here, plan_small, refusal, tree
from trainer.data.reader import Store

KEEP = Decoding(damaged="keep")
FRAMES = 24


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One whole video, one whose middle is overwritten; a tube that comes after the damage, and one that it cuts."""
    root = tmp_path / "d"
    rows = [tube_rows("Run/bad", 22, 3, tube=1)] + [tube_rows(f"Run/{name}", 3, 20) for name in ("good", "bad")]
    write_own(root, "".join(rows))
    for name in ("good", "bad"):
        write_video(root / "videos/Run" / f"{name}.avi", moving_square(FRAMES))
    path = root / "videos/Run/bad.avi"
    content = bytearray(path.read_bytes())
    middle = len(content) * 2 // 3
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)
    return root


def build_here(root: Path, store: Path, how: Decoding) -> None:
    card = load_card(str(root / "own.toml"))
    build(plan_small(root, store), card, root, store, workers=0, executor=Here(), decoding=how)


def test_a_damaged_video_is_refused_by_default(root: Path, tmp_path: Path) -> None:
    message = refusal(build_here, root, tmp_path / "s", Decoding())
    assert "bad.avi does not decode to its end" in message
    assert "--damaged keep" in message


def test_a_damaged_video_is_kept_up_to_the_damage(root: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    build_here(root, store, KEEP)
    opened = Store.open(store)
    frames = {row["video_id"]: row["frames"] for row in opened.videos.to_pylist()}
    kept = frames["Run/bad"]
    assert frames["Run/good"] == FRAMES
    assert 2 < kept < FRAMES
    (tube,) = (row for row in opened.tubes.to_pylist() if row["video_id"] == "Run/bad")
    assert (tube["tube"], tube["first_frame"], len(tube["boxes"])) == (1, 2, kept - 2)
    samples = [opened.sample(clip, 0) for clip in range(opened.clips)]
    of_bad = [sample.targets.tube.tolist() for sample in samples if sample.video_id == "Run/bad"]
    assert {index for tubes in of_bad for index in tubes} == {1}, "targets name the tubes of the table"
    assert np.array_equal(opened.frames("Run/bad", 0, kept), opened.frames("Run/good", 0, kept))
    notes = {n["video_id"]: n["rules"] for n in zarr.open_group(store / "shards/train-00000", mode="r").attrs["videos"]}  # type: ignore[index, union-attr, call-overload]
    assert notes == {"Run/bad": ["kept-before-damage"], "Run/good": []}
    assert describe_store(store)["rules"] == {"kept-before-damage": ["Run/bad"]}


def test_a_file_that_was_cut_off_is_kept_up_to_the_cut(root: Path, tmp_path: Path) -> None:
    path = root / "videos/Run/bad.avi"
    shutil.copy(root / "videos/Run/good.avi", path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert "is cut off" in refusal(build_here, root, tmp_path / "s", Decoding())
    build_here(root, tmp_path / "s", KEEP)
    assert describe_store(tmp_path / "s")["rules"] == {"kept-before-damage": ["Run/bad"]}


def test_a_video_that_lost_a_frame_is_refused_or_kept_up_to_there(root: Path, tmp_path: Path) -> None:
    """One bit of a chunk's head: without it the rest looks like a shorter video, and each box would lie one frame off."""
    path = root / "videos/Run/bad.avi"
    content = bytearray((root / "videos/Run/good.avi").read_bytes())
    with av.open(str(root / "videos/Run/good.avi")) as container:
        heads = [packet.pos - 8 for packet in container.demux(video=0) if packet.pos]
    content[heads[12]] ^= 0x40
    path.write_bytes(content)
    assert "found: frame 12, which its index lists, is not where" in refusal(
        build_here, root, tmp_path / "s", Decoding()
    )
    build_here(root, tmp_path / "s", KEEP)
    opened = Store.open(tmp_path / "s")
    assert {row["video_id"]: row["frames"] for row in opened.videos.to_pylist()} == {"Run/bad": 12, "Run/good": FRAMES}
    assert np.array_equal(opened.frames("Run/bad", 0, 12), opened.frames("Run/good", 0, 12))
    assert describe_store(tmp_path / "s")["rules"] == {"kept-before-damage": ["Run/bad"]}


@pytest.mark.parametrize("limit", [None, 60.0])
def test_packed_b_frames_are_seen_in_the_file(limit: float | None, real: Path, tmp_path: Path) -> None:
    """Two real files whose annotations would count one frame more: to one of them it is no explanation."""
    settings = plain_settings(write_own(tmp_path / "d", ""))
    boxes = np.tile(np.float32([[10, 10, 90, 90]]), (60, 1))
    for name, frames in (("Surfing/v_Surfing_g22_c02", 76), ("BasketballDunk/v_BasketballDunk_g08_c03", None)):
        path = real / "ucf101/videos" / f"{name}.avi"
        frames = frames or sum(1 for _ in open_frames(path)) + 1
        video = VideoJob(name, path.name, frames, (320, 240), (Tube(0, 0, 5, boxes),))
        job = ShardJob("train-00000", "train", path.parent, tmp_path, settings, (video,), Decoding(limit=limit))
        if frames == 76:
            (video_note,) = read_attributes(build_shard(job).folder / ROOT)["videos"]
            assert (video_note["video_id"], video_note["rules"]) == (name, ["packed-b-frames"])
        else:
            assert "has another number of frames than its annotations" in refusal(build_shard, job)


def test_a_kept_video_is_repaired_to_the_same_bytes(root: Path, tmp_path: Path) -> None:
    store, card = tmp_path / "s", load_card(str(root / "own.toml"))
    build_here(root, store, KEEP)
    before = tree(store)
    (store / "shards/train-00000/frames/bytes/c/0").unlink()
    findings = verify(store)
    assert "does not decode" in refusal(repair, store, (card, root), findings, workers=0, executor=Here())
    repair(store, (card, root), findings, workers=0, executor=Here(), decoding=KEEP)
    assert tree(store) == before


def test_nothing_before_the_damage_is_refused(tmp_path: Path) -> None:
    write_own(tmp_path / "d", tube_rows("Run/a", 1, 6))
    (tmp_path / "d/frames/Run/a").mkdir(parents=True)
    (tmp_path / "d/frames/Run/a/0.jpg").write_bytes(b"no image")
    assert "0.jpg does not decode as an image" in refusal(build_here, tmp_path / "d", tmp_path / "s", KEEP)


def request(path: Path, **changed: Any) -> Request:
    """For a video's frames, as JPEG."""
    return Request("Run/a", path, "jpeg:95", None, False)._replace(**changed)


def test_a_process_of_its_own_gives_the_same_frames(root: Path) -> None:
    good = root / "videos/Run/good.avi"
    for asked in (request(good), request(good, codec="raw", max_side=32)):
        assert list(stored_frames(asked, 60.0)) == list(stored_frames(asked, None))
    both: list[str] = []
    for limit in (60.0, None):
        with pytest.raises(InputError) as caught:
            list(stored_frames(request(root / "videos/Run/bad.avi"), limit))
        both.append(f"{type(caught.value)} {caught.value}")
    assert both[0] == both[1]
    assert "DamagedVideo" in both[0]


def hanging(folder: Path) -> Path:
    """A folder of images whose third is a pipe that nobody writes to: to open it takes for ever."""
    folder.mkdir(parents=True)
    for number, picture in enumerate(moving_square(2)):
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    os.mkfifo(folder / "2.png")
    return folder


def test_a_decoder_that_hangs_is_stopped_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_own(tmp_path / "d", tube_rows("Run/a", 1, 6))
    hanging(tmp_path / "d/frames/Run/a")
    started = started_processes(monkeypatch)
    begin = time.monotonic()
    message = refusal(build_here, tmp_path / "d", tmp_path / "s", Decoding(limit=2.5))
    assert time.monotonic() - begin < 20
    assert "decoding video Run/a takes longer than 2.5 s, and was stopped" in message
    assert "0 frames or a few more of" in message
    assert [process.returncode for process in started] == [-signal.SIGKILL]
    assert not list((tmp_path / "s").glob(".building/*"))


def test_a_decoder_that_dies_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = hanging(tmp_path / "frames")
    started = started_processes(monkeypatch)
    frames = stored_frames(request(folder), 60.0)
    threading.Timer(0.5, lambda: started[0].kill()).start()
    assert "the decoder of video Run/a died" in refusal(next, frames)


def started_processes(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen]:
    """The processes that are started from now on; one that waits is left aside."""
    started: list[subprocess.Popen] = []

    class Noted(subprocess.Popen):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(decoding.subprocess, "Popen", Noted)
    monkeypatch.setattr(decoding, "_here", threading.local())
    return started
