"""A build on a real Dask cluster of processes, one of which is killed at work, has the bytes of a local one."""

import errno
import importlib.metadata
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from data_manifests.errors import InputError
from data_manifests.manifest import load_manifest
from pipeline import jobs
from pipeline.__main__ import cli
from pipeline.cluster import dask_cluster
from pipeline.shards import BuiltShard, ShardJob, build_shard
from tests.pipeline.small_store import FRAMES_PER_SHARD, SHARDS, VIDEOS, VIEWS, K, build_small, tree


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    workers = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**workers, silence_logs=50, host="127.0.0.1") as started:
        yield started


def _killed_at_work_once(job: ShardJob) -> BuiltShard:
    (job.store / ".building").mkdir(exist_ok=True)
    killed = job.store / ".building" / "killed"
    try:
        killed.touch(exist_ok=False)
    except FileExistsError:
        return build_shard(job)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.shards.write_groups", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        return build_shard(job)


def _kills_every_worker(_: ShardJob) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_killed_at_work(
    cluster: Any, small_root: Path, small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    before = set(cluster.scheduler.workers)
    monkeypatch.setattr(jobs, "build_shard", _killed_at_work_once)
    with dask_cluster(cluster.scheduler_address) as executor:
        build_small(small_root, tmp_path / "s", executor=executor, progress=lambda *frames: seen.append(frames))
    assert set(cluster.scheduler.workers) != before, "none was killed"
    assert tree(tmp_path / "s") == tree(small_store)
    assert sum(frames for frames, _ in seen) == sum(VIDEOS.values())


def test_the_command_line_builds_on_a_cluster(
    cluster: Any, small_root: Path, small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the workers have folders of their own
    monkeypatch.setattr("pipeline.plan.FRAMES_PER_SHARD", FRAMES_PER_SHARD)
    settings = ["--dataset", str(small_root / "own.toml"), "--root", str(small_root), "--clip-length", str(K)]
    build = ["build", *settings, "--views", str(VIEWS), "--store", "s", "--scheduler", cluster.scheduler_address]
    told = CliRunner().invoke(cli, build)
    assert told.exit_code == 0, told.exception
    assert re.search(
        rf"built {len(SHARDS)} shards, {sum(VIDEOS.values())} frames in [\d.]+ s \([\d,]+ frames/s\)", told.output
    )
    assert tree(tmp_path / "s") == tree(small_store)


def _fails_beside_another(job: ShardJob) -> BuiltShard:
    """test-00000 fails once train-00000 is at work, which is done some time after that."""
    begun, failed = job.store / "begun", job.store / "failed"
    if job.name == "test-00000":
        while not begun.exists():
            time.sleep(0.02)
        failed.touch()
        raise OSError(errno.EIO, "of this test")
    if job.name == "train-00000":
        begun.touch()
        while not failed.exists():
            time.sleep(0.02)
        time.sleep(1)
    return build_shard(job)


def test_when_a_disk_fails_what_is_at_work_is_finished(
    cluster: Any, small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "build_shard", _fails_beside_another)
    with dask_cluster(cluster.scheduler_address) as executor, pytest.raises(OSError, match="of this test"):
        build_small(small_root, tmp_path / "s", executor=executor)
    unfinished = load_manifest(tmp_path / "s").unfinished
    assert unfinished in (["test-00000"], ["test-00000", "train-00001"]), "the other may not have begun by then"
    assert not list((tmp_path / "s" / ".building").glob("*"))


def test_workers_of_other_versions_are_refused(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0")
    with pytest.raises(InputError, match="has other versions") as caught, dask_cluster(cluster.scheduler_address):
        pass
    assert "numpy" in caught.value.found


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cluster.PATIENCE", 0.2)
    with (
        pytest.raises(InputError, match="no Dask scheduler answers"),
        dask_cluster("tcp://127.0.0.1:1"),
    ):
        pass
    with pytest.raises(InputError, match="--scheduler localhost has no port"), dask_cluster("localhost"):
        pass


def test_a_job_that_kills_its_workers(
    cluster: Any, small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    monkeypatch.setattr(jobs, "build_shard", _kills_every_worker)
    with pytest.raises(InputError, match="died again and again"), dask_cluster(cluster.scheduler_address) as executor:
        build_small(small_root, tmp_path / "s", executor=executor)
    assert len(load_manifest(tmp_path / "s").unfinished) == len(SHARDS)
