"""The reader gives what zarr and pyarrow give, and refuses what is not a whole store of this version."""

import gc
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simplejpeg
import zarr

from data_manifests.layout import ARRAYS, MANIFEST, digest, file_crc32c, frame_crc32c
from data_manifests.manifest import FileRecord, Manifest, file_records, load_manifest, save_manifest
from pipeline.decoding import encode_frame
from pipeline.frames import open_frames
from pipeline.stored import built_shards
from tests.data_manifests.parquet_bombs import BOMBS
from tests.pipeline.small_store import SHARDS, VIDEOS, VIEWS, K, build_small, refusal
from trainer.data.reader import Store


@pytest.fixture
def store(small_store: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(small_store, tmp_path / "s"))


@pytest.mark.parametrize("frames", ["jpeg:95", "raw"])
def test_samples_are_what_zarr_reads(small_root: Path, tmp_path: Path, frames: str) -> None:
    build_small(small_root, tmp_path / "s", frames=frames)
    opened = Store.open(tmp_path / "s")
    clip = 0
    for name in SHARDS:
        shard = zarr.open_group(tmp_path / "s" / "shards" / name, mode="r")
        arrays = {f"{group}/{key}": a[:] for group in shard for key, a in shard[group].arrays()}
        ids = [note["video_id"] for note in shard.attrs["videos"]]  # type: ignore[index, union-attr, call-overload]
        for local in range(len(arrays["clips/video"])):
            for view in range(1 + VIEWS):
                sample = opened.sample(clip, view)
                row = local * (1 + VIEWS) + view
                begin, end = arrays["targets/offsets"][row : row + 2]
                for key in ("prior", "label", "tube", "overlap", "loc"):
                    assert np.array_equal(getattr(sample.targets, key), arrays[f"targets/{key}"][begin:end])
                assert np.array_equal(sample.rectangle, arrays["views/rectangle"][local, view])
                assert sample.mirrored == bool(arrays["views/mirrored"][local, view])
                named = (sample.video_id, sample.first_frame, sample.view)
                assert named == (ids[arrays["clips/video"][local]], arrays["clips/first_frame"][local], view)
            offsets, first = arrays["frames/offsets"], arrays["clips/first_row"][local]
            for image, frame in zip(sample.frames, range(first, first + K), strict=True):
                encoded = arrays["frames/bytes"][offsets[frame] : offsets[frame + 1]].tobytes()
                plain = np.frombuffer(encoded, np.uint8).reshape(48, 64, 3) if frames == "raw" else None
                assert np.array_equal(image, _decoded(encoded) if plain is None else plain)
            clip += 1
    assert clip == opened.clips


def _decoded(encoded: bytes) -> np.ndarray:
    return simplejpeg.decode_jpeg(encoded, fastupsample=True)


def test_colour_of_half_size_comes_back_as_it_was_stored() -> None:
    """A decoded video repeats its colour two by two, and so does the reader: interpolating would blur it."""
    colour = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    frame = np.kron(colour, np.ones((2, 2, 1), np.uint8))
    encoded = encode_frame(frame, "jpeg:95")
    repeated, interpolated = (
        np.mean((image - frame.astype(int)) ** 2) for image in (_decoded(encoded), simplejpeg.decode_jpeg(encoded))
    )
    assert 20 * repeated < interpolated


def test_frames_of_a_video(small_root: Path, small_store: Path) -> None:
    frames = open_frames(small_root / "videos/Run/v_4.avi")
    source = [_decoded(encode_frame(frame, "jpeg:95")) for frame in frames]
    opened = Store.open(small_store)
    assert np.array_equal(opened.frames("Run/v_4", 0, 24), source)
    assert np.array_equal(opened.frames("Run/v_4", 20, 23), source[20:23])
    assert opened.frames("Run/v_4", 3, 3).shape == (0, 48, 64, 3)
    with pytest.raises(IndexError):
        opened.frames("Run/v_4", 20, 25)


def test_a_split(small_store: Path) -> None:
    whole, train, test = (Store.open(small_store, split) for split in (None, "train", "test"))
    assert whole.clips == train.clips + test.clips
    assert sorted(train.videos["video_id"].to_pylist()) == sorted(v for v in VIDEOS if v.startswith("Run"))
    assert set(test.tubes["video_id"].to_pylist()) == {"Jump/t_0", "Jump/t_1"}
    assert whole.sample(0, 0).video_id.startswith("Jump")
    assert train.sample(0, 0).video_id.startswith("Run")
    assert len({whole.content_digest, train.content_digest, test.content_digest}) == 3
    with pytest.raises(IndexError):
        train.sample(train.clips, 0)


def test_open_stores_keep_no_descriptors(small_store: Path) -> None:
    """Thousands of arrays are in a large store, and 1024 descriptors are what a process has."""
    before = len(os.listdir("/proc/self/fd"))
    stores = [Store.open(small_store) for _ in range(20)]
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    assert stores[0].clips


