"""What somebody made to do harm is refused before anything is allocated, written or removed."""

import json
import resource
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_manifests.card import load_card
from data_manifests.layout import MANIFEST, MANIFEST_COPY, Settings, digest, frame_crc32c
from data_manifests.manifest import file_records, load_manifest, save_manifest
from pipeline.alignment import measure_alignment
from pipeline.annotations.mat import load_mat_variable
from pipeline.frames import open_frames
from pipeline.inspect import describe_store, find_clip
from pipeline.report import report_data
from pipeline.stored import built_shards
from pipeline.verify import repair, verify
from tests.data_manifests.parquet_bombs import BOMBS
from tests.pipeline.own_data import moving_square, plain_settings, write_video
from tests.pipeline.small_store import Here, build_small, refusal, tree


@pytest.fixture
def store(small_store: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(small_store, tmp_path / "s"))


def peak_memory() -> int:
    """Bytes, of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("path", ["../victim", "/etc/hostname", "frames/../../../victim"])
@pytest.mark.parametrize("of", ["shards", "files", "a shard's files"])
def test_a_manifest_that_names_files_outside_the_store(small_root: Path, store: Path, path: str, of: str) -> None:
    victim = store.parent / "victim"
    victim.write_text("not the store's")
    raw = json.loads((store / MANIFEST).read_bytes())
    if of == "shards":
        raw["shards"][path] = raw["shards"].pop("train-00000")
    else:
        files = raw["files"] if of == "files" else raw["shards"]["train-00000"]["files"]
        files[path] = {"size": 1, "crc32c": 1}
    raw.pop("digest")
    for name in (MANIFEST, MANIFEST_COPY):
        (store / name).write_text(json.dumps({**raw, "digest": digest(raw)}))
    before, card = tree(store), load_card(str(small_root / "own.toml"))
    calls: list[Callable[[], Any]] = [
        lambda: verify(store, deep=True),
        lambda: repair(store, (card, small_root), [], workers=0, executor=Here()),
        lambda: build_small(small_root, store),
        lambda: describe_store(store),
    ]
    for call in calls:
        assert "leads out of the store" in refusal(call)
    assert victim.read_text() == "not the store's"
    assert tree(store) == before


def resign(store: Path, shard: str) -> None:
    """Gives a shard's changed files the records that they should have: a hostile store, not a damaged one."""
    manifest = load_manifest(store)
    record = replace(manifest.shards[shard], files=file_records(store / "shards" / shard))
    save_manifest(manifest.with_shard(shard, record), store)


@pytest.mark.parametrize("part", ["attributes", "shards", "skipped", "files", "a record"])
def test_a_manifest_whose_parts_are_of_other_kinds(store: Path, part: str) -> None:
    raw = json.loads((store / MANIFEST).read_bytes())
    if part == "a record":
        next(iter(raw["files"].values()))["size"] = "1"
    else:
        raw[part] = []
    del raw["digest"]
    (store / MANIFEST).write_text(json.dumps({**raw, "digest": digest(raw)}))
    assert "is damaged\n  found: Type" in refusal(load_manifest, store)


@pytest.mark.parametrize("shape", [[10**18], [10**30], [-1], [10**10], "4", None, [5, 5]])
def test_absurd_shapes_with_a_good_checksum(store: Path, shape: object) -> None:
    for array, look in (("targets/label", describe_store), ("frames/offsets", report_data)):
        meta = store / "shards/train-00000" / array / "zarr.json"
        whole = meta.read_bytes()
        meta.write_text(json.dumps({**json.loads(whole), "shape": shape}))
        resign(store, "train-00000")
        before = peak_memory()
        assert f"{array}/c/0 does not hold the array that its metadata tell of" in refusal(look, store)
        assert peak_memory() - before < 200e6
        meta.write_bytes(whole)


@pytest.mark.parametrize("name", ["videos", "tubes"])
def test_tables_that_expand_hugely_with_a_good_checksum(small_root: Path, store: Path, name: str) -> None:
    folder = store / "shards/train-00000"
    (folder / f"{name}.parquet").write_bytes(BOMBS["rows" if name == "videos" else "boxes"][1])
    resign(store, "train-00000")
    for look in (describe_store, report_data, find_clip_of_store):
        assert f"{name}.parquet is not a table that a build makes" in refusal(look, store)
    manifest = load_manifest(store)
    save_manifest(replace(manifest, files={n: f for n, f in manifest.files.items() if "tables" not in n}), store)
    assert f"{name}.parquet is not a table that a build makes" in refusal(build_small, small_root, store)
    content = bytearray((folder / "targets/loc/c/0/0/0").read_bytes())
    content[100] ^= 1
    (folder / "targets/loc/c/0/0/0").write_bytes(content)
    assert any(found.array == "targets/loc" for found in verify(store, deep=True)), "which looks up the row's video"


