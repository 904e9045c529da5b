"""A build ends with the same bytes, whatever happens on the way; and it never touches what is another's."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

import pipeline.shards
from data_manifests.card import load_card
from data_manifests.errors import InputError
from data_manifests.layout import MANIFEST, file_crc32c
from data_manifests.manifest import Files, load_manifest
from pipeline import jobs
from pipeline.build import LOCK, build, only_build
from pipeline.decoding import Decoding
from pipeline.jobs import run_jobs
from pipeline.shards import BuiltShard, ShardJob
from pipeline.verify import verify
from tests.pipeline.own_data import tube_rows
from tests.pipeline.small_store import SHARDS, VIDEOS, Here, build_small, plan_small, refusal, tree
from trainer.data.reader import Store

BUILD = [sys.executable, "-m", "tests.pipeline.small_store"]


def test_a_second_build_finds_nothing_to_do(small_root: Path, small_store: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    shutil.copytree(small_store, store)
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    report = build_small(small_root, store)
    assert (report.shards, report.shards_before) == (0, len(SHARDS))
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before


def test_a_build_that_goes_on_with_other_versions_says_so(
    small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build_small(small_root, tmp_path / "s", split="test").other_versions == []
    versions = jobs.library_versions()
    monkeypatch.setattr(jobs, "library_versions", lambda: {**versions, "av": "0"})
    assert build_small(small_root, tmp_path / "s").other_versions == [f"av {versions['av']} / 0"]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_bytes_do_not_depend_on_workers(small_root: Path, small_store: Path, tmp_path: Path, workers: int) -> None:
    if workers == 5:
        with ThreadPoolExecutor(5) as threads:
            build_small(small_root, tmp_path / "s", executor=threads)
    else:
        build_small(small_root, tmp_path / "s", workers=workers)
    assert tree(tmp_path / "s") == tree(small_store)


def test_bytes_do_not_depend_on_the_place_or_the_order(
    small_root: Path, small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small_root, tmp_path / "elsewhere")
    monkeypatch.setattr("pipeline.build.run_jobs", lambda jobs, *how: run_jobs(jobs[::-1], *how))
    build_small(tmp_path / "elsewhere", tmp_path / "s")
    assert tree(tmp_path / "s") == tree(small_store)


def test_interrupted_after_each_shard(small_root: Path, small_store: Path, tmp_path: Path) -> None:
    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    store = tmp_path / "s"
    for done in range(len(SHARDS)):
        with pytest.raises(KeyboardInterrupt):
            build_small(small_root, store, progress=stop)
        assert not (store / LOCK).exists()
        unfinished = load_manifest(store).unfinished
        assert len(unfinished) == len(SHARDS) - done - 1
        message = refusal(Store.open, store)
        assert "is not finished" in message
        assert (f"{len(unfinished)} of {len(SHARDS)} shards" if unfinished else "the tables") in message
        assert all("not built" in finding.what for finding in verify(store))
    report = build_small(small_root, store)
    assert report.shards == 0
    assert tree(store) == tree(small_store)


def test_a_failing_disk_at_any_moment(
    small_root: Path, small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every kind of call that makes a store durable fails once, at places spread over the whole build."""
    calls: list[str] = []
    fail_at = [-1]
    for name in ("fsync", "replace", "rename"):

        def failing(*args: object, real: object = getattr(os, name), **kwargs: object) -> object:
            calls.append("")
            if len(calls) - 1 == fail_at[0]:
                raise OSError(errno.EIO, os.strerror(errno.EIO), "disk")
            return real(*args, **kwargs)  # type: ignore[operator]

        monkeypatch.setattr(os, name, failing)
    build_small(small_root, tmp_path / "count")
    total = len(calls)
    assert tree(tmp_path / "count") == tree(small_store)
    store = tmp_path / "s"
    places = sorted({0, 3, 6, total - 7, total - 4, total - 1, *random.Random(0).sample(range(total), 3)})
    for place in places:
        calls.clear()
        fail_at[0] = place
        with pytest.raises(OSError, match="Input/output error"):
            build_small(small_root, store)
        fail_at[0] = -1
        if place % 3 == 0:  # it may be killed again, while it goes on
            calls.clear()
            fail_at[0] = place // 2
            try:
                build_small(small_root, store)
            except OSError:
                fail_at[0] = -1
        fail_at[0] = -1
        build_small(small_root, store)
        assert tree(store) == tree(small_store), place
        shutil.rmtree(store)


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_a_random_instant(small_root: Path, small_store: Path, tmp_path: Path, seed: int) -> None:
    store = tmp_path / "s"
    with subprocess.Popen([*BUILD, small_root, store, str(seed)]) as process:
        while not store.exists() and process.poll() is None:
            time.sleep(0.002)
        time.sleep(random.Random(seed).uniform(0, 0.4 if seed == 0 else 2.5))
        process.send_signal(signal.SIGKILL)
    build_small(small_root, store)
    assert tree(store) == tree(small_store)


