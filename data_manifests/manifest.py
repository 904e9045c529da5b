"""manifest.json: which shards a store has, and the sizes and checksums of all its files. A record here is the commit."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from data_manifests.errors import InputError
from data_manifests.layout import FORMAT_VERSION, MANIFEST, check_version, digest, file_crc32c


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and crc32c of one file."""

    size: int
    crc32c: int


Files = dict[str, FileRecord]


@dataclass(frozen=True)
class ShardRecord:
    """One shard: planned, and built once `files` is there (paths below the shard)."""

    split: str
    videos: tuple[str, ...]
    frames: int = 0
    clips: int = 0
    targets: int = 0
    files: Files | None = None


@dataclass(frozen=True)
class Manifest:
    """The whole manifest.

    Args:
        settings_digest: of the store's `Settings`.
        shards: by name.
        skipped: videos that were not there, and why.
        files: of the root, the priors and the tables; the tables are there once every shard is built.
    """

    settings_digest: str
    shards: dict[str, ShardRecord] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    files: Files = field(default_factory=dict)

    @property
    def unfinished(self) -> list[str]:
        """Names of the shards that are planned and not built."""
        return [name for name, record in self.shards.items() if record.files is None]

    def with_shard(self, name: str, record: ShardRecord) -> Manifest:
        """The same manifest with one shard's record replaced."""
        return replace(self, shards={**self.shards, name: record})


def file_records(folder: Path) -> Files:
    """Records of all files below a folder, by their path below it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): FileRecord(path.stat().st_size, file_crc32c(path)) for path in paths
    }


def save_manifest(manifest: Manifest, store: Path) -> None:
    """Writes it in one step: a reader sees the old one or the new one, also after a crash."""
    body = {"format_version": FORMAT_VERSION, **dataclasses.asdict(manifest)}
    write_atomically(store / MANIFEST, json.dumps({**body, "digest": digest(body)}, indent=1).encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Temp file, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_manifest(store: Path) -> Manifest:
    """The manifest of a store.

    Raises:
        InputError: there is no store, or its manifest is damaged, of another version, or names files outside it.
    """
    path = store / MANIFEST
    if not path.is_file():
        raise InputError(
            f"no store at {store}", found=f"no {MANIFEST}", wanted="a folder made by `python -m pipeline build`",
            todo="check the path of --store, or build it",
        )  # fmt: skip
    try:
        raw = json.loads(path.read_bytes())
        check_version(raw["format_version"], str(store))
        claimed = raw.pop("digest")
        if claimed != digest(raw):
            raise ValueError("its digest does not fit its content")
        shards = {_plain(name): _shard(record) for name, record in raw["shards"].items()}
        return Manifest(raw["settings_digest"], shards, raw["skipped"], _files(raw["files"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is damaged", found=f"{type(error).__name__}: {error}", todo="build the store again in another place"
        ) from error


def _shard(raw: dict[str, Any]) -> ShardRecord:
    files = None if raw["files"] is None else _files(raw["files"])
    return ShardRecord(**{**raw, "videos": tuple(raw["videos"]), "files": files})


def _files(raw: dict[str, Any]) -> Files:
    return {_plain(name): FileRecord(**record) for name, record in raw.items()}


def _plain(name: str) -> str:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise ValueError(f"the path {name!r} leads out of the store")
    return name
