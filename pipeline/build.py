"""From a plan to a store: shards on an executor, each committed by its record in the manifest."""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zarr

from data_manifests.card import Card
from data_manifests.errors import InputError
from data_manifests.layout import FORMAT_VERSION, MANIFEST, PRIORS, TABLES, Settings, differing, file_crc32c
from data_manifests.manifest import FileRecord, Manifest, ShardRecord, load_manifest, save_manifest
from data_manifests.tables import boxes_of
from pipeline.plan import Plan
from pipeline.priors import make_priors
from pipeline.reconcile import Tube
from pipeline.shards import BUILDING, ShardJob, VideoJob, build_shard

LOCK = ".lock"


@dataclass(frozen=True)
class BuildReport:
    """What a build did."""

    shards: int
    frames: int
    seconds: float
    shards_before: int
    skipped: dict[str, str]


Progress = Callable[[int, int], None]
"""Called with the frames built since the last call, and the frames of the shards to build in all."""


def build(
    plan: Plan,
    card: Card,
    root: Path,
    store: Path,
    *,
    workers: int,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Builds what of the plan the store lacks. It can be stopped anywhere; the same call goes on from there.

    Args:
        executor: anything with the interface of `concurrent.futures`; by default a pool of `workers` processes.

    Raises:
        InputError: the place is another's, another build is at work there, the store has other settings, or a video is
            damaged. All finished shards stay.
    """
    started = time.monotonic()
    _claim(store)
    with _only_build(store):
        manifest = _open_or_create(plan, store)
        shutil.rmtree(store / BUILDING, ignore_errors=True)
        before = len(manifest.shards) - len(manifest.unfinished)
        if plan.shards or plan.skipped != manifest.skipped:
            manifest = replace(manifest, shards={**manifest.shards, **plan.shards}, skipped=plan.skipped)
            save_manifest(manifest, store)
        jobs = [_job(name, manifest.shards[name], plan, card, root, store) for name in manifest.unfinished]
        frames = sum(video.annotated_frames or 0 for job in jobs for video in job.videos)
        if jobs:
            for name, record in _run(jobs, workers, executor):
                manifest = manifest.with_shard(name, record)
                save_manifest(manifest, store)
                if progress is not None:
                    progress(record.frames, frames)
        if jobs or not all(path in manifest.files for path in TABLES.values()):
            _write_tables(manifest, store)
            save_manifest(replace(manifest, files=_root_files(store)), store)
        shutil.rmtree(store / BUILDING, ignore_errors=True)
    built = sum(manifest.shards[job.name].frames for job in jobs)
    return BuildReport(len(jobs), built, time.monotonic() - started, before, plan.skipped)


def present_manifest(store: Path) -> Manifest | None:
    """The manifest of a store that is there already, complete or not."""
    return load_manifest(store) if (store / MANIFEST).is_file() else None


def _claim(store: Path) -> None:
    if store.exists() and not store.is_dir():
        raise InputError(f"{store} is not a folder", todo="choose another --store")
    strangers = [p.name for p in store.iterdir() if p.name != LOCK] if store.is_dir() else []
    if strangers and not (store / MANIFEST).is_file() and not set(strangers) <= {"zarr.json", PRIORS}:
        raise InputError(
            f"{store} holds something else",
            found=", ".join(sorted(strangers)[:5]),
            wanted=f"an empty folder, or a store with its {MANIFEST}",
            todo="choose another --store; nothing there was touched",
        )
    store.mkdir(parents=True, exist_ok=True)


@contextmanager
def _only_build(store: Path) -> Iterator[None]:
    descriptor = os.open(store / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace") or "another process"
            raise InputError(
                f"another build is at work on {store}", found=holder, todo="wait for it, or stop it"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {os.uname().nodename}".encode())
        yield
        (store / LOCK).unlink()
    finally:
        os.close(descriptor)


def _open_or_create(plan: Plan, store: Path) -> Manifest:
    if (store / MANIFEST).is_file():
        manifest = load_manifest(store)
        if manifest.settings_digest != plan.settings.digest:
            theirs = Settings.from_json(zarr.open_group(store, mode="r").attrs["settings"])  # type: ignore[arg-type]
            raise InputError(
                f"the store at {store} was built with other settings",
                found="; ".join(differing(theirs, plan.settings)) + " (there / here)",
                wanted="the same settings, to add to it",
                todo="use the same settings, or another --store",
            )
        return manifest
    versions = {name: importlib.metadata.version(name) for name in ("tubelets", "numpy", "simplejpeg", "zarr")}
    group = zarr.create_group(
        zarr.storage.LocalStore(store),
        overwrite=False,
        attributes={
            "format_version": FORMAT_VERSION,
            "settings": json.loads(json.dumps(plan.settings.to_json())),
            "settings_digest": plan.settings.digest,
            "versions": versions,
        },
    )
    priors = make_priors(plan.settings.priors)
    array = group.create_array(PRIORS, shape=priors.shape, dtype=priors.dtype, chunks=priors.shape, compressors=None)
    array[:] = priors
    manifest = Manifest(plan.settings.digest, skipped=plan.skipped, files=_root_files(store))
    save_manifest(manifest, store)
    return manifest


def _root_files(store: Path) -> dict[str, FileRecord]:
    paths = [store / "zarr.json", *(store / PRIORS).rglob("*"), *(store / name for name in TABLES.values())]
    return {
        path.relative_to(store).as_posix(): FileRecord(path.stat().st_size, file_crc32c(path))
        for path in sorted(paths)
        if path.is_file()
    }


def _job(name: str, record: ShardRecord, plan: Plan, card: Card, root: Path, store: Path) -> ShardJob:
    known = {row["video_id"]: row for row in plan.videos.to_pylist()}
    gone = [video_id for video_id in record.videos if video_id not in known]
    if gone:
        raise InputError(
            f"shard {name} was planned with videos that this build does not have",
            found=", ".join(gone[:5]),
            wanted="the videos of the build that was interrupted",
            todo="run the interrupted build again with its own --split and --train-list",
        )
    tubes: dict[str, list[Tube]] = {video_id: [] for video_id in record.videos}
    table = plan.annotations.tubes
    for row, video_id in enumerate(table["video_id"].to_pylist()):
        if video_id in tubes:
            index, label, first = (table[column][row].as_py() for column in ("tube", "label", "first_frame"))
            tubes[video_id].append(Tube(index, label, first, boxes_of(table, row)))
    counted = card.annotation_format != "csv"
    videos = tuple(
        VideoJob(
            video_id, known[video_id]["path"], known[video_id]["frames"] if counted else None, tuple(tubes[video_id])
        )
        for video_id in record.videos
    )
    return ShardJob(name, record.split, root, store, plan.settings, (card.box_width, card.box_height), videos)


def _run(jobs: list[ShardJob], workers: int, executor: Executor | None) -> Iterator[tuple[str, ShardRecord]]:
    pool = executor or ProcessPoolExecutor(min(workers, len(jobs)), multiprocessing.get_context("spawn"))
    waiting = {pool.submit(build_shard, job): job.name for job in jobs}
    try:
        while waiting:
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield waiting.pop(future), future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process died", found="it was killed, perhaps for want of memory",
            todo="run the same command again, with fewer --workers if it happens again; finished shards stay",
        ) from error  # fmt: skip
    finally:
        for future in waiting:
            future.cancel()
        if executor is None:
            pool.shutdown(wait=True, cancel_futures=True)


def _write_tables(manifest: Manifest, store: Path) -> None:
    """The shards' tables, end to end."""
    (store / "tables").mkdir(exist_ok=True)
    for name, place in TABLES.items():
        tables = [pq.read_table(store / "shards" / shard / f"{name}.parquet") for shard in sorted(manifest.shards)]
        temporary = store / f"{place}.new"
        pq.write_table(pa.concat_tables(tables), temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, store / place)