def find_clip_of_store(store: Path) -> object:
    """As `inspect --clip` does."""
    return find_clip(store, "Run/v_0:2", 0)


@pytest.mark.parametrize("side", [700, 60_000])
def test_a_frame_that_is_another_size_than_its_video_with_a_good_checksum(store: Path, side: int) -> None:
    """A JPEG bomb in place of a frame: its header tells of more than there is."""
    folder = store / "shards/train-00000"
    stream = bytearray((folder / "frames/bytes/c/0").read_bytes())
    end = int.from_bytes((folder / "frames/offsets/c/0").read_bytes()[8:16], "little")
    size = stream.index(b"\xff\xc0") + 5  # of the start of frame: height, then width
    stream[size : size + 4] = struct.pack(">HH", side, side)
    (folder / "frames/bytes/c/0").write_bytes(stream)
    sums = bytearray((folder / "frames/crc32c/c/0").read_bytes())
    sums[:4] = frame_crc32c("train-00000", 0, bytes(stream[:end])).to_bytes(4, "little")
    (folder / "frames/crc32c/c/0").write_bytes(sums)
    resign(store, "train-00000")
    before = peak_memory()
    for look in (report_data, lambda store: measure_alignment(list(built_shards(store)))):
        assert "shard train-00000: frame row 0 is damaged" in refusal(look, store)
    assert peak_memory() - before < 200e6


@pytest.mark.parametrize("shape", [[10**18, 4, 4], [10**30, 4, 4], [-1, 4, 4], [1 << 63, 4, 4], "4", None])
def test_absurd_shapes_in_a_damaged_shard(store: Path, shape: object) -> None:
    """`verify` looks into a shard's arrays when one of its files is damaged."""
    folder = store / "shards/train-00000"
    meta = folder / "targets/loc/zarr.json"
    meta.write_text(json.dumps({**json.loads(meta.read_bytes()), "shape": shape}))
    resign(store, "train-00000")
    content = bytearray((folder / "targets/loc/c/0/0/0").read_bytes())
    content[100] ^= 1
    (folder / "targets/loc/c/0/0/0").write_bytes(content)
    before = peak_memory()
    (found,) = verify(store, deep=True)
    assert (found.array, found.row) == ("targets/loc", None)
    assert peak_memory() - before < 200e6


@pytest.mark.parametrize(
    ("name", "value"),
    [("K", 10**9), ("K", 0), ("views", 10**12), ("views", -1), ("stride", "1"), ("image_size", 10**6), ("grid", 10**6)],
)
def test_absurd_settings_of_a_store(small_root: Path, name: str, value: object) -> None:
    raw = json.loads(json.dumps(plain_settings(load_card(str(small_root / "own.toml"))).to_json()))
    assert Settings.from_json(raw).K == 6
    place = {"image_size": raw["priors"], "grid": raw["priors"]["layers"][0]}.get(name, raw)
    place[name] = value
    assert "are not what this version knows" in refusal(Settings.from_json, raw)


@pytest.mark.parametrize("side", [8001, 30_000, 0x7FFFFFFF])
def test_a_video_whose_header_tells_of_huge_frames(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.avi"
    write_video(path, moving_square(3), "rawvideo")
    content = bytearray(path.read_bytes())
    header = content.index(b"strf") + 8  # a BITMAPINFOHEADER: its size, then width and height
    content[header + 4 : header + 12] = struct.pack("<ii", side, side)
    path.write_bytes(content)
    before = peak_memory()
    message = refusal(lambda: list(open_frames(path)))
    assert "bomb.avi" in message
    assert side > 8001 or f"frames of {side} x {side} are refused" in message
    assert peak_memory() - before < 200e6


def test_a_matlab_file_that_takes_any_memory(tmp_path: Path) -> None:
    """A few bytes, of a struct of no fields, 200 million times: 1.6 GB."""

    def element(kind: int, content: bytes) -> bytes:
        return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)

    head = element(6, struct.pack("<II", 2, 0)) + element(5, struct.pack("<ii", 200_000_000, 1)) + element(1, b"annot")
    content = element(14, head + element(5, struct.pack("<i", 8)) + element(1, b""))
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x100) + b"IM"
    (tmp_path / "bomb.mat").write_bytes(header + content)
    message = refusal(load_mat_variable, tmp_path / "bomb.mat", "annot")
    assert "bomb.mat cannot be read" in message
    assert "MemoryError" in message


def test_a_bomb_is_named_and_leaves_nothing(small_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "d"
    shutil.copytree(small_root, root)
    (root / "videos/Run/v_3.avi").write_bytes(np.random.default_rng(0).bytes(5000))
    assert "Run/v_3.avi does not open as a video" in refusal(build_small, root, tmp_path / "s")
    assert not list((tmp_path / "s").glob(".building/*"))
