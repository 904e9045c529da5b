"""Finds what is wrong in a store, down to the row, and repairs it by building the damaged shards again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_manifests.card import Card
from data_manifests.errors import InputError
from data_manifests.layout import (
    ARRAYS,
    MANIFEST,
    MANIFEST_COPY,
    PRIORS,
    ROOT,
    SHARDS,
    TABLES,
    Settings,
    checked_at_opening,
    file_crc32c,
    frame_crc32c,
    view_crc32c,
    view_heads,
)
from data_manifests.manifest import (
    Files,
    Manifest,
    ShardRecord,
    copy_is_ahead,
    is_unfinished,
    load_manifest,
    save_manifest,
)
from data_manifests.shard_videos import read_attributes
from data_manifests.tables import VIDEOS, read_table
from pipeline.annotations import read_annotations
from pipeline.build import LOCK, is_at_work, only_build, write_root, write_tables
from pipeline.decoding import STRICT, Decoding
from pipeline.jobs import run_jobs, shard_jobs
from pipeline.places import find_videos
from pipeline.shards import BUILDING, place_shard
from pipeline.stored import read_array

ROWS_NAMED = 20
"""Damaged rows of an array that are named one by one."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Args:
        what: in a few words.
        file: below the store.
        shard: "" for files of the whole store.
        array: "" where the file is not an array's.
        row: of the array, if known.
        video: that the row belongs to, if known.
        planned: it is not there yet, as its build has not come to it.
    """

    what: str
    file: str
    shard: str = ""
    array: str = ""
    row: int | None = None
    video: str = ""
    planned: bool = False

    def __str__(self) -> str:
        row = "" if self.row is None else f", row {self.row}"
        return f"{self.file}{row}: {self.what}" + (f" (video {self.video})" if self.video else "")


Source = tuple[Card, Path]
"""Of a store: its dataset's card, and the folder that the dataset lies in."""
Progress = Callable[[int, int], None]
"""Called with the bytes checked since the last call, and the bytes to check in all."""


def verify(store: Path, *, deep: bool = False, progress: Progress | None = None) -> list[Finding]:
    """Everything that is wrong in a store; an empty list if nothing is.

    Args:
        deep: reads every byte. Otherwise sizes are checked, and checksums of the small files only, as at opening.

    Raises:
        InputError: there is no store, or its manifest and the copy are both damaged.
    """
    manifest, findings = best_manifest(store)
    total = sum(f.size for files in all_files(manifest).values() for f in files.values())
    known = {MANIFEST, MANIFEST_COPY, LOCK, *TABLES.values()}
    for folder, files in all_files(manifest).items():
        for path, record in files.items():
            name = f"{folder}{path}"
            known.add(name)
            what = _wrong(store / name, record.size, record.crc32c, deep or is_small(folder, path))
            if what:
                findings += findings_of(store, folder, path, what, manifest, deep=deep)
            if progress is not None:
                progress(record.size, total)
    findings += unfinished_parts(manifest, "planned, not built: run its build again")
    known |= recorded_files(best_manifest(store)[0])
    strange = list(_strangers(store, known))
    if strange and is_at_work(store):  # it places a shard before it records it
        strange = [finding for finding in strange if not finding.file.startswith(f"{SHARDS}/")]
    return findings + strange


def findings_of(store: Path, folder: str, path: str, what: str, manifest: Manifest, *, deep: bool) -> list[Finding]:
    """What is wrong with a file of which `what` is wrong: if its bytes are, and `deep`, the rows of its array."""
    shard = folder.removeprefix(f"{SHARDS}/").removesuffix("/")
    array = path.split("/c/")[0] if "/c/" in path else ""
    if what == DAMAGED and shard and deep and array:
        return _rows(store, shard, array, folder + path, manifest.shards[shard], manifest)
    return [Finding(what, folder + path, shard, array)]


def unfinished_parts(manifest: Manifest, what: str) -> list[Finding]:
    """The shards, and the tables of all shards, that are planned only."""
    tables = [Finding(what, path, planned=True) for path in TABLES.values() if path not in manifest.files]
    return [Finding(what, f"{SHARDS}/{name}", name, planned=True) for name in manifest.unfinished] + tables


def is_small(folder: str, path: str) -> bool:
    """Whether a file's checksum is checked each time that the store is opened."""
    return not folder or checked_at_opening(path)


