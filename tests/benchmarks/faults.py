"""Damages a store in every way that disks and people do, and kills builds; prints who noticed. `make faults`.

A fault is *silent* if a store with it opens, reads as another store would, and passes `verify --deep`. There must be none.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from data_manifests.errors import InputError
from data_manifests.layout import MANIFEST, MANIFEST_COPY
from pipeline.jobs import _start_worker
from pipeline.verify import verify
from tests.pipeline.own_data import moving_square, write_video
from tests.pipeline.small_store import VIDEOS, build_small, tree, write_dataset
from trainer.data.reader import Store

PAGE = 4096
FRAMES = "raw"
"""Of the good store. Any bytes are a picture then; a JPEG of another build mostly has another size."""


@dataclass(frozen=True)
class Caught:
    """One fault, who noticed it, and in what words."""

    fault: str
    file: str
    by: str
    message: str

    @property
    def silent(self) -> bool:
        """Nobody noticed."""
        return self.by == "SILENT"


@dataclass(frozen=True)
class Stores:
    """A good store, its files and what is read from it, and others to take wrong parts from.

    The twins are of the same settings and videos by name, number and size, with other pixels and with another class.
    """

    good: Path
    files: dict[str, int]
    content: str
    older: Path
    others: tuple[Path, ...]
    twins: tuple[Path, ...]


def prepare(folder: Path) -> Stores:
    """Builds a dataset, its store, an older state of it, stores of other settings, and its twins."""
    root = folder / "dataset"
    write_dataset(root)
    build_small(root, folder / "good", frames=FRAMES)
    build_small(root, folder / "older", frames=FRAMES, split="train")
    changed = ({"seed": 1}, {"K": 5}, {"positive_overlap": 0.6}, {"frames": "jpeg:90"})
    others = tuple(folder / f"other-{number}" for number in range(len(changed)))
    for store, settings in zip(others, changed, strict=True):
        build_small(root, store, **{"frames": FRAMES, **settings})
    good, twins = folder / "good", (folder / "other-pixels", folder / "other-class")
    for twin, change in zip(twins, (_other_pixels, _other_class), strict=True):
        theirs = Path(shutil.copytree(root, folder / f"{twin.name}-dataset"))
        change(theirs)
        build_small(theirs, twin, frames=FRAMES)
    return Stores(good, tree(good), everything(good), folder / "older", others, twins)


def _other_pixels(root: Path) -> None:
    for video, frames in VIDEOS.items():
        write_video(root / "videos" / f"{video}.avi", [255 - frame for frame in moving_square(frames)])


def _other_class(root: Path) -> None:
    boxes = root / "boxes.csv"
    boxes.write_text(boxes.read_text().replace(",0,Run,", ",0,Jump,"))


def everything(path: Path) -> str:
    """Digest of all that a training run would read: every view of every clip, its frames and targets."""
    store, digest = Store.open(path), blake2b()
    digest.update(store.priors.tobytes())
    for clip in range(store.clips):
        for view in range(1 + store.meta.views):
            sample = store.sample(clip, view)
            for part in (sample.frames, sample.rectangle, *sample.targets):
                digest.update(part.tobytes())
            digest.update(f"{sample.mirrored} {sample.video_id} {sample.first_frame}".encode())
    return digest.hexdigest()


def inject(stores: Stores, copy: Path, seed: int) -> Caught:
    """One random fault on a fresh copy, and who notices."""
    rng = random.Random(seed)
    kinds = list(FAULTS)
    kind = kinds[seed % len(kinds)]
    while True:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(stores.good, copy)
        file = FAULTS[kind](stores, copy, rng)
        if tree(copy) != stores.files:
            return _who_notices(stores, copy, kind, file)


def _who_notices(stores: Stores, copy: Path, kind: str, file: str) -> Caught:
    try:
        Store.open(copy)
    except InputError as error:
        return Caught(kind, file, "opening", str(error))
    try:
        read = everything(copy)
    except InputError as error:
        return Caught(kind, file, "reading", str(error))
    found = verify(copy, deep=True)
    if read != stores.content or not found:
        return Caught(kind, file, "SILENT", "other content was read" if read != stores.content else "")
    return Caught(kind, file, "verify --deep", str(found[0]))


Fault = Callable[[Stores, Path, random.Random], str]


def _file(copy: Path, rng: random.Random) -> Path:
    """Any file, the large ones more often: half of the faults hit data, half any file."""
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    data = [path for path in files if "/c/" in path.as_posix()]
    return rng.choice(data if rng.random() < 0.5 else files)


def _name(path: Path, copy: Path) -> str:
    return path.relative_to(copy).as_posix()


def _changed(change: Callable[[bytearray, random.Random], bytes]) -> Fault:
    def fault(stores: Stores, copy: Path, rng: random.Random) -> str:
        path = _file(copy, rng)
        path.write_bytes(change(bytearray(path.read_bytes()), rng))
        return _name(path, copy)

    return fault


def _flip(content: bytearray, rng: random.Random) -> bytes:
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return content


def _flip_used(stores: Stores, copy: Path, rng: random.Random) -> str:
    """A bit of a byte that a row's checksum covers: not of padding."""
    shards = Store.open(copy).shards
    shard = shards[rng.choice(shards.names)]
    name = rng.choice(sorted(shard.arrays.keys() - {"clips/tubes", "frames/crc32c", "targets/crc32c"}))
    array = shard.arrays[name]
    path = shard.folder / name / "c" / "/".join("0" * array.ndim)
    content = bytearray(path.read_bytes())
    content[rng.randrange(array.nbytes)] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return _name(path, copy)