def test_samples_are_copies(small_store: Path) -> None:
    """What was checked must not change between the check and its use."""
    opened = Store.open(small_store)
    sample = opened.sample(0, 0)
    for part in (sample.frames, sample.rectangle, *sample.targets):
        assert not any(
            np.shares_memory(part, array)
            for name in opened.shards.names
            for array in opened.shards[name].arrays.values()
        )
    with pytest.raises(ValueError, match="read-only"):
        opened.shards[opened.shards.names[0]].arrays["targets/loc"][0] = 1


def test_no_store(tmp_path: Path) -> None:
    assert "no store at" in refusal(Store.open, tmp_path)
    assert "no store at" in refusal(Store.open, tmp_path / "absent")


def test_a_split_that_is_not_there(small_root: Path, tmp_path: Path) -> None:
    build_small(small_root, tmp_path / "s", split="train")
    assert "has no test videos" in refusal(Store.open, tmp_path / "s", "test")


def edit_manifest(store: Path, edit: Callable[[dict], None]) -> None:
    """Changes the manifest's JSON and gives it the digest that it should have."""
    raw = json.loads((store / MANIFEST).read_bytes())
    edit(raw)
    raw.pop("digest")
    (store / MANIFEST).write_text(json.dumps({**raw, "digest": digest(raw)}))


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_version(store: Path, version: object) -> None:
    edit_manifest(store, lambda raw: raw.update(format_version=version))
    message = refusal(Store.open, store)
    assert "has another format version" in message
    assert f"found: format_version {version!r}" in message


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "frames/../../../x", "a\\b", "", "a\0b"])
def test_a_manifest_that_names_files_outside_the_store(store: Path, path: str) -> None:
    edit_manifest(store, lambda raw: raw["shards"]["train-00000"]["files"].update({path: {"size": 1, "crc32c": 1}}))
    assert "leads out of the store" in refusal(Store.open, store)
    edit_manifest(store, lambda raw: raw["shards"].update({path: raw["shards"].pop("train-00000")}))
    assert "leads out of the store" in refusal(Store.open, store)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b'{"format_version": 1}', b"[" * 100_000])
def test_a_manifest_that_is_none(store: Path, content: bytes) -> None:
    (store / MANIFEST).write_bytes(content)
    assert "manifest.json is damaged" in refusal(Store.open, store)


def resign(store: Path, shard: str) -> None:
    """Gives a shard's changed files the records that they should have: a hostile store, not a damaged one."""
    manifest = load_manifest(store)
    record = replace(manifest.shards[shard], files=file_records(store / "shards" / shard))
    save_manifest(manifest.with_shard(shard, record), store)


