"""From a finished local store to an object store: shard by shard, each there once the manifest records it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from data_manifests.errors import InputError
from data_manifests.layout import MANIFEST, MANIFEST_COPY, PRIORS, ROOT, SHARDS, TABLES
from data_manifests.manifest import Files, Manifest, ShardRecord, check_file, load_manifest
from data_manifests.object_store import ObjectStore
from pipeline.sparingly import Sparingly
from pipeline.verify import recorded_files

Progress = Callable[[str, int], None]
"""Called with what was put, and its bytes."""


def check_same_store(ours: Manifest | None, remote: ObjectStore) -> Manifest | None:
    """The manifest of a remote store that a local one can be uploaded to; None where there is no store yet.

    Args:
        ours: the local store's manifest; None if nothing is built yet.

    Raises:
        InputError: what lies there is not an earlier state of the local store.
    """
    theirs = remote.manifest()
    if theirs is None:
        _check_nothing_else(ours, remote)
        return None
    there = {name: record for name, record in theirs.shards.items() if record.files is not None}
    if ours is None or theirs.settings_digest != ours.settings_digest or not there.items() <= ours.shards.items():
        raise InputError(
            f"the store at {remote.url} was not built from this scratch folder",
            found=f"{len(there)} shards there, of other settings or other content than here",
            wanted="the folder it was built from, or a copy of the store itself",
            todo=f"copy it (`aws s3 sync {remote.url} SCRATCH`) to add to it, or choose another --store",
        )
    return theirs


def _check_nothing_else(ours: Manifest | None, remote: ObjectStore) -> None:
    """An upload that was cut before its first manifest, or whose manifest was lost, has left the store's own objects."""
    own = {"", MANIFEST_COPY} | (set() if ours is None else recorded_files(ours))
    others = sorted(name for name in remote.sizes() if name not in own and name.split("/")[0] not in (ROOT, PRIORS))
    if others:
        raise InputError(
            f"{remote.url} holds something else", found=", ".join(others[:5]),
            wanted=f"nothing there, or a store with its {MANIFEST}",
            todo="choose another --store, such as a folder of its own below that; nothing there was touched",
        )  # fmt: skip


def upload(store: Path, remote: ObjectStore, progress: Progress | None = None) -> int:
    """Puts what a remote store lacks of a finished local one, and returns the number of shards that were put.

    Stopped anywhere, it leaves a store that says which shards it lacks; the same call goes on from there.

    Raises:
        InputError: the local store is not finished, another store lies there, a local file is damaged, or the object store refuses.
    """
    ours = load_manifest(store)
    if ours.lacks:
        raise InputError(
            f"the store at {store} is not finished", found=f"{ours.lacks} are to be built",
            todo="run its `python -m pipeline build` again; it goes on from there",
        )  # fmt: skip
    theirs = check_same_store(ours, remote)
    if theirs == ours:
        if remote.read(MANIFEST_COPY) != remote.read(MANIFEST):  # the upload was cut between the two
            remote.put_manifest(ours)
        return 0
    there = {} if theirs is None else theirs.shards
    lacking = [name for name in sorted(ours.shards) if name not in there or there[name].files is None]
    shards = {name: _planned(record) if name in lacking else record for name, record in ours.shards.items()}
    tables = {name: ours.files[name] for name in TABLES.values()}
    root = {name: record for name, record in ours.files.items() if name not in tables}
    now = replace(ours, shards=shards, files=root)
    _put(root, store, "", remote)
    with Sparingly(remote.put_manifest) as record_there:
        record_there(now)
        for name in lacking:
            record = ours.shards[name]
            _put(record.files or {}, store, f"{SHARDS}/{name}/", remote)
            now = now.with_shard(name, record)
            record_there(now)
            if progress is not None:
                progress(name, sum(file.size for file in (record.files or {}).values()))
    _put(tables, store, "", remote)
    remote.put_manifest(ours)
    return len(lacking)


def _planned(record: ShardRecord) -> ShardRecord:
    return ShardRecord(record.split, record.videos, record.annotations)


def _put(files: Files, store: Path, below: str, remote: ObjectStore) -> None:
    for name in files:
        check_file(store / below, name, files, deep=True)
    remote.put([below + name for name in files], store)