def repair(
    store: Path,
    source: Source | None,
    findings: list[Finding],
    *,
    workers: int,
    executor: Executor | None = None,
    decoding: Decoding = STRICT,
) -> list[str]:
    """Mends what `verify` found: puts the manifest's copy back, builds the damaged shards from their source, and removes
    files that no record names from the folders of a store, now that no build is at work.

    Args:
        source: the card and the root of the dataset; None where no shard need be built.

    Returns:
        What was mended, a line each.

    Raises:
        InputError: a shard is damaged, and the source is not given or there, or gives other bytes than those that were
            recorded; that shard is left as it is, and without a source all else too.
    """
    with only_build(store):
        manifest, of_manifest = best_manifest(store)
        named = {f.shard for f in findings if f.shard in manifest.shards and not f.planned}
        damaged = sorted(named - set(manifest.unfinished))
        if damaged and source is None:
            raise InputError(
                f"shards of {store} are to be built again", found=", ".join(damaged[:5]),
                wanted="their source", todo="add --dataset and --root",
            )  # fmt: skip
        if of_manifest:
            save_manifest(manifest, store)
        mended = [f"{finding.file}: written anew" for finding in of_manifest]
        strange = left_behind(findings, manifest)
        for name in strange:
            (store / name).unlink(missing_ok=True)
        mended += [f"{name}: removed" for name in strange]
        settings = Settings.from_json(manifest.attributes["settings"])
        if source is not None:
            mended += _repair_shards(store, *source, manifest, settings, damaged, workers, executor, decoding)
        files = {finding.file for finding in findings if not finding.shard} & set(manifest.files)
        if any(name == ROOT or name.startswith(f"{PRIORS}/") for name in files):
            _same(manifest.files, write_root(store, manifest.attributes, settings))
        if files & set(TABLES.values()):
            _same(manifest.files, write_tables(manifest, store))
    return mended + [f"{name}: written anew" for name in sorted(files)]


DAMAGED = "its checksum does not fit the manifest"
STRANGE = "not the store's: no record names it"
FOREIGN = "no part of a store lies here, so it is somebody's and stays"


def best_manifest(store: Path) -> tuple[Manifest, list[Finding]]:
    """The better of the manifest and its copy, and what is wrong with the other."""
    try:
        manifest = load_manifest(store)
    except InputError as error:
        if not (store / MANIFEST_COPY).is_file():
            raise
        return load_manifest(store, MANIFEST_COPY), [Finding(error.found or "missing", MANIFEST)]
    copy = store / MANIFEST_COPY
    if copy.is_file() and copy.read_bytes() == (store / MANIFEST).read_bytes():
        return manifest, []
    if copy_is_ahead(manifest, store):
        return load_manifest(store, MANIFEST_COPY), [Finding("older than its copy", MANIFEST)]
    return manifest, [Finding("not a copy of the manifest", MANIFEST_COPY)]


def all_files(manifest: Manifest) -> dict[str, Files]:
    """Records of all files, by the folder below the store."""
    shards = {f"{SHARDS}/{name}/": record.files for name, record in manifest.shards.items() if record.files}
    return {"": manifest.files, **shards}


def recorded_files(manifest: Manifest) -> set[str]:
    """The paths of all files, below the store."""
    return {folder + path for folder, files in all_files(manifest).items() for path in files}


def stranger(name: str) -> Finding:
    """What is said of a file that no record names."""
    place = Path(name)
    of_a_store = place.parts[0] in {SHARDS, PRIORS, *(Path(table).parts[0] for table in TABLES.values())}
    return Finding(STRANGE if of_a_store or is_unfinished(place) else FOREIGN, name)


def left_behind(findings: list[Finding], manifest: Manifest) -> list[str]:
    """The files that are to be removed: of a store by their place, and still named by no record."""
    recorded = recorded_files(manifest)
    return [finding.file for finding in findings if finding.what == STRANGE and finding.file not in recorded]


def _wrong(path: Path, size: int, crc32c: int, deep: bool) -> str:
    if not path.is_file():
        return "missing"
    if path.stat().st_size != size:
        return f"{path.stat().st_size} bytes, {size} are recorded"
    if deep and file_crc32c(path) != crc32c:
        return DAMAGED
    return ""


def _strangers(store: Path, known: set[str]) -> Iterator[Finding]:
    for path in sorted(store.rglob("*")):
        name = path.relative_to(store).as_posix()
        if path.is_file() and name not in known and not name.startswith(f"{BUILDING}/"):
            yield stranger(name)


