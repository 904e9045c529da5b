"""manifest.json: which shards a store has, and the sizes and checksums of all its files. A record here is the commit."""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data_manifests.errors import InputError
from data_manifests.layout import FORMAT_VERSION, MANIFEST, MANIFEST_COPY, TABLES, check_version, digest, file_crc32c

_UNFINISHED = re.compile(r"\..+\.\d+\.new")


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and crc32c of one file."""

    size: int
    crc32c: int


Files = dict[str, FileRecord]


@dataclass(frozen=True)
class ShardRecord:
    """One shard: planned, and built once `files` is there (paths below the shard).

    Args:
        annotations: digest of its videos' annotations, so that they cannot change between plan, build and repair.
    """

    split: str
    videos: tuple[str, ...]
    annotations: str = ""
    frames: int = 0
    clips: int = 0
    targets: int = 0
    files: Files | None = None


@dataclass(frozen=True)
class Manifest:
    """The whole manifest.

    Args:
        settings_digest: of the store's `Settings`.
        attributes: of the root group: the settings themselves, and the versions of the libraries that built the store.
        shards: by name.
        skipped: videos that were not there, and why.
        files: of the root, the priors and the tables; the tables are there once every shard is built.
    """

    settings_digest: str
    attributes: dict[str, Any] = field(default_factory=dict)
    shards: dict[str, ShardRecord] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    files: Files = field(default_factory=dict)

    @property
    def unfinished(self) -> list[str]:
        """Names of the shards that are planned and not built."""
        return [name for name, record in self.shards.items() if record.files is None]

    @property
    def lacks(self) -> str:
        """What is to be built before the store can be read, in words; "" if it is finished."""
        if self.unfinished:
            return f"{len(self.unfinished)} of {len(self.shards)} shards"
        return "" if self.files.keys() >= set(TABLES.values()) else "the tables"

    def with_shard(self, name: str, record: ShardRecord) -> Manifest:
        """The same manifest with one shard's record replaced."""
        return replace(self, shards={**self.shards, name: record})


def file_records(folder: Path) -> Files:
    """Records of all files below a folder, by their path below it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): FileRecord(path.stat().st_size, file_crc32c(path)) for path in paths}


def check_file(folder: Path, name: str, files: Files, *, deep: bool) -> Path:
    """The path of a recorded file that has its recorded size and, if `deep`, its checksum.

    Raises:
        InputError: it has not, or is not there, or not recorded.
    """
    path = folder / name
    todo = "python -m pipeline verify STORE --repair"
    record = files.get(name)
    if record is None or not path.is_file():
        raise InputError(f"{path} is missing" if record else f"the manifest lacks {path}", todo=todo)
    size = path.stat().st_size
    if size != record.size:
        raise InputError(f"{path} has another size", found=f"{size} bytes", wanted=f"{record.size}", todo=todo)
    if deep and file_crc32c(path) != record.crc32c:
        raise InputError(f"{path} is damaged", found="its checksum does not fit the manifest", todo=todo)
    return path


def save_manifest(manifest: Manifest, store: Path) -> None:
    """Writes it in one step: a reader sees the old one or the new one, also after a crash. Then its copy, for repair."""
    content = manifest_bytes(manifest)
    write_atomically(store / MANIFEST, content)
    write_atomically(store / MANIFEST_COPY, content)


def manifest_bytes(manifest: Manifest) -> bytes:
    """As it is stored, a line a shard: equal for equal manifests."""
    body = {"format_version": FORMAT_VERSION, **vars(manifest)}
    parts = (f"\n {json.dumps(name)}: {_text(name, part)}" for name, part in {**body, "digest": digest(body)}.items())
    return ("{" + ",".join(parts) + "\n}").encode()


def _text(name: str, part: Any) -> str:
    if name not in ("shards", "skipped", "files"):
        return json.dumps(part)
    rows = (f"\n  {json.dumps(key)}: {json.dumps(row, default=vars)}" for key, row in sorted(part.items()))
    return "{" + ",".join(rows) + "\n }"


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Temp file, fsync, rename, fsync of the folder, which is made if it is not there.

    Each process has a temporary name of its own; `remove_unfinished` removes what a killed one left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.absolute()  # "." has no name
    temporary = place.with_name(f".{place.name}.{os.getpid()}.new")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, place)
    except OSError as error:
        error.filename = str(path)  # a full disk names no file, others the temporary one
        raise
    finally:
        temporary.unlink(missing_ok=True)
    sync_path(path.parent)


def is_unfinished(path: Path) -> bool:
    """Whether it is a temporary file of `write_atomically`."""
    return _UNFINISHED.fullmatch(path.name) is not None


def remove_unfinished(folder: Path, *, below: bool = True) -> None:
    """Removes the temporary files of killed processes in a folder, and `below` it, that nobody else writes to."""
    for path in folder.rglob(".*.new") if below else folder.glob(".*.new"):
        if is_unfinished(path):
            path.unlink(missing_ok=True)


def sync_tree(folder: Path) -> None:
    """Makes a folder and all below it durable; many files at once, since the disk writes them together."""
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(sync_path, folder.rglob("*")))
    sync_path(folder)


def sync_path(path: Path) -> None:
    """Makes a file's content, or the renames in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_manifest(store: Path, name: str = MANIFEST) -> Manifest:
    """The manifest of a store, or its copy.

    Raises:
        InputError: there is no store, or its manifest is damaged, of another version, or names files outside it.
    """
    path = store / name
    if not path.is_file():
        raise InputError(
            f"no store at {store}", found=f"no {name}", wanted="a folder made by `python -m pipeline build`",
            todo="check the path, or build it",
        )  # fmt: skip
    return parse_manifest(path.read_bytes(), str(path))