def test_each_file_is_checked_once(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[Path] = []
    monkeypatch.setattr("data_manifests.manifest.file_crc32c", lambda path: checked.append(path) or file_crc32c(path))
    Store.open(store)
    assert len(checked) == len(set(checked)) > 3 * len(ARRAYS)


def test_an_array_that_the_manifest_lacks(store: Path) -> None:
    manifest = load_manifest(store)
    record = manifest.shards["train-00000"]
    files = {name: file for name, file in (record.files or {}).items() if name != "targets/tube/c/0"}
    save_manifest(manifest.with_shard("train-00000", replace(record, files=files)), store)
    assert "the manifest lacks" in refusal(Store.open, store)


def test_an_array_of_another_type(store: Path) -> None:
    path = store / "shards/train-00000/targets/tube/zarr.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "data_type": "int8"}))
    resign(store, "train-00000")
    message = refusal(Store.open, store)
    assert "targets/tube/c/0 does not hold the array that its metadata tell of" in message
    assert "found: int8" in message


@pytest.mark.parametrize("shape", [[10**18, 4, 4], [10**30, 4, 4], [-1, 4, 4], [20, 4, 5], [20], [20, 4, 4, 1]])
def test_absurd_shapes_are_refused_before_anything_is_allocated(store: Path, shape: list[int]) -> None:
    path = store / "shards/train-00000/targets/loc/zarr.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "shape": shape}))
    resign(store, "train-00000")
    assert "does not hold the array that its metadata tell of" in refusal(Store.open, store)


def test_an_image_bomb(store: Path) -> None:
    """A small JPEG of a huge picture in place of a frame, with a good checksum."""
    folder = store / "shards/train-00000"
    opened = Store.open(store, "train")
    first = opened.shards[opened.shards.names[0]].arrays["frames/offsets"][:2].tolist()
    bomb = simplejpeg.encode_jpeg(np.zeros((900, 1400, 3), np.uint8), quality=1)[: first[1]]
    stream = bytearray((folder / "frames/bytes/c/0").read_bytes())
    stream[: len(bomb)] = bomb
    (folder / "frames/bytes/c/0").write_bytes(stream)
    crcs = bytearray((folder / "frames/crc32c/c/0").read_bytes())
    crcs[:4] = frame_crc32c("train-00000", 0, bytes(stream[: first[1]])).to_bytes(4, "little")
    (folder / "frames/crc32c/c/0").write_bytes(crcs)
    resign(store, "train-00000")
    assert "frames, row 0 is damaged" in refusal(Store.open(store, "train").frames, "Run/v_0", 0, 1)


def resign_root(store: Path, name: str) -> None:
    """Gives a changed file of the root the record that it should have."""
    manifest = load_manifest(store)
    record = FileRecord((store / name).stat().st_size, file_crc32c(store / name))
    save_manifest(replace(manifest, files={**manifest.files, name: record}), store)


@pytest.mark.parametrize(
    ("attributes", "told"),
    [({"settings": {"colour": "yes"}}, "are not what this version knows"), ({"format_version": 2}, "another format version")],
)  # fmt: skip
def test_a_root_of_another_version(store: Path, attributes: dict, told: str) -> None:
    raw = json.loads((store / "zarr.json").read_bytes())
    raw["attributes"] |= attributes
    (store / "zarr.json").write_text(json.dumps(raw))
    resign_root(store, "zarr.json")
    assert told in refusal(Store.open, store)


def test_priors_that_are_not_the_settings(store: Path) -> None:
    place = store / "priors/c/0/0"
    place.write_bytes(place.read_bytes()[:-16])
    resign_root(store, "priors/c/0/0")
    assert "does not hold the priors of the settings" in refusal(Store.open, store)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"width": 2**30}, "frames of 1073741824 x 48, of Run/v_0"),
        ({"video_id": "../../victim"}, "the path '../../victim' leads out"),
        ({"video_id": "/victim"}, "the path '/victim' leads out"),
    ],
)
def test_videos_that_no_build_makes(store: Path, changed: dict[str, object], told: str) -> None:
    """Memory is made for a clip's frames before the first is looked at; an evaluation names its files by video."""
    place = store / "shards/train-00000/videos.parquet"
    table = pq.read_table(place)
    rows = table.to_pylist()
    pq.write_table(pa.Table.from_pylist([rows[0] | changed, *rows[1:]], table.schema), place)
    resign(store, "train-00000")
    assert told in refusal(Store.open, store)


@pytest.mark.parametrize(
    ("place", "bomb"),
    [
        ("shards/train-00000/videos.parquet", "rows"),
        ("tables/videos.parquet", "a long text"),
        ("tables/tubes.parquet", "boxes"),
    ],
)
def test_tables_that_expand_hugely(store: Path, place: str, bomb: str) -> None:
    (store / place).write_bytes(BOMBS[bomb][1])
    resign(store, "train-00000")
    resign_root(store, "tables/videos.parquet")
    resign_root(store, "tables/tubes.parquet")
    assert f"{place} is not a table that a build makes" in refusal(read_tables, store)


def read_tables(store: Path) -> object:
    """Of the root, after those of the shards."""
    opened = Store.open(store)
    return opened.videos, opened.tubes


@pytest.mark.parametrize("name", ["videos", "tubes"])
def test_a_table_that_is_replaced_after_opening(store: Path, name: str) -> None:
    """It is read when it is asked for, perhaps hours later."""
    opened, place = Store.open(store), store / "tables" / f"{name}.parquet"
    place.write_bytes(place.read_bytes()[:-1] + b"?")
    assert f"{name}.parquet is damaged" in refusal(getattr, opened, name)


def test_an_unfinished_store(store: Path) -> None:
    manifest: Manifest = load_manifest(store)
    save_manifest(manifest.with_shard("train-00001", replace(manifest.shards["train-00001"], files=None)), store)
    message = refusal(Store.open, store)
    assert "is not finished" in message
    assert "1 of 3 shards are to be built" in message


