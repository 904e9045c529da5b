"""Finds what is wrong in a store on an object store, and puts damaged files anew from the folder it was built in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from data_manifests.errors import InputError
from data_manifests.layout import MANIFEST, MANIFEST_COPY, TABLES, file_crc32c
from data_manifests.manifest import Manifest, check_file, load_manifest
from data_manifests.object_store import ObjectStore
from pipeline.verify import (
    DAMAGED,
    Finding,
    all_files,
    best_manifest,
    findings_of,
    is_small,
    left_behind,
    stranger,
    unfinished_parts,
)


def verify_remote(remote: ObjectStore, *, deep: bool = False) -> list[Finding]:
    """Everything that is wrong in a store; an empty list if nothing is.

    Args:
        deep: fetches every byte, a shard at a time. Otherwise sizes are listed, and only the small files fetched.

    Raises:
        InputError: there is no store, its manifest and the copy are both damaged, or the object store refuses.
    """
    with TemporaryDirectory(prefix="tubelets-") as scratch:
        return list(_findings(remote, remote.sizes(), deep, Path(scratch)))


def repair_remote(remote: ObjectStore, scratch: Path, findings: list[Finding]) -> list[str]:
    """Puts what `verify_remote` found damaged anew, and removes what no record names from the folders of a store.

    Returns:
        What was mended, a line each.

    Raises:
        InputError: the folder holds another store, or is damaged itself: repair that first.
    """
    ours = load_manifest(scratch)
    strange = left_behind(findings, ours)
    damaged = {finding.file for finding in findings}
    with TemporaryDirectory(prefix="tubelets-") as folder:
        theirs, _ = _best_manifest(remote, remote.sizes(), Path(folder))
    if theirs != ours:
        raise InputError(
            f"{scratch} does not hold the store at {remote.url}", todo="give the --scratch that it was built in"
        )
    mended = []
    for folder, files in all_files(ours).items():
        names = [path for path in files if folder + path in damaged]
        for path in names:
            check_file(scratch / folder, path, files, deep=True)
        if names:
            remote.put([folder + path for path in names], scratch)
            mended += [f"{folder}{path}: put anew" for path in names]
    if damaged & {MANIFEST, MANIFEST_COPY}:
        remote.put_manifest(ours)
        mended.append(f"{MANIFEST} and its copy: put anew")
    if strange:
        remote.remove(strange)
        mended += [f"{name}: removed" for name in strange]
    return mended


def _best_manifest(remote: ObjectStore, sizes: dict[str, int], scratch: Path) -> tuple[Manifest, list[Finding]]:
    copies = [name for name in (MANIFEST, MANIFEST_COPY) if name in sizes]
    if not copies:
        raise InputError(f"no store at {remote.url}", found=f"no {MANIFEST}", todo="check the URL, or build it")
    remote.get(copies, scratch)
    return best_manifest(scratch)


def _findings(remote: ObjectStore, sizes: dict[str, int], deep: bool, scratch: Path) -> Iterator[Finding]:
    manifest, wrong = _best_manifest(remote, sizes, scratch)
    yield from wrong
    known = {MANIFEST, MANIFEST_COPY, *TABLES.values()}
    for folder, files in all_files(manifest).items():
        fetched = []
        for path, record in files.items():
            size = sizes.get(folder + path)
            if size == record.size:
                fetched += [path] * (deep or is_small(folder, path))
            else:
                what = "missing" if size is None else f"{size} bytes, {record.size} are recorded"
                yield from findings_of(scratch, folder, path, what, manifest, deep=False)
        known.update(folder + path for path in files)
        remote.get([folder + path for path in fetched], scratch)
        for path in fetched:
            if file_crc32c(scratch / folder / path) != files[path].crc32c:
                yield from findings_of(scratch, folder, path, DAMAGED, manifest, deep=deep)
        if folder:
            shutil.rmtree(scratch / folder, ignore_errors=True)
    yield from unfinished_parts(manifest, "planned, not uploaded")
    yield from map(stranger, sorted(sizes.keys() - known - {""}))
