"""From a plan to a store: shards on an executor, each committed by its record in the manifest."""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zarr

from data_manifests.card import Card
from data_manifests.errors import InputError
from data_manifests.layout import (
    FORMAT_VERSION,
    MANIFEST,
    MANIFEST_COPY,
    PRIORS,
    ROOT,
    SHARDS,
    TABLES,
    Settings,
    differing,
    file_crc32c,
)
from data_manifests.manifest import (
    FileRecord,
    Files,
    Manifest,
    ShardRecord,
    check_file,
    copy_is_ahead,
    file_records,
    is_unfinished,
    load_manifest,
    remove_unfinished,
    save_manifest,
    sync_path,
    sync_tree,
    write_atomically,
)
from data_manifests.priors import make_priors
from data_manifests.shard_videos import read_attributes
from data_manifests.tables import checked_table
from pipeline.decoding import STRICT, Decoding
from pipeline.jobs import library_versions, other_versions, run_jobs, shard_jobs
from pipeline.plan import Plan
from pipeline.reconcile import KEPT
from pipeline.shards import BUILDING, place_shard
from pipeline.sparingly import Sparingly

LOCK = ".lock"


@dataclass(frozen=True)
class BuildReport:
    """What a build did, which versions differ between the builds that began and went on with the store, the videos of
    the shards built that each rule of `reconcile` was applied to, and those that this build, which refuses damaged ones,
    found cut at their damage by an earlier one.
    """

    shards: int
    frames: int
    seconds: float
    shards_before: int
    skipped: dict[str, str]
    left_out: list[str]
    other_versions: list[str]
    rules: dict[str, list[str]]
    cut: list[str]


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
    decoding: Decoding = STRICT,
) -> BuildReport:
    """Builds what of the plan the store lacks. It can be stopped anywhere; the same call goes on from there.

    Args:
        executor: anything with the interface of `concurrent.futures`; by default a pool of `workers` processes.
        decoding: what becomes of awkward videos.

    Raises:
        InputError: the place is another's, another build is at work there, the store has other settings, annotations of
            its videos have changed, a finished shard lacks a file, or a video is damaged. All finished shards stay.
    """
    started = time.monotonic()
    _claim(store)
    with only_build(store):
        manifest = _open_or_create(plan.settings, store)
        _check_finished(manifest, store)
        before = len(manifest.shards) - len(manifest.unfinished)
        planned = _with_plan(manifest, plan)
        jobs = shard_jobs(planned, plan.videos, plan.annotations, root, store, plan.settings, decoding)
        records = {name: replace(planned[name], annotations=job.annotations_digest) for name, job in jobs.items()}
        _check_annotations(planned, records)
        to_build = [jobs[name] for name, record in sorted(records.items()) if record.files is None]
        frames = sum(video.annotated_frames or 0 for job in to_build for video in job.videos)
        shards = {**planned, **records}
        taken = {video_id for record in shards.values() for video_id in record.videos}
        skipped = {v: why for v, why in {**manifest.skipped, **plan.skipped}.items() if v not in taken}
        files = {name: f for name, f in manifest.files.items() if not to_build or name not in TABLES.values()}
        begun = replace(manifest, shards=shards, skipped=skipped, files=files)
        if begun != manifest or not _copy_is_good(store):
            manifest = begun
            save_manifest(manifest, store)
        saving = Sparingly[Manifest](lambda manifest: save_manifest(manifest, store))
        with closing(run_jobs(to_build, workers, executor)) as finished, saving as save:
            for built in finished:
                place_shard(built, store)
                manifest = manifest.with_shard(built.name, built.record)
                save(manifest)
                if progress is not None:
                    progress(built.record.frames, frames)
        if manifest.lacks:
            manifest = replace(manifest, files={**files, **write_tables(manifest, store)})
            save_manifest(manifest, store)
    now = {job.name: manifest.shards[job.name] for job in to_build}
    earlier = [(name, record) for name, record in manifest.shards.items() if record.files and name not in now]
    cut = _rules_of(store, earlier).get(KEPT, []) if decoding.damaged == "refuse" else []
    rules, done = _rules_of(store, now.items()), sum(record.frames for record in now.values())
    other, seconds = other_versions(manifest.attributes["versions"]) if to_build else [], time.monotonic() - started
    return BuildReport(len(to_build), done, seconds, before, plan.skipped, plan.left_out, other, rules, cut)