def _zero_page(content: bytearray, rng: random.Random) -> bytes:
    begin = rng.randrange(-(-len(content) // PAGE)) * PAGE
    size = len(content[begin : begin + PAGE])
    return content[:begin] + bytes(size) + content[begin + size :]


def _deleted(stores: Stores, copy: Path, rng: random.Random) -> str:
    path = _file(copy, rng)
    path.unlink()
    return _name(path, copy)


def _of_its_kind(copy: Path, path: Path, rng: random.Random) -> Path:
    """Another file of the same name in its place's pattern, or any other."""
    same = [p for p in copy.rglob("*") if p.is_file() and p != path and p.parts[-3:] == path.parts[-3:]]
    return rng.choice(sorted(same)) if same else _file(copy, rng)


def _swapped(stores: Stores, copy: Path, rng: random.Random) -> str:
    one = _file(copy, rng)
    other = _of_its_kind(copy, one, rng)
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    return f"{_name(one, copy)} and {_name(other, copy)}"


def _duplicated(stores: Stores, copy: Path, rng: random.Random) -> str:
    one = _file(copy, rng)
    other = _of_its_kind(copy, one, rng)
    other.write_bytes(one.read_bytes())
    return f"{_name(one, copy)} over {_name(other, copy)}"


def _rows_swapped(stores: Stores, copy: Path, rng: random.Random) -> str:
    """Two rows of one array change places, with their checksums where the array has them."""
    shards = Store.open(copy).shards
    shard = shards[rng.choice(shards.names)]
    names = [name for name in sorted(shard.arrays) if name not in ("frames/bytes", "clips/tubes")]
    name = rng.choice(names)
    path = shard.folder / name / "c" / "/".join("0" * shard.arrays[name].ndim)
    rows = bytearray(path.read_bytes())
    size = shard.arrays[name][:1].nbytes
    one, other = (rng.randrange(len(shard.arrays[name])) * size for _ in range(2))
    rows[one : one + size], rows[other : other + size] = rows[other : other + size], rows[one : one + size]
    path.write_bytes(rows)
    return _name(path, copy)


def _shards_swapped(stores: Stores, copy: Path, rng: random.Random) -> str:
    one, other = rng.sample(sorted((copy / "shards").iterdir()), 2)
    one.rename(copy / "between")
    other.rename(one)
    (copy / "between").rename(other)
    return f"{_name(one, copy)} and {_name(other, copy)}"


def _anothers_shard(stores: Stores, copy: Path, rng: random.Random) -> str:
    shard = rng.choice(sorted((copy / "shards").iterdir()))
    other = rng.choice(stores.others)
    shutil.rmtree(shard)
    shutil.copytree(other / "shards" / shard.name, shard)
    return f"{_name(shard, copy)} of {other.name}"


def _anothers_file(stores: Stores, copy: Path, rng: random.Random) -> str:
    path, other = _file(copy, rng), rng.choice(stores.others)
    theirs = other / path.relative_to(copy)
    path.write_bytes(theirs.read_bytes())
    return f"{_name(path, copy)} of {other.name}"


def _twins(part: str) -> Fault:
    """A shard, or a folder of it, as a twin has it."""

    def fault(stores: Stores, copy: Path, rng: random.Random) -> str:
        place = rng.choice(sorted((copy / "shards").iterdir())) / part
        twin = rng.choice(stores.twins)
        shutil.rmtree(place)
        shutil.copytree(twin / place.relative_to(copy), place)
        return f"{_name(place, copy)} of {twin.name}"

    return fault


def _anothers_manifest(stores: Stores, copy: Path, rng: random.Random) -> str:
    other = rng.choice((stores.older, *stores.others))
    for name in (MANIFEST, MANIFEST_COPY)[: rng.choice((1, 2))]:
        shutil.copy(other / name, copy / name)
    return f"{MANIFEST} of {other.name}"


FAULTS: dict[str, Fault] = {
    "a flipped bit": _changed(_flip),
    "a flipped bit of a row": _flip_used,
    "cut off": _changed(lambda content, rng: content[: rng.randrange(len(content))]),
    "a zeroed page": _changed(_zero_page),
    "emptied": _changed(lambda content, rng: b""),
    "deleted": _deleted,
    "swapped": _swapped,
    "duplicated": _duplicated,
    "rows swapped": _rows_swapped,
    "shards swapped": _shards_swapped,
    "another build's shard": _anothers_shard,
    "another build's file": _anothers_file,
    "a twin's shard": _twins(""),
    "a twin's frames": _twins("frames"),
    "a twin's targets": _twins("targets"),
    "an older or another manifest": _anothers_manifest,
    "grown": _changed(lambda content, rng: content + rng.randbytes(rng.randrange(1, 9000))),
}


def kill_builds(folder: Path, kills: int, seed: int) -> tuple[int, int]:
    """Kills builds, or one of their workers, at random instants, until `kills` were killed; every store must come out equal.

    Returns:
        How many were killed, and how many stores they were killed in.
    """
    root, good = folder / "dataset", tree(folder / "good")
    rng, killed, stores, longest = random.Random(seed), 0, 0, dict.fromkeys((0, 2), 0.5)
    while killed < kills:
        store = folder / f"killed-{stores}"
        stores += 1
        for _ in range(rng.randrange(1, 5)):
            workers = rng.choice((0, 0, 2))
            took = _kill_one(root, store, workers, rng.uniform(0, longest[workers]), rng)
            killed += took is None
            longest[workers] = min(longest[workers], took or longest[workers])
        build_small(root, store, frames=FRAMES)
        if tree(store) != good:
            raise SystemExit(f"{store} differs from an undisturbed build")
        if verify(store, deep=True):
            raise SystemExit(f"{store} does not verify")
        shutil.rmtree(store)
    return killed, stores


def _kill_one(root: Path, store: Path, workers: int, after: float, rng: random.Random) -> float | None:
    """Kills a build, or one of its workers, so many seconds after it took its lock; if it ended before, how long it took."""
    process = WARM.Process(target=_build, args=(root, store, workers))
    process.start()
    while not (store / ".lock").exists() and process.is_alive():
        time.sleep(0.001)
    begin = time.monotonic()
    process.join(after)
    if not process.is_alive():
        return max(0.05, time.monotonic() - begin)
    victims = _children(process.pid or 0) if rng.random() < 0.5 else []
    with suppress(ProcessLookupError):
        os.kill(rng.choice(victims or [process.pid or 0]), signal.SIGKILL)
    process.join()
    return None


def _build(root: Path, store: Path, workers: int) -> None:
    if not workers:
        build_small(root, store, frames=FRAMES)
        return
    with (
        suppress(InputError),  # one of its workers was killed
        ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), initializer=_start_worker) as pool,
    ):
        pool.submit(os.getpid).result()  # forks them before the lock is taken, which they would hold on to
        build_small(root, store, executor=pool, frames=FRAMES)


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return [int(child) for child in children.read().split()]


