"""A store on an object store, read through a cache of whole shards on this machine's disk.

CACHE/<key>/        one version of one store, laid out as a store: its manifest, its tables, the shards that were asked for
CACHE/<key>.users   locked by every process that has it open: only what nobody has open is removed to make room
CACHE/.lock         held by the one process that fetches or removes
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_manifests.errors import InputError
from data_manifests.layout import MANIFEST, SHARDS, checked_at_opening, digest
from data_manifests.manifest import Files, check_file, manifest_bytes, write_atomically
from data_manifests.object_store import ObjectStore
from trainer.data.reader import check_finished
from trainer.place import Remote

FETCHING = ".fetching"


class ShardCache:
    """One version of a remote store, as far as it was asked for. Every file's checksum is checked when it arrives.

    Attributes:
        manifest: of the store, as it was when this was made.
        folder: of the version, laid out as a store.
    """

    def __init__(self, place: Remote) -> None:
        """Reads the manifest.

        Raises:
            InputError: there is no store, or the object store refuses.
        """
        self.place, self._remote = place, ObjectStore(place.url)
        self.manifest = self._remote.known_manifest()
        self.folder = place.cache / digest([self._remote.url, manifest_bytes(self.manifest).decode()])[:16]
        place.cache.mkdir(parents=True, exist_ok=True)
        with self._alone():
            users = os.open(_users(self.folder), os.O_RDWR | os.O_CREAT, 0o644)
            weakref.finalize(self, os.close, users)
            fcntl.flock(users, fcntl.LOCK_SH)
            os.utime(users)

    def fetch(self, split: str | None) -> Path:
        """Sees to it that the shards of a split, or all, are there; returns the folder, which opens as a store.

        One process fetches; others wait, and find what it fetched.

        Raises:
            InputError: the store is unfinished, they do not fit in the cache, a file arrived damaged, or the object store
                refuses.
        """
        check_finished(self.manifest, self.place.url)
        wanted = {n: r.files or {} for n, r in self.manifest.shards.items() if split in (None, r.split)}
        content = manifest_bytes(self.manifest)
        with self._alone():
            parts = {"": self.manifest.files} | {f"{SHARDS}/{name}": files for name, files in wanted.items()}
            missing = {part: files for part, files in parts.items() if not self._is_there(part, files, deep=False)}
            if missing:
                self._make_room(_bytes(parts) + len(content), _bytes(missing) + len(content))
                size = f"{_bytes(missing) / 1e6:,.1f} MB"
                print(f"fetching {size} of {self.place.url} into {self.folder}", file=sys.stderr, flush=True)
            for part, files in missing.items():
                self._fetch(part, files)
            place = self.folder / MANIFEST
            if not place.exists() or place.read_bytes() != content:
                write_atomically(place, content)
        return self.folder

    def mend(self, shard: str) -> None:
        """Fetches a shard again if a byte of its copy is wrong; says so.

        Raises:
            InputError: it arrived damaged, or the object store refuses.
        """
        part, files = f"{SHARDS}/{shard}", self.manifest.shards[shard].files or {}
        with self._alone():
            if not self._is_there(part, files, deep=True):
                # first, so that the cache keeps its bound; who has mapped its files keeps them
                shutil.rmtree(self.folder / part, ignore_errors=True)
                self._fetch(part, files)

    def _is_there(self, part: str, files: Files, *, deep: bool) -> bool:
        if not (self.folder / part if part else self.folder / MANIFEST).exists():
            return False
        try:
            for name in files:
                check_file(self.folder / part, name, files, deep=deep or not part or checked_at_opening(name))
        except InputError as error:
            what = f"{error.what}{f' ({error.found})' if error.found else ''}"
            print(f"the cache is damaged: {what}; it is fetched again", file=sys.stderr, flush=True)
            return False
        return True

    def _fetch(self, part: str, files: Files) -> None:
        below = f"{part}/" if part else ""
        making = self.folder / FETCHING
        try:
            for name, size in zip(files, self._remote.sizes_of([below + name for name in files]), strict=True):
                if size != files[name].size:  # before it fills the disk
                    raise InputError(
                        f"{self.place.url}/{below}{name} is damaged",
                        found=f"{size} bytes",
                        wanted=f"{files[name].size}, as is recorded",
                        todo=f"python -m pipeline verify {self.place.url} --deep",
                    )
            self._remote.get([below + name for name in files], making)
            for name in files:
                try:
                    check_file(making / part, name, files, deep=True)
                except InputError as error:
                    raise InputError(
                        f"{self.place.url}/{below}{name} is damaged, or was on its way here", found=error.found,
                        todo=f"python -m pipeline verify {self.place.url} --deep",
                    ) from error  # fmt: skip
            for name in (part,) if part else files:
                self._replace(making / name, self.folder / name)
        finally:
            shutil.rmtree(making, ignore_errors=True)

    def _replace(self, new: Path, place: Path) -> None:
        """In two steps for a folder: who has mapped its files keeps them, and only the holder of the lock opens any."""
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            shutil.rmtree(place)
        os.replace(new, place)

    def _make_room(self, needed: int, missing: int) -> None:
        cache, limit = self.place.cache, self.place.limit
        if needed > limit:
            raise InputError(
                f"the cache at {cache} is too small for {self.place.url}", found=f"{limit / 1e9:.2f} GB",
                wanted=f"at least {needed / 1e9:.2f} GB, as every epoch reads all of it",
                todo="raise --cache-gb, or choose another --split",
            )  # fmt: skip
        for version in sorted(cache.glob("*.users"), key=lambda path: path.stat().st_mtime):
            if _held(cache) + missing <= limit:
                return
            _remove_unused(version)
        if (held := _held(cache)) + missing > limit:
            raise InputError(
                f"the cache at {cache} is full of what is being read",
                found=f"{held / 1e9:.2f} of {limit / 1e9:.2f} GB, {_held(self.folder) / 1e9:.2f} of them of this store",
                wanted=f"room for {missing / 1e9:.2f} GB",
                todo="raise --cache-gb, choose another --cache, or wait for the other runs that read from it",
            )  # fmt: skip

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with open(self.place.cache / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            shutil.rmtree(self.folder / FETCHING, ignore_errors=True)  # a killed process left it
            yield


def _users(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.users")


def _bytes(parts: dict[str, Files]) -> int:
    return sum(file.size for files in parts.values() for file in files.values())


def _held(cache: Path) -> int:
    return sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())


def _remove_unused(version: Path) -> None:
    with open(version, "r+") as users:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(version.with_suffix(""), ignore_errors=True)
        version.unlink()