def present_manifest(store: Path) -> Manifest | None:
    """The manifest of a store that is there already, complete or not."""
    return load_manifest(store) if (store / MANIFEST).is_file() else None


@contextmanager
def only_build(store: Path) -> Iterator[None]:
    """Holds the store's lock: one build or repair at a time. It ends with the process, however that ends.

    What is half-built is removed, before and after.

    Raises:
        InputError: another holds it, saying who; or a part of the store is a link, through which files elsewhere would be
            written.
    """
    for part in (LOCK, BUILDING, MANIFEST, MANIFEST_COPY, ROOT, PRIORS, SHARDS, "tables"):
        if (store / part).is_symlink():
            raise InputError(
                f"{store / part} is a link", found=os.readlink(store / part), wanted="a file or folder of the store itself",
                todo="put the store whole on one disk; the store's own folder may be a link",
            )  # fmt: skip
    path, patience = store / LOCK, time.monotonic() + 0.2  # `is_at_work` holds it for an instant
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < patience:
                os.close(descriptor)
                time.sleep(0.02)
                continue
            holder = os.read(descriptor, 200).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise InputError(
                f"another build is at work on {store}", found=holder, todo="wait for it, or stop it"
            ) from None
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            break
        os.close(descriptor)  # its holder removed it just now
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {os.uname().nodename}".encode())
        shutil.rmtree(store / BUILDING, ignore_errors=True)
        remove_unfinished(store)
        yield
    finally:
        shutil.rmtree(store / BUILDING, ignore_errors=True)
        path.unlink(missing_ok=True)
        os.close(descriptor)