def _rows(store: Path, shard: str, array: str, file: str, record: ShardRecord, manifest: Manifest) -> list[Finding]:
    """Which rows of a damaged array fail their checksum; the whole array where none does (padding, index, counts)."""
    folder = store / SHARDS / shard
    settings = Settings.from_json(manifest.attributes["settings"])
    whole = [Finding(DAMAGED, file, shard, array)]
    try:
        arrays = {name: read_array(folder, name, settings, record) for name in ARRAYS}
        videos = read_table(folder / "videos.parquet", VIDEOS)["video_id"].to_pylist()
        firsts = [note["first_row"] for note in read_attributes(folder / ROOT)["videos"]]
        bad = list(_bad_frames(shard, arrays) if array.startswith("frames/") else _bad_views(shard, arrays, settings))
    except (InputError, OSError, ValueError, KeyError, IndexError, TypeError):
        return whole  # its metadata are damaged too, and reported by themselves
    rows = []
    for row in bad[:ROWS_NAMED]:
        if array.startswith("frames/"):
            video = int(np.searchsorted(firsts, row, "right")) - 1
        else:
            video = int(arrays["clips/video"][row // (1 + settings.views)])
        name = videos[video] if 0 <= video < len(videos) else ""
        rows.append(Finding(DAMAGED, file, shard, array, row, name))
    more = len(bad) - len(rows)
    return rows + ([Finding(f"{more} more rows are damaged", file, shard, array)] if more else []) or whole


def _bad_frames(shard: str, arrays: dict[str, np.ndarray]) -> Iterator[int]:
    stream, ends = arrays["frames/bytes"], arrays["frames/offsets"].tolist()
    for row, crc in enumerate(arrays["frames/crc32c"].tolist()):
        begin, end = ends[row : row + 2]
        if not 0 <= begin <= end <= len(stream) or frame_crc32c(shard, row, stream[begin:end].tobytes()) != crc:
            yield row


def _bad_views(shard: str, arrays: dict[str, np.ndarray], settings: Settings) -> Iterator[int]:
    clips = np.stack([arrays[f"clips/{name}"].astype(np.int64) for name in ("video", "first_row", "first_frame")], 1)
    heads = view_heads(clips, *(arrays[f"views/{name}"] for name in ("rectangle", "mirrored", "sampler", "kept")))
    heads = heads.reshape(-1, heads.shape[-1])
    columns = [arrays[f"targets/{name}"] for name in ("prior", "label", "tube", "overlap", "loc")]
    ends = arrays["targets/offsets"].tolist()
    for row, crc in enumerate(arrays["targets/crc32c"].tolist()):
        begin, end = ends[row : row + 2]
        inside = 0 <= begin <= end <= len(columns[0])
        parts = [column[begin:end].tobytes() for column in columns] if inside else []
        if not inside or view_crc32c(shard, row, heads[row].tobytes(), parts) != crc:
            yield row


def _repair_shards(
    store: Path,
    card: Card,
    root: Path,
    manifest: Manifest,
    settings: Settings,
    damaged: list[str],
    workers: int,
    executor: Executor | None,
    decoding: Decoding,
) -> list[str]:
    if not damaged:
        return []
    if card.name != settings.dataset:
        raise InputError(
            f"the store at {store} is of another dataset", found=card.name, wanted=settings.dataset,
            todo=f"repair it with --dataset {settings.dataset}",
        )  # fmt: skip
    annotations = read_annotations(card, root)
    wanted = {name: manifest.shards[name] for name in damaged}
    ids = {video_id for record in wanted.values() for video_id in record.videos}
    rows = [row for row in annotations.videos.to_pylist() if row["video_id"] in ids]
    all_ids = annotations.videos["video_id"].to_pylist()
    videos, _ = find_videos(pa.Table.from_pylist(rows, VIDEOS), card, root, "error", all_ids)
    unbuilt = {name: ShardRecord(r.split, r.videos, r.annotations) for name, r in wanted.items()}
    jobs = shard_jobs(unbuilt, videos, annotations, root, store, settings, decoding)
    mended = []
    with closing(run_jobs(list(jobs.values()), workers, executor)) as finished:
        for built in finished:
            if built.record != wanted[built.name]:
                raise InputError(
                    f"the source of shard {built.name} gives other bytes than it gave when the store was built",
                    found="another video file, other annotations, or other versions of the libraries",
                    wanted=", ".join(f"{n} {v}" for n, v in manifest.attributes["versions"].items()),
                    todo="put the source back as it was, or build another store",
                )
            place_shard(built, store)
            mended.append(f"{SHARDS}/{built.name}: built anew, to the same bytes")
    return mended


def _same(recorded: Files, written: Files) -> None:
    other = [name for name, record in written.items() if recorded.get(name) != record]
    if other:
        raise InputError(
            f"{', '.join(other)} came out with other bytes than were recorded",
            found="other versions of the libraries, perhaps",
            todo="build another store with these versions",
        )
