"""Shard jobs: made from a plan, and run on an executor."""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import cv2
import pyarrow as pa

from data_manifests.errors import InputError, InputErrors
from data_manifests.layout import Settings
from data_manifests.manifest import ShardRecord
from data_manifests.signals import held_back
from data_manifests.tables import boxes_of
from pipeline.annotations import Annotations
from pipeline.decoding import Decoding
from pipeline.reconcile import Tube
from pipeline.shards import BuiltShard, ShardJob, VideoJob, build_shard

MOST_REFUSED = 20
"""Shards that damaged videos may spoil, or a tenth of those that are finished if that is more, before a build ends early:
then it is rather the decoder, or the disk that they lie on."""


def library_versions() -> dict[str, str]:
    """Versions, here, of what decides a store's bytes."""
    names = ("tubelets", "av", "numpy", "opencv-python-headless", "simplejpeg", "zarr")
    return {name: importlib.metadata.version(name) for name in names}


def other_versions(there: dict[str, str]) -> list[str]:
    """`name there / here` of the versions that differ."""
    return [
        f"{name} {there.get(name)} / {here}" for name, here in library_versions().items() if there.get(name) != here
    ]


def shard_jobs(
    records: dict[str, ShardRecord],
    videos: pa.Table,
    annotations: Annotations,
    root: Path,
    store: Path,
    settings: Settings,
    decoding: Decoding,
) -> dict[str, ShardJob]:
    """The jobs of these shards. Those of finished shards may have videos without a path: only their annotations count.

    Args:
        videos: those at hand, with their paths (schema `VIDEOS`).

    Raises:
        InputError: a shard that is not built yet has videos that are not at hand, or a finished one has videos that are
            no longer annotated, or of another split.
    """
    at_hand = {row["video_id"]: row for row in videos.to_pylist()}
    known = {**{row["video_id"]: row for row in annotations.videos.to_pylist()}, **at_hand}
    tubes: dict[str, list[Tube]] = {}
    table = annotations.tubes.combine_chunks()
    columns = (table[name].to_pylist() for name in ("video_id", "tube", "label", "first_frame"))
    for row, (video_id, index, label, first) in enumerate(zip(*columns, strict=True)):
        tubes.setdefault(video_id, []).append(
            Tube(index, label, first, boxes_of(table, row), annotations.called[video_id, index])
        )
    jobs = {}
    for name, record in records.items():
        gone = [video_id for video_id in record.videos if video_id not in at_hand]
        if gone and record.files is None:
            raise InputError(
                f"shard {name} was planned with videos that this build does not have",
                found=f"without {', '.join(gone[:5])}",
                wanted="the videos of the build that was interrupted",
                todo="run the interrupted build again with its own --split and --train-list",
            )
        moved = [v for v in record.videos if v not in known or known[v]["split"] != record.split]
        if moved:
            raise InputError(
                "annotations of videos in the store have changed since it was planned",
                found=f"{', '.join(moved[:5])}: not annotated, or not in the {record.split} split, any more",
                wanted="the annotations and lists that the store was planned with",
                todo="put those back, or build another store",
            )
        rows = [known[video_id] for video_id in record.videos]
        of_shard = tuple(
            VideoJob(
                row["video_id"],
                row["path"],
                row["frames"] if annotations.lengths_are_known else None,
                None if row["width"] is None else (row["width"], row["height"]),
                tuple(tubes.get(row["video_id"], ())),
                annotations.counted_from,
            )
            for row in rows
        )
        jobs[name] = ShardJob(name, record.split, root, store, settings, of_shard, decoding)
    return jobs


def run_jobs(jobs: list[ShardJob], workers: int, executor: Executor | None) -> Generator[BuiltShard, None, None]:
    """Builds shards, and yields them as they are finished.

    Damaged videos are told of when the shards without one are finished: a night's work does not end at one file. After
    another failure, or where they are too many (`MOST_REFUSED`), no further shard is handed out; those that a worker has
    are finished and yielded before it is raised.

    Args:
        executor: anything with the interface of `concurrent.futures`; by default a pool of `workers` processes.

    Raises:
        InputErrors: videos are damaged.
        InputError: a worker was killed, or lacks the store or the dataset.
        OSError: a full disk and the like. What else a job or the executor ends with is raised as it is.
    """
    failures: list[BaseException] = []
    refused: list[InputErrors] = []
    finished = 0
    if not jobs:
        return
    with _pool(min(workers, len(jobs)), executor) as pool:
        waiting: set[Future[BuiltShard]] = set()
        try:
            with held_back(signal.SIGINT):  # from the workers for good: we end them
                waiting.update(pool.submit(build_shard, job) for job in jobs)
        except BrokenExecutor as error:
            failures.append(error)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                failure = future.exception()
                if failure is None:
                    finished += 1
                    yield future.result()
                elif isinstance(failure, InputErrors):
                    refused.append(failure)
                else:
                    failures.append(failure)
            if failures or len(refused) >= max(MOST_REFUSED, finished // 10):
                waiting = {future for future in waiting if not future.cancel()}
    if refused:
        videos = InputErrors([error for of_shard in refused for error in of_shard.errors])
        if not failures:
            raise videos
        print(f"error: {videos}", file=sys.stderr)
    if failures and isinstance(failures[0], BrokenExecutor):
        raise InputError(
            "a worker process died",
            found="it was killed, perhaps for want of memory",
            todo="run the same command again, with fewer --workers if it happens again; finished shards stay",
        ) from failures[0]
    if failures:
        raise failures[0]


@contextmanager
def _pool(workers: int, executor: Executor | None) -> Iterator[Executor]:
    """The executor, or a pool of our own, whose workers end with us: also at Ctrl-C, also when we are killed."""
    if executor is not None:
        yield executor
        return
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
    try:
        yield pool
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