def is_at_work(store: Path) -> bool:
    """Whether a build or repair holds the store's lock."""
    try:
        descriptor = os.open(store / LOCK, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def write_root(store: Path, attributes: dict[str, Any], settings: Settings) -> Files:
    """Writes the root group and the priors, and returns the records of their files."""
    making = store / BUILDING / "root"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    group = zarr.create_group(zarr.storage.LocalStore(making), attributes=attributes)
    priors = make_priors(settings.priors)
    array = group.create_array(PRIORS, shape=priors.shape, dtype="<f4", chunks=priors.shape, compressors=None)
    array[:] = priors
    sync_tree(making)
    files = file_records(making)
    shutil.rmtree(store / PRIORS, ignore_errors=True)
    os.replace(making / ROOT, store / ROOT)
    os.rename(making / PRIORS, store / PRIORS)
    sync_path(store)
    return files


def write_tables(manifest: Manifest, store: Path) -> Files:
    """Writes the shards' tables, end to end, and returns their records.

    Raises:
        InputError: a shard's table is not what was recorded.
    """
    (store / "tables").mkdir(exist_ok=True)
    for name, place in TABLES.items():
        tables = [
            checked_table(store / SHARDS / shard, f"{name}.parquet", record.files or {})
            for shard, record in sorted(manifest.shards.items())
        ]
        content = io.BytesIO()
        pq.write_table(pa.concat_tables(tables), content)
        write_atomically(store / place, content.getvalue())
    return {place: FileRecord((store / place).stat().st_size, file_crc32c(store / place)) for place in TABLES.values()}


def _claim(store: Path) -> None:
    """Makes the folder, or sees that it is ours: a store, or what a killed build left before its first record."""
    if store.exists() and not store.is_dir():
        raise InputError(f"{store} is not a folder", todo="choose another --store")
    found = list(store.iterdir()) if store.is_dir() else []
    strangers = {path.name for path in found if not is_unfinished(path)} - {LOCK, BUILDING}
    begun = strangers <= {ROOT, PRIORS} and _is_our_root(store / ROOT)
    if strangers and not strangers & {MANIFEST, MANIFEST_COPY} and not begun:
        raise InputError(
            f"{store} holds something else",
            found=", ".join(sorted(strangers)[:5]),
            wanted=f"an empty folder, or a store with its {MANIFEST}",
            todo="choose another --store; nothing there was touched",
        )
    if MANIFEST_COPY in strangers and MANIFEST not in strangers:
        raise InputError(
            f"the store at {store} lost its {MANIFEST}",
            todo="python -m pipeline verify STORE --repair puts its copy back",
        )
    store.mkdir(parents=True, exist_ok=True)


def _is_our_root(path: Path) -> bool:
    try:
        return "settings_digest" in json.loads(path.read_bytes())["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _open_or_create(settings: Settings, store: Path) -> Manifest:
    if not (store / MANIFEST).is_file():
        attributes = {
            "format_version": FORMAT_VERSION,
            "settings": json.loads(json.dumps(settings.to_json())),
            "settings_digest": settings.digest,
            "versions": library_versions(),
        }
        files = write_root(store, attributes, settings)
        manifest = Manifest(settings.digest, attributes, files=files)
        save_manifest(manifest, store)
        return manifest
    manifest = load_manifest(store)
    if copy_is_ahead(manifest, store):
        raise InputError(
            f"{store / MANIFEST} is older than its copy", found="it records less",
            todo="python -m pipeline verify STORE --repair puts its copy back",
        )  # fmt: skip
    if manifest.settings_digest != settings.digest:
        theirs = Settings.from_json(manifest.attributes["settings"])
        raise InputError(
            f"the store at {store} was built with other settings",
            found="; ".join(differing(theirs, settings)) + " (there / here)",
            wanted="the same settings, to add to it",
            todo="use the same settings, or another --store",
        )
    return manifest


def _check_finished(manifest: Manifest, store: Path) -> None:
    """Each file that the manifest records is there, in its size: by no more than that a build is called done."""
    for name, record in manifest.shards.items():
        for path in record.files or {}:
            check_file(store / SHARDS / name, path, record.files or {}, deep=False)


def _rules_of(store: Path, shards: Iterable[tuple[str, ShardRecord]]) -> dict[str, list[str]]:
    """The videos of finished shards that each rule of `reconcile` was applied to."""
    rules: dict[str, list[str]] = {}
    for name, record in shards:
        root = check_file(store / SHARDS / name, ROOT, record.files or {}, deep=True)
        for note in read_attributes(root)["videos"]:
            for rule in note["rules"]:
                rules.setdefault(rule, []).append(note["video_id"])
    return rules


def _with_plan(manifest: Manifest, plan: Plan) -> dict[str, ShardRecord]:
    """The store's shards and the plan's."""
    kept = {name: record for name, record in manifest.shards.items() if plan.replanned.get(name) != record}
    there = {video_id for record in kept.values() for video_id in record.videos}
    again = [name for name, record in plan.shards.items() if name in kept or there & set(record.videos)]
    if again:
        raise InputError(
            "another build changed the store since this one was planned",
            found=f"{', '.join(sorted(again)[:5])} planned by both",
            todo="run the same command again",
        )
    return {**kept, **plan.shards}


def _check_annotations(planned: dict[str, ShardRecord], records: dict[str, ShardRecord]) -> None:
    """Of finished shards: nothing was made yet of the others' annotations, so a mended one may go on."""
    changed = [
        name
        for name in records
        if planned[name].files is not None and planned[name].annotations not in ("", records[name].annotations)
    ]
    if changed:
        raise InputError(
            "annotations of videos in the store have changed since it was built",
            found=f"other annotations of the videos of {', '.join(sorted(changed)[:5])}",
            wanted="the annotations that the store was built with",
            todo="put those back, or build another store",
        )


def _copy_is_good(store: Path) -> bool:
    copy = store / MANIFEST_COPY
    return copy.is_file() and copy.read_bytes() == (store / MANIFEST).read_bytes()