WARM = multiprocessing.get_context("forkserver")
"""Where processes come from that have imported all they need."""


def _inject(task: tuple[Stores, Path, int]) -> Caught:
    stores, folder, seed = task
    return inject(stores, folder / f"copy-{os.getpid()}", seed)


def main() -> None:
    """Prints a line a fault, and fails if one was silent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=340)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    WARM.set_forkserver_preload(["pipeline.verify", "tests.pipeline.small_store", "trainer.data.reader"])
    memory = (
        "/dev/shm" if Path("/dev/shm").is_dir() else None
    )  # nobody pulls the plug: flushing to a disk tells nothing
    with tempfile.TemporaryDirectory(dir=memory) as name:
        folder = Path(name)
        stores = prepare(folder)
        tasks = [(stores, folder, arguments.seed + number) for number in range(arguments.faults)]
        with ProcessPoolExecutor(len(os.sched_getaffinity(0)), WARM) as pool:
            caught = list(pool.map(_inject, tasks, chunksize=4))
        for one in sorted(caught, key=lambda c: (c.fault, c.by)):
            print(f"{one.fault:30s} {one.by:14s} {one.file}: {one.message.partition(chr(10))[0].replace(name, '')}")
        for by in sorted({one.by for one in caught}):
            print(f"caught by {by}: {sum(one.by == by for one in caught)}")
        print(f"{len(caught)} faults, {sum(one.silent for one in caught)} silent", flush=True)
        killed, built = kill_builds(folder, arguments.kills, arguments.seed)
        print(f"{killed} kills of builds and workers in {built} stores: all equal to the undisturbed one")
    sys.exit(any(one.silent for one in caught))


if __name__ == "__main__":
    main()
