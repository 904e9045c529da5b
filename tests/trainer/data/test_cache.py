"""A store on a real S3 server reads as the local one, whatever happens to the cache; and the cache keeps its bounds."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from time import sleep

import pytest
import s3fs

from data_manifests.layout import MANIFEST, digest
from data_manifests.manifest import load_manifest
from data_manifests.object_store import ObjectStore
from pipeline.inspect_command import describe_place
from pipeline.upload import upload
from pipeline.verify_remote import verify_remote
from tests.pipeline.small_store import build_small, refusal, tree
from tests.s3_server import put_bytes
from trainer.data.cache import ShardCache
from trainer.data.cached import open_place, splits_at
from trainer.data.reader import Store
from trainer.place import Remote

GB = 10**9


@pytest.fixture(scope="module")
def url(s3: str, small_store: Path) -> str:
    """Of the small store; never change it."""
    upload(small_store, ObjectStore(f"{s3}/small"))
    return f"{s3}/small"


def same(here: Store, there: Store) -> bool:
    """Whether two stores hold the same clips and frames."""
    assert here.content_digest == there.content_digest
    assert here.clips == there.clips
    assert here.videos == there.videos
    for clip in range(0, here.clips, 7):
        ours, theirs = here.sample(clip, clip % 3), there.sample(clip, clip % 3)
        if (ours.frames != theirs.frames).any() or (ours.targets.loc != theirs.targets.loc).any():
            return False
    return True


def test_ranks_and_workers_fetch_every_shard_once(
    url: str, small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched, real = [], s3fs.S3FileSystem._get_file

    async def counted(self: object, path: str, *args: object, **kwargs: object) -> None:
        fetched.append(path)
        await real(self, path, *args, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "_get_file", counted)
    place = Remote(url, tmp_path / "cache", GB)
    assert splits_at(place) == ["test", "train"]
    assert not fetched
    with ThreadPoolExecutor(4) as ranks:
        stores = list(ranks.map(lambda _: open_place(place, "train"), range(4)))
    assert all(same(store, Store.open(small_store, "train")) for store in stores)
    assert len(fetched) == len(set(fetched))
    assert not any("test-00000" in path for path in fetched)
    assert same(open_place(place), Store.open(small_store))
    assert len(fetched) == len(set(fetched)) == len(tree(small_store)) - 2  # all but the manifest and its copy


@pytest.mark.parametrize("split", ["train", "test", None])
def test_an_unfinished_store(s3: str, small_store: Path, tmp_path: Path, split: str | None) -> None:
    """As while its build puts one shard after another: nothing is fetched of it."""
    remote, whole = ObjectStore(f"{s3}/unfinished"), load_manifest(small_store)
    unbuilt = whole.with_shard("train-00001", replace(whole.shards["train-00001"], files=None))
    remote.put_manifest(replace(unbuilt, files={n: f for n, f in whole.files.items() if "tables" not in n}))
    message = refusal(open_place, Remote(remote.url, tmp_path / "cache", GB), split)
    assert f"the store at {remote.url} is not finished" in message
    assert "1 of 3 shards are to be built" in message
    assert not list((tmp_path / "cache").rglob("*.json"))


def test_killed_while_it_fetches(url: str, small_store: Path, tmp_path: Path) -> None:
    place = Remote(url, tmp_path / "cache", GB)
    command = [sys.executable, "-m", "tests.trainer.data.killed_fetch", url, str(place.cache), "6"]
    killed = subprocess.run(command, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list(place.cache.rglob(".fetching"))
    assert same(open_place(place), Store.open(small_store))
    assert not list(place.cache.rglob(".fetching"))


def test_a_damaged_cache_is_fetched_again(
    url: str, small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Remote(url, tmp_path / "cache", GB)
    opened = open_place(place, "test")
    shard = opened.path / "shards" / "test-00000"
    capsys.readouterr()
    for file in ("frames/bytes/c/0", "targets/loc/c/0/0/0"):
        content = bytearray((shard / file).read_bytes())
        content[:2000] = bytes(2000)
        (shard / file).write_bytes(content)
        assert same(opened, Store.open(small_store, "test"))
        told = capsys.readouterr().err
        assert f"{shard / file} is damaged (its checksum does not fit the manifest); it is fetched again" in told
        assert "fetching" not in told
    (opened.path / "tables" / "tubes.parquet").write_bytes(b"")
    assert opened.tubes == Store.open(small_store, "test").tubes
    assert "tubes.parquet has another size" in capsys.readouterr().err
    (shard / "videos.parquet").write_bytes(b"")
    (opened.path / "tables" / "tubes.parquet").unlink()
    (opened.path / "manifest.json").write_text("{")
    assert same(open_place(place, "test"), Store.open(small_store, "test"))
    told = capsys.readouterr().err
    assert "videos.parquet has another size" in told
    assert "tubes.parquet is missing" in told


def test_who_opens_it_while_another_mends_a_shard_waits_for_that(
    url: str, small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Remote(url, tmp_path / "cache", GB)
    mending = ShardCache(place)
    shard = mending.fetch("test") / "shards" / "test-00000"
    real, calls = ShardCache.fetch, []

    def fetch(self: ShardCache, split: str | None) -> Path:
        calls.append(split)
        folder = real(self, split)
        if len(calls) == 1:
            (shard / "videos.parquet").write_bytes(b"")
            mender = Thread(target=mending.mend, args=("test-00000",))
            monkeypatch.setattr(ObjectStore, "get", lambda *at: (removed.set(), sleep(0.3), get(*at)))
            mender.start()
            assert removed.wait(10)
        return folder

    removed, get = Event(), ObjectStore.get
    monkeypatch.setattr(ShardCache, "fetch", fetch)
    assert same(open_place(place, "test"), Store.open(small_store, "test"))
    assert len(calls) == 2


def test_what_arrives_damaged_is_refused(s3: str, small_root: Path, tmp_path: Path) -> None:
    url, local = f"{s3}/rotten", tmp_path / "local"
    build_small(small_root, local, split="test")
    upload(local, ObjectStore(url))
    frames = "shards/test-00000/frames/bytes/c/0"
    put_bytes(url, frames, bytes((local / frames).stat().st_size))
    place = Remote(url, tmp_path / "cache", GB)
    assert f"{url}/{frames} is damaged, or was on its way here" in refusal(open_place, place)
    assert not list(place.cache.rglob("frames"))
    assert "no store at" in refusal(open_place, Remote(f"{s3}/nothing", tmp_path / "cache", GB))


def test_an_object_larger_than_it_should_be_is_not_fetched(
    s3: str, small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, local = f"{s3}/bloated", tmp_path / "local"
    build_small(small_root, local, split="test")
    upload(local, ObjectStore(url))
    put_bytes(url, "shards/test-00000/targets/prior/c/0", bytes(1 << 20))
    fetched: list[str] = []
    get = ObjectStore.get
    monkeypatch.setattr(ObjectStore, "get", lambda self, names, into: (fetched.extend(names), get(self, names, into)))
    place = Remote(url, tmp_path / "cache", GB)
    assert "targets/prior/c/0 is damaged\n  found: 1048576 bytes" in refusal(open_place, place)
    assert fetched
    assert not [name for name in fetched if name.startswith("shards/")]


def test_a_manifest_that_names_files_outside_the_cache(s3: str, small_store: Path, tmp_path: Path) -> None:
    raw = json.loads((small_store / MANIFEST).read_bytes())
    raw["files"]["../../victim"] = {"size": 1, "crc32c": 1}
    raw.pop("digest")
    put_bytes(f"{s3}/hostile", MANIFEST, json.dumps({**raw, "digest": digest(raw)}).encode())
    assert "leads out of the store" in refusal(open_place, Remote(f"{s3}/hostile", tmp_path / "cache", GB))
    assert "leads out of the store" in refusal(describe_place, f"{s3}/hostile", motion=False, as_json=False)
    assert "leads out of the store" in refusal(verify_remote, ObjectStore(f"{s3}/hostile"), deep=True)
    assert not (tmp_path / "cache").exists()


def test_the_cache_keeps_its_bounds(
    s3: str, url: str, small_root: Path, small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = tmp_path / "local"
    build_small(small_root, local, split="test", seed=5)
    upload(local, ObjectStore(f"{s3}/other"))
    records = load_manifest(small_store).shards
    test = sum(file.size for file in (records["test-00000"].files or {}).values())
    room = test + 300_000  # for the priors, the tables and the manifest too
    small, other = (Remote(place, tmp_path / "cache", room) for place in (url, f"{s3}/other"))
    message = refusal(open_place, small, "train")
    assert "is too small for" in message
    reading = open_place(small, "test")
    assert "is full of what is being read" in (message := refusal(open_place, other))
    assert "GB, 0.00 of them of this store" in message
    assert same(reading, Store.open(small_store, "test"))
    gone = reading.path
    del reading
    mended = open_place(other)
    assert same(mended, Store.open(local))
    assert not gone.exists()
    real, held = ObjectStore.get, []

    def fetch(self: ObjectStore, names: list[str], folder: Path) -> None:
        real(self, names, folder)
        held.append(sum(path.stat().st_size for path in small.cache.rglob("*") if path.is_file()))

    monkeypatch.setattr(ObjectStore, "get", fetch)
    frames = mended.path / "shards/test-00000/frames/bytes/c/0"
    frames.write_bytes(bytes(frames.stat().st_size))
    assert same(mended, Store.open(local))
    assert 0 < held[0] <= room


def test_every_version_has_a_place_of_its_own(s3: str, small_root: Path, tmp_path: Path) -> None:
    local, remote = tmp_path / "local", ObjectStore(f"{s3}/growing")
    build_small(small_root, local, split="test")
    upload(local, remote)
    place = Remote(remote.url, tmp_path / "cache", GB)
    before = open_place(place)
    remote.put_manifest(replace(load_manifest(local), skipped={"Run/none": "not there"}))
    after = open_place(place)
    assert after.path != before.path
    assert same(before, Store.open(local))
    assert same(after, Store.open(local))