def parse_manifest(content: bytes, where: str) -> Manifest:
    """The inverse of `manifest_bytes`.

    Args:
        where: it was found, for messages.

    Raises:
        InputError: it is damaged, of another version, or names files outside the store.
    """
    try:
        raw = json.loads(content)
        check_version(raw["format_version"], where)
        claimed = raw.pop("digest")
        if claimed != digest(raw):
            raise ValueError("its digest does not fit its content")
        for part in ("attributes", "shards", "skipped", "files"):
            if not isinstance(raw[part], dict):
                raise TypeError(f"{part} that are {raw[part]!r:.40}")
        shards = {plain_path(name): _shard(record) for name, record in raw["shards"].items()}
        return Manifest(raw["settings_digest"], raw["attributes"], shards, raw["skipped"], _files(raw["files"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{where} is damaged", found=f"{type(error).__name__}: {error}", wanted="the manifest that the build wrote",
            todo="python -m pipeline verify STORE --repair, which puts its copy back",
        ) from error  # fmt: skip


def copy_is_ahead(manifest: Manifest, store: Path) -> bool:
    """Whether the copy records something built that the manifest does not: then somebody put an old manifest back.

    What is planned only may differ: a build that was killed between the two may just have planned anew.
    """
    try:
        copy = load_manifest(store, MANIFEST_COPY)
    except InputError:
        return False

    def built(of: Manifest) -> set[str]:
        return of.shards.keys() - set(of.unfinished)

    tables = copy.shards == manifest.shards and len(copy.files) > len(manifest.files)
    return tables or not built(copy) <= built(manifest)


def _shard(raw: dict[str, Any]) -> ShardRecord:
    files = None if raw["files"] is None else _files(raw["files"])
    record = ShardRecord(**{**raw, "videos": tuple(map(plain_path, raw["videos"])), "files": files})
    if {type(record.frames), type(record.clips), type(record.targets)} != {int}:
        raise TypeError(f"{record.frames!r:.40} frames, {record.clips!r:.40} clips, {record.targets!r:.40} targets")
    return record


def _files(raw: dict[str, Any]) -> Files:
    files = {plain_path(name): FileRecord(**record) for name, record in raw.items()}
    for name, record in files.items():
        if {type(record.size), type(record.crc32c)} != {int}:
            raise TypeError(f"{name} of {record.size!r:.40} bytes, crc32c {record.crc32c!r:.40}")
    return files


def plain_path(name: str) -> str:
    """A path below a folder as it is. Raises ValueError if it leads out of it."""
    if not name.strip("./") or name.startswith("/") or ".." in name.split("/") or "\\" in name or "\0" in name:
        raise ValueError(f"the path {name!r} leads out of the store")
    return name