def test_of_many_shards_a_few_are_open_at_a_time(
    small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is damaged is refused when its shard is opened, which is then no longer at the start."""
    whole = Store.open(small_store)
    expected = [whole.sample(clip, 1) for clip in range(whole.clips)]
    monkeypatch.setattr("trainer.data.shard._room", 0)
    monkeypatch.setattr("trainer.data.shard.LEAST_OPEN", 1)
    opened = Store.open(small_store)
    assert opened.shards._open.cache_info().currsize == 0
    for turn in (1, -1):
        for clip, before in list(enumerate(expected))[::turn]:
            sample = opened.sample(clip, 1)
            assert np.array_equal(sample.frames, before.frames)
            assert np.array_equal(sample.targets.loc, before.targets.loc)
            assert opened.shards._open.cache_info().currsize == 1
    store = Path(shutil.copytree(small_store, tmp_path / "store"))
    damaged = store / "shards" / opened.shards.names[-1] / "videos.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    opened = Store.open(store)
    opened.sample(0, 0)
    assert "videos.parquet is damaged" in refusal(opened.sample, opened.clips - 1, 0)


def test_stores_of_a_process_share_the_room_for_open_shards(small_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    monkeypatch.setattr("trainer.data.shard._room", 4)
    monkeypatch.setattr("trainer.data.shard.LEAST_OPEN", 1)
    first, second = Store.open(small_store), Store.open(small_store)
    sizes = [store.shards._open.cache_info().maxsize for store in (first, second)]
    assert sizes == [3, 1]
    del first, second
    gc.collect()
    third = Store.open(small_store)
    assert third.shards._open.cache_info().currsize == 3


def test_a_shard_that_the_manifest_does_not_describe(small_store: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(small_store, tmp_path / "store"))
    manifest = load_manifest(store)
    record = manifest.shards["train-00000"]
    for other in (replace(record, clips=record.clips + 1), replace(record, videos=record.videos[::-1])):
        save_manifest(manifest.with_shard("train-00000", other), store)
        assert "is not the shard that was recorded" in refusal(Store.open, store)


@pytest.mark.parametrize(
    ("where", "value", "told"),
    [
        ("", {}, "train-00000/zarr.json is not what a build makes"),
        ("", [], "train-00000/zarr.json is not what a build makes"),
        ("attributes", [1], "train-00000/zarr.json is not what a build makes"),
        ("attributes shard", ["train-00000"], "is a shard of another store or place"),
        ("attributes settings_digest", None, "is a shard of another store or place"),
        ("attributes videos", None, "holds what no build makes"),
        ("attributes videos", [], "holds what no build makes"),
        ("attributes videos", [{}, {}, {}], "holds what no build makes"),
        ("attributes videos 1 first_row", 19, "Run/v_1 from row 19, Run/v_1 is there from row 20"),
        ("attributes videos 1 first_row", "20", "Run/v_1 from row 20, Run/v_1 is there from row 20"),
        ("attributes videos 1 video_id", "Run/v_2", "Run/v_2 from row 20, Run/v_1 is there from row 20"),
        ("attributes videos 1 rules", 1, "holds what no build makes"),
    ],
)
def test_attributes_that_no_build_makes(store: Path, where: str, value: object, told: str) -> None:
    """With good checksums, for who trains and for who looks."""
    path = store / "shards/train-00000/zarr.json"
    holder = {"": json.loads(path.read_bytes())}
    place: Any = holder
    *above, last = [int(key) if key.isdigit() else key for key in ("", *where.split())]
    for key in above:
        place = place[key]
    place[last] = value
    path.write_text(json.dumps(holder[""]))
    resign(store, "train-00000")
    assert told in refusal(Store.open, store)
    assert told in refusal(lambda: [shard.videos for shard in built_shards(store)])


@pytest.mark.parametrize("place", ["zarr.json", "shards/train-00000/zarr.json"])
def test_attributes_that_nest_endlessly(store: Path, place: str) -> None:
    (store / place).write_text("[" * 100_000)
    resign(store, "train-00000")
    resign_root(store, "zarr.json")
    assert f"{place} is not what a build makes" in refusal(Store.open, store)


@pytest.mark.parametrize("array", sorted(ARRAYS.keys() - {"frames/bytes"}))
def test_an_array_shorter_than_the_others(store: Path, array: str) -> None:
    path = store / "shards/train-00000" / array / "zarr.json"
    told = json.loads(path.read_bytes())
    rows = told["shape"][0]
    path.write_text(json.dumps({**told, "shape": [rows - 1, *told["shape"][1:]]}))
    resign(store, "train-00000")
    message = refusal(Store.open, store)
    assert "train-00000 is not the shard that was recorded" in message
    assert f"found: {rows - 1} rows of {array}" in message
    assert f"wanted: {rows}" in message
    assert "is not the shard that was recorded" in refusal(lambda: [shard[array] for shard in built_shards(store)])


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"videos": [[1]]}, "manifest.json is damaged"),
        ({"clips": "42"}, "manifest.json is damaged"),
        ({"frames": 1.5}, "manifest.json is damaged"),
        ({"split": "test"}, "is not the shard that was recorded"),
        ({"frames": 62}, "is not the shard that was recorded"),
        ({"targets": 1}, "is not the shard that was recorded"),
    ],
)
def test_a_manifest_that_tells_of_another_shard(store: Path, changed: dict[str, object], told: str) -> None:
    """With a good digest. Test videos would be trained on, if it said so."""
    edit_manifest(store, lambda raw: raw["shards"]["train-00000"].update(changed))
    assert told in refusal(Store.open, store)