def test_a_killed_worker(small_root: Path, small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "build_shard", _kill_me)
    message = refusal(build_small, small_root, tmp_path / "s", workers=2)
    assert "a worker process died" in message
    monkeypatch.undo()
    build_small(small_root, tmp_path / "s")
    assert tree(tmp_path / "s") == tree(small_store)


def _kill_me(_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_control_c_ends_with_130_and_a_word(small_root: Path, small_store: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    with subprocess.Popen([*BUILD, small_root, store, "2"], stderr=subprocess.PIPE, text=True) as process:
        while not (store / MANIFEST).exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        message = process.stderr.read() if process.stderr else ""
    assert process.returncode == 130
    assert "interrupted" in message
    assert "Traceback" not in message
    build_small(small_root, store)
    assert tree(store) == tree(small_store)


def test_a_full_disk(small_root: Path, small_store: Path, tmp_path: Path) -> None:
    limited = ["bash", "-c", f"ulimit -f 64; exec {' '.join(BUILD)} {small_root} {tmp_path / 's'}"]
    out = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert out.returncode == 2, out.stderr
    assert "File too large" in out.stderr
    assert "Traceback" not in out.stderr
    build_small(small_root, tmp_path / "s")
    assert tree(tmp_path / "s") == tree(small_store)


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_videos_are_named_all_at_once_and_the_rest_is_built(
    small_root: Path, small_store: Path, tmp_path: Path, workers: int
) -> None:
    root, store = tmp_path / "d", tmp_path / "s"
    shutil.copytree(small_root, root)
    videos = {name: root / "videos" / f"{name}.avi" for name in ("Jump/t_0", "Jump/t_1", "Run/v_4")}
    whole = {video: video.read_bytes() for video in videos.values()}
    for video, content in whole.items():
        video.write_bytes(content[: len(content) // 2])
    message = refusal(build_small, root, store, workers=workers)
    assert message.startswith("3 things are wrong\n")
    assert [message.index(name) for name in videos] == sorted(message.index(name) for name in videos)
    assert load_manifest(store).unfinished == ["test-00000", "train-00001"]
    for video, content in whole.items():
        video.write_bytes(content)
    assert build_small(root, store).shards == 2
    assert tree(store) == tree(small_store)


class _OnlyTheFirst(Here):
    """Never comes to the other jobs."""

    def __init__(self) -> None:
        self._begun = False

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        begun, self._begun = self._begun, True
        return Future() if begun else super().submit(fn, *args, **kwargs)


def test_where_hardly_a_video_can_be_read_a_build_ends_early(
    small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, store = tmp_path / "d", tmp_path / "s"
    shutil.copytree(small_root, root)
    (root / "videos" / "Jump" / "t_0.avi").write_bytes(b"")
    monkeypatch.setattr(jobs, "MOST_REFUSED", 1)
    assert "Jump/t_0" in refusal(build_small, root, store, executor=_OnlyTheFirst())
    assert load_manifest(store).unfinished == SHARDS


def test_damaged_videos_are_named_also_if_the_disk_fails_then(
    small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    root, build_shard = tmp_path / "d", jobs.build_shard
    shutil.copytree(small_root, root)
    (root / "videos" / "Jump" / "t_0.avi").write_bytes(b"")

    def fails(job: ShardJob) -> BuiltShard:
        if job.name == "train-00000":
            raise OSError(errno.EIO, "of this test")
        return build_shard(job)

    monkeypatch.setattr(jobs, "build_shard", fails)
    with pytest.raises(OSError, match="of this test"):
        build_small(root, tmp_path / "s")
    assert "Jump/t_0" in capsys.readouterr().err


def test_a_dataset_that_a_worker_does_not_see_is_told_once(small_root: Path, tmp_path: Path, monkeypatch) -> None:
    root, build_shard = tmp_path / "d", jobs.build_shard
    shutil.copytree(small_root, root)

    def elsewhere(job: ShardJob) -> BuiltShard:
        return build_shard(replace(job, root=tmp_path / "not mounted"))

    monkeypatch.setattr(jobs, "build_shard", elsewhere)
    told = refusal(build_small, root, tmp_path / "s")
    assert told.startswith(f"{tmp_path / 'not mounted'} is not there on ")
    assert told.count("not there") == 1


def test_a_damaged_video_may_be_left_out_afterwards(small_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "d"
    shutil.copytree(small_root, root)
    video = root / "videos" / "Run" / "v_4.avi"
    video.write_bytes(video.read_bytes()[:3000])
    refusal(build_small, root, tmp_path / "s")
    video.unlink()
    assert list(build_small(root, tmp_path / "s", missing="skip").skipped) == ["Run/v_4"]
    manifest = load_manifest(tmp_path / "s")
    assert not manifest.unfinished
    assert {v for record in manifest.shards.values() for v in record.videos} == VIDEOS.keys() - {"Run/v_4"}
    build_small(root, tmp_path / "direct", missing="skip")
    assert tree(tmp_path / "s") == tree(tmp_path / "direct")


def test_videos_that_an_interrupted_build_planned_are_left_out_by_name(small_root: Path, tmp_path: Path) -> None:
    root, store = tmp_path / "d", tmp_path / "s"
    shutil.copytree(small_root, root)
    whole = root / "videos" / "Run" / "v_4.avi"
    whole.write_bytes(whole.read_bytes()[:3000])
    refusal(build_small, root, store)
    listed = tmp_path / "list"
    listed.write_text("\n".join(video for video in VIDEOS if video.startswith("Run") and video != "Run/v_4"))
    assert build_small(root, store, train_list=listed).left_out == ["Run/v_4"]
    assert not load_manifest(store).unfinished


def test_missing_videos(small_root: Path, small_store: Path, tmp_path: Path) -> None:
    root = tmp_path / "d"
    shutil.copytree(small_root, root)
    (root / "videos" / "Jump" / "t_1.avi").unlink()
    assert "Jump/t_1 is not below" in refusal(build_small, root, tmp_path / "s")
    assert not (tmp_path / "s").exists()
    report = build_small(root, tmp_path / "s", missing="skip")
    assert list(report.skipped) == ["Jump/t_1"]
    assert list(load_manifest(tmp_path / "s").skipped) == ["Jump/t_1"]
    shutil.copy(small_root / "videos" / "Jump" / "t_1.avi", root / "videos" / "Jump")
    assert build_small(root, tmp_path / "s").shards == 1
    manifest = load_manifest(tmp_path / "s")
    assert manifest.skipped == {}
    assert manifest.shards["test-00001"].videos == ("Jump/t_1",)
    assert Store.open(tmp_path / "s").videos.num_rows == len(VIDEOS)


def test_more_videos_leave_what_is_there_alone(small_root: Path, small_store: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    build_small(small_root, store, split="train")
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in (store / "shards").rglob("*")}
    reading = Store.open(store, "train")
    first = reading.sample(0, 1)
    build_small(small_root, store, split="test")
    after = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in (store / "shards").rglob("*")}
    assert before.items() <= after.items()
    assert tree(store) == tree(small_store)
    assert (reading.sample(0, 1).frames == first.frames).all()


def test_a_reader_at_any_moment_of_a_build_that_adds_videos(
    small_root: Path, small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first record on it is told that the store is not finished, then it opens the whole."""
    store, seen = tmp_path / "s", []
    build_small(small_root, store, split="train")
    for name in ("replace", "rename"):

        def watched(*args: object, real: object = getattr(os, name), **kwargs: object) -> None:
            real(*args, **kwargs)  # type: ignore[operator]
            try:
                seen.append(Store.open(store).content_digest)
            except InputError as error:
                seen.append(error.what)

        monkeypatch.setattr(os, name, watched)
    build_small(small_root, store)
    told = [what for what, _ in groupby(seen)]
    assert told == [f"the store at {store} is not finished", Store.open(small_store).content_digest]
    assert len(seen) > 8


def test_an_interrupted_build_keeps_its_plan(small_root: Path, tmp_path: Path) -> None:
    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_small(small_root, tmp_path / "s", split="train", progress=stop)
    planned = (tmp_path / "s" / MANIFEST).read_bytes()
    message = refusal(build_small, small_root, tmp_path / "s", split="test")
    assert "was planned with videos that this build does not have" in message
    assert (tmp_path / "s" / MANIFEST).read_bytes() == planned
    build_small(small_root, tmp_path / "s", split="train")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"seed": 1}, "seed: 0 / 1"),
        ({"K": 5}, "K: 4 / 5"),
        ({"views": 3}, "views: 2 / 3"),
        ({"stride": 2}, "stride: 1 / 2"),
        ({"positive_overlap": 0.6}, "positive_overlap: 0.5 / 0.6"),
        ({"negative_overlap": 0.4}, "negative_overlap: 0.5 / 0.4"),
        ({"variances": (0.1, 0.1, 0.2, 0.3)}, "variances"),
        ({"frames": "raw"}, "frames: jpeg:95 / raw"),
        ({"max_side": 32}, "max_side: None / 32"),
        ({"mirrored": (1, 0)}, "mirrored"),
    ],
)
def test_other_settings_are_never_mixed(small_root: Path, small_store: Path, changed: dict, told: str) -> None:
    before = tree(small_store)
    message = refusal(build_small, small_root, small_store, **changed)
    assert "was built with other settings" in message
    assert told in message
    assert tree(small_store) == before


def test_changed_annotations_are_refused(small_root: Path, small_store: Path, tmp_path: Path) -> None:
    root, store = tmp_path / "d", tmp_path / "s"
    shutil.copytree(small_root, root)
    shutil.copytree(small_store, store)
    text = (root / "boxes.csv").read_text()
    (root / "boxes.csv").write_text(text.replace("Run/v_3,0,Run,5,5,3,23,30", "Run/v_3,0,Run,5,6,3,23,30"))
    assert (root / "boxes.csv").read_text() != text
    message = refusal(build_small, root, store)
    assert "annotations of videos in the store have changed" in message
    assert "train-0000" in message
    assert tree(store) == tree(small_store)


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("boxes.csv", "Run/v_3,0,Run,5,5,3,23,30", "Run/v_3,0,Run,5,6,3,23,30", "train-0000"),
        ("test.txt", "Jump/t_0", "Jump/t_0\nRun/v_3", "Run/v_3: not annotated, or not in the train split, any more"),
        ("boxes.csv", "Run/v_3,", "Run/w_3,", "Run/v_3: not annotated"),
    ],
)
def test_annotations_of_videos_that_a_build_does_not_touch(
    small_root: Path, small_store: Path, tmp_path: Path, file: str, old: str, new: str, told: str
) -> None:
    """A later build of the other split, whose own videos are as they were: the store must not be a mixture."""
    root, store = tmp_path / "d", tmp_path / "s"
    shutil.copytree(small_root, root)
    build_small(root, store, split="train")
    before = tree(store)
    path = root / file
    path.write_text(path.read_text().replace(old, new))
    message = refusal(build_small, root, store, split="test")
    assert "annotations of videos in the store have changed" in message
    assert told in message
    assert tree(store) == before


def test_annotations_of_unfinished_shards_may_be_mended(small_root: Path, small_store: Path, tmp_path: Path) -> None:
    root, store = tmp_path / "d", tmp_path / "s"
    shutil.copytree(small_root, root)
    good = (root / "boxes.csv").read_text()
    (root / "boxes.csv").write_text(good + tube_rows("Run/v_5", 900, 6, tube=5))
    assert "Run/v_5 ends before its tube" in refusal(build_small, root, store)
    (root / "boxes.csv").write_text(good)
    build_small(root, store)
    assert tree(store) == tree(small_store)


def test_two_builds_at_once(small_root: Path, small_store: Path, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with only_build(tmp_path / "s"):
        message = refusal(build_small, small_root, tmp_path / "s")
    assert f"process {os.getpid()}" in message
    assert "another build is at work" in message
    build_small(small_root, tmp_path / "s")
    assert tree(tmp_path / "s") == tree(small_store)


def test_two_builds_planned_at_once(small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_small(small_root, tmp_path / "s", split="test")
    monkeypatch.setattr("tests.pipeline.small_store.present_manifest", lambda store: None)
    message = refusal(build_small, small_root, tmp_path / "s")
    assert "another build changed the store since this one was planned" in message


@pytest.mark.parametrize("part", [".lock", "tables", "shards"])
def test_a_part_of_a_store_that_is_a_link_is_not_written_through(
    part: str, small_root: Path, small_store: Path, tmp_path: Path
) -> None:
    store, mine = Path(shutil.copytree(small_store, tmp_path / "s")), tmp_path / "mine"
    mine.write_text("mine")
    if (store / part).is_dir():
        shutil.rmtree(store / part)
    (store / part).symlink_to(mine)
    assert f"{store / part} is a link\n  found: {mine}" in refusal(build_small, small_root, store)
    assert mine.read_text() == "mine"


def test_killed_between_the_manifest_of_a_new_plan_and_its_copy(
    small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new plan has fewer shards, as a video is gone since."""
    root, store = Path(shutil.copytree(small_root, tmp_path / "d")), tmp_path / "s"

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_small(root, store, split="test", progress=stop)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.build.run_jobs", stop)
        with pytest.raises(KeyboardInterrupt):
            build_small(root, store, split="train")
    for video in ("v_3", "v_4", "v_5"):
        (root / f"videos/Run/{video}.avi").unlink()
    before = (store / "manifest.copy.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.build.run_jobs", stop)
        with pytest.raises(KeyboardInterrupt):
            build_small(root, store, split="train", missing="skip")
    (store / "manifest.copy.json").write_bytes(before)
    build_small(root, store, split="train", missing="skip")
    assert verify(store, deep=True) == []


def test_a_byte_that_flips_on_its_way_to_the_disk(small_root: Path, tmp_path: Path, monkeypatch) -> None:
    recorded = pipeline.shards.file_records

    def spoiled(folder: Path) -> Files:
        frames = folder / "frames/bytes/c/0"
        content = bytearray(frames.read_bytes())
        content[5000] ^= 1
        frames.write_bytes(content)
        return recorded(folder)

    monkeypatch.setattr("pipeline.shards.file_records", spoiled)
    told = refusal(build_small, small_root, tmp_path / "s")
    assert "frames/bytes/c/0 does not hold what was written to it" in told


def test_a_strict_build_tells_the_videos_that_an_earlier_one_cut(small_root: Path, tmp_path: Path) -> None:
    root, store = Path(shutil.copytree(small_root, tmp_path / "d")), tmp_path / "s"
    video = root / "videos/Run/v_3.avi"
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 4 // 5])
    card, plan = load_card(str(root / "own.toml")), plan_small(root, store, split="train")
    kept = build(plan, card, root, store, workers=1, executor=Here(), decoding=Decoding("keep"))
    assert (kept.cut, kept.rules["kept-before-damage"]) == ([], ["Run/v_3"])
    assert build_small(root, store).cut == ["Run/v_3"]


def test_a_lock_that_a_killed_build_left(small_root: Path, small_store: Path, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / LOCK).write_text("process 1 on elsewhere")
    build_small(small_root, tmp_path / "s")
    assert tree(tmp_path / "s") == tree(small_store)


@pytest.mark.parametrize("what", ["notes.txt", "zarr.json", "priors/c/0/0", "shards/x"])
def test_anothers_place(small_root: Path, tmp_path: Path, what: str) -> None:
    store = tmp_path / "s"
    (store / what).parent.mkdir(parents=True)
    (store / what).write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    before = tree(store)
    assert "holds something else" in refusal(build_small, small_root, store)
    assert tree(store) == before


def test_the_place_is_a_file(small_root: Path, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("")
    assert "is not a folder" in refusal(build_small, small_root, tmp_path / "s")


def test_damaged_tables_are_not_taken_over(small_root: Path, tmp_path: Path) -> None:
    """A build that adds videos reads tables of the shards that are there: it must not give damage a good checksum."""
    store = tmp_path / "s"
    build_small(small_root, store, split="train")
    path = store / "shards" / "train-00000" / "tubes.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "train-00000/tubes.parquet is damaged" in refusal(build_small, small_root, store)
    recorded = load_manifest(store).shards["train-00000"].files
    assert recorded is not None
    assert recorded["tubes.parquet"].crc32c != file_crc32c(path)


@pytest.mark.parametrize("cut", [True, False])
def test_a_store_that_lacks_something_is_not_called_done(
    small_root: Path, small_store: Path, tmp_path: Path, cut: bool
) -> None:
    store = shutil.copytree(small_store, tmp_path / "s")
    frames = store / "shards/train-00000/frames/bytes/c/0"
    os.truncate(frames, 100) if cut else frames.unlink()
    message = refusal(build_small, small_root, store)
    assert f"{frames} {'has another size' if cut else 'is missing'}" in message
    assert "verify STORE --repair" in message


def test_damaged_priors_are_not_taken_over(small_root: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    build_small(small_root, store, split="train")
    path = store / "priors" / "c" / "0" / "0"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    build_small(small_root, store, split="test")
    assert "priors/c/0/0 is damaged" in refusal(Store.open, store)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(small_root: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(PermissionError):
        build_small(small_root, tmp_path / "locked" / "s")


def test_ten_more_videos_get_shards_of_their_own(small_root: Path, small_store: Path, tmp_path: Path) -> None:
    root, store = tmp_path / "d", tmp_path / "s"
    shutil.copytree(small_root, root)
    shutil.copytree(small_store, store)
    with open(root / "boxes.csv", "a") as rows:
        for number in range(2):
            shutil.copy(root / "videos" / "Run" / "v_0.avi", root / "videos" / "Run" / f"w_{number}.avi")
            rows.write(tube_rows(f"Run/w_{number}", 1, 12))
    report = build_small(root, store)
    assert (report.shards, report.shards_before) == (1, len(SHARDS))
    manifest = load_manifest(store)
    assert manifest.shards["train-00002"].videos == ("Run/w_0", "Run/w_1")
    old, new = tree(small_store), tree(store)
    assert {name: old[name] for name in old if name.startswith(("shards/", "priors/"))}.items() <= new.items()
