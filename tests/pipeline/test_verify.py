"""What is wrong is named down to the row and the video; a repair gives the same bytes, or refuses."""

import fcntl
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from data_manifests.card import load_card
from data_manifests.errors import InputError
from data_manifests.layout import MANIFEST, MANIFEST_COPY, TABLES, digest
from data_manifests.manifest import load_manifest
from pipeline.__main__ import cli
from pipeline.build import only_build
from pipeline.verify import FOREIGN, STRANGE, Finding, repair, verify
from tests.pipeline.small_store import SHARDS, Here, build_small, refusal, tree
from trainer.data.reader import Store


@pytest.fixture
def store(small_store: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(small_store, tmp_path / "s"))


def flip(path: Path, at: int) -> None:
    """One bit."""
    content = bytearray(path.read_bytes())
    content[at] ^= 16
    path.write_bytes(content)


def mend(store: Path, root: Path) -> list[str]:
    """Deep verification, and repair of what it finds."""
    card = load_card(str(root / "own.toml"))
    return repair(store, (card, root), verify(store, deep=True), workers=1, executor=Here())


def test_a_whole_store(store: Path) -> None:
    assert verify(store) == verify(store, deep=True) == []


def test_a_bit_of_a_frame(store: Path, small_root: Path, small_store: Path) -> None:
    shard = Store.open(store).shards["train-00000"]
    row = 43
    flip(shard.folder / "frames/bytes/c/0", int(shard.arrays["frames/offsets"][row]) + 100)
    assert verify(store) == []
    file = "shards/train-00000/frames/bytes/c/0"
    found = verify(store, deep=True)
    assert found == [
        Finding("its checksum does not fit the manifest", file, "train-00000", "frames/bytes", row, "Run/v_2")
    ]
    assert str(found[0]) == f"{file}, row 43: its checksum does not fit the manifest (video Run/v_2)"
    assert mend(store, small_root) == ["shards/train-00000: built anew, to the same bytes"]
    assert tree(store) == tree(small_store)


def test_a_bit_of_a_target(store: Path, small_root: Path, small_store: Path) -> None:
    shard = Store.open(store).shards["test-00000"]
    row = 20
    flip(
        shard.folder / "targets/loc/c/0/0/0",
        int(shard.arrays["targets/offsets"][row]) * shard.arrays["targets/loc"][0].nbytes,
    )
    found = verify(store, deep=True)
    assert [(f.array, f.row, f.video) for f in found] == [("targets/loc", row, "Jump/t_0")]
    mend(store, small_root)
    assert tree(store) == tree(small_store)


def test_many_rows(store: Path) -> None:
    path = store / "shards/train-00000/frames/bytes/c/0"
    path.write_bytes(bytes(path.stat().st_size))
    found = verify(store, deep=True)
    assert len(found) == 21
    assert found[-1].what == "43 more rows are damaged"


def test_padding_that_no_row_covers(store: Path) -> None:
    path = store / "shards/train-00000/targets/prior/c/0"
    flip(path, path.stat().st_size // 2)
    assert [(f.array, f.row) for f in verify(store, deep=True)] == [("targets/prior", None)]


@pytest.mark.parametrize(
    "name",
    [
        "zarr.json", "priors/c/0/0", "tables/tubes.parquet", "shards/train-00001/zarr.json",
        "shards/train-00001/videos.parquet", "shards/test-00000/views/zarr.json", MANIFEST, MANIFEST_COPY,
    ],
)  # fmt: skip
@pytest.mark.parametrize("how", ["missing", "short", "flipped"])
def test_small_files(store: Path, small_root: Path, small_store: Path, name: str, how: str) -> None:
    path = store / name
    if how == "missing":
        path.unlink()
    elif how == "short":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        flip(path, path.stat().st_size // 2)
    assert [f.file for f in verify(store)] == [name]
    if name != MANIFEST_COPY:
        refusal(Store.open, store)
    mend(store, small_root)
    assert tree(store) == tree(small_store)


def test_what_is_no_shards_is_mended_without_the_source(store: Path, small_store: Path) -> None:
    flip(store / MANIFEST, 400)
    (store / "tables/tubes.parquet").unlink()
    (store / "priors/c/0/0").write_bytes(b"")
    (store / "shards/train-00000/notes").write_text("in nobody's way")
    repair(store, None, verify(store, deep=True), workers=1, executor=Here())
    assert tree(store) == tree(small_store)
    (store / "priors/c/0/0").write_bytes(b"")
    flip(store / "shards/train-00001/zarr.json", 100)
    before = tree(store)
    told = refusal(repair, store, None, verify(store, deep=True), workers=1, executor=Here())
    assert "are to be built again" in told
    assert "train-00001" in told
    assert "add --dataset and --root" in told
    assert tree(store) == before


def test_a_manifest_of_another_format_version(store: Path, small_store: Path) -> None:
    """With a good digest: another program's. Beside a copy that we know it is damage, alone it is refused."""
    content = json.loads((store / MANIFEST).read_bytes())
    body = {name: part for name, part in content.items() if name != "digest"} | {"format_version": 2}
    (store / MANIFEST).write_text(json.dumps({**body, "digest": digest(body)}))
    assert [str(finding) for finding in verify(store)] == ["manifest.json: format_version 2"]
    shutil.copy(store / MANIFEST, store / MANIFEST_COPY)
    assert "has another format version" in refusal(verify, store)


def test_a_whole_shard_is_gone(store: Path, small_root: Path, small_store: Path) -> None:
    shutil.rmtree(store / "shards" / "train-00001")
    assert {f.shard for f in verify(store)} == {"train-00001"}
    mend(store, small_root)
    assert tree(store) == tree(small_store)


def test_an_older_manifest(store: Path, small_root: Path, small_store: Path, tmp_path: Path) -> None:
    build_small(small_root, tmp_path / "older", split="train")
    shutil.copy(tmp_path / "older" / MANIFEST, store / MANIFEST)
    assert next(str(f) for f in verify(store)) == "manifest.json: older than its copy"
    assert "is older than its copy" in refusal(build_small, small_root, store)
    refusal(Store.open, store)
    mend(store, small_root)
    assert tree(store) == tree(small_store)


def test_files_that_are_not_the_stores(store: Path, small_root: Path, small_store: Path) -> None:
    shutil.copytree(store / "shards" / "train-00000" / "views", store / "shards" / "train-00009" / "views")
    (store / "shards" / "train-00000" / "frames" / "bytes" / "c" / "1").write_bytes(b"more")
    found = verify(store)
    assert len(found) == 10
    assert {f.what for f in found} == {"not the store's: no record names it"}
    Store.open(store)
    mend(store, small_root)
    assert tree(store) == tree(small_store)


def test_a_shard_that_was_built_while_verify_read_is_not_removed(small_root: Path, tmp_path: Path, small_store) -> None:
    store = tmp_path / "s"
    build_small(small_root, store, split="train")
    (store / "notes.txt").write_text("mine")
    (store / "shards" / "left-behind").write_text("?")
    seen = verify(store, deep=True)
    assert [finding.what for finding in seen] == [FOREIGN, STRANGE]
    seen += [Finding(STRANGE, f"shards/test-00000/{name}") for name in ("zarr.json", "videos.parquet")]
    build_small(small_root, store)
    repair(store, (load_card(str(small_root / "own.toml")), small_root), seen, workers=1, executor=Here())
    assert (store / "notes.txt").read_text() == "mine", "no part of a store: somebody's"
    (store / "notes.txt").unlink()
    assert tree(store) == tree(small_store)


def test_a_build_at_work_is_no_damage(store: Path) -> None:
    """It places a shard, and records it in its own time."""
    (store / "shards" / "train-00009").mkdir()
    (store / "shards" / "train-00009" / "zarr.json").write_text("{}")
    with only_build(store):
        assert verify(store) == []
    assert [finding.what for finding in verify(store)] == [STRANGE]


def test_a_verify_that_looks_whether_a_build_is_at_work_stops_none(store: Path, small_root: Path) -> None:
    (store / ".lock").touch()
    with open(store / ".lock") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        threading.Timer(0.05, fcntl.flock, (held, fcntl.LOCK_UN)).start()
        build_small(small_root, store)


def test_both_manifests_are_damaged(store: Path) -> None:
    flip(store / MANIFEST, 300)
    flip(store / MANIFEST_COPY, 300)
    assert "manifest.copy.json is damaged" in refusal(verify, store)


def test_another_source_is_refused(store: Path, small_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "d"
    shutil.copytree(small_root, root)
    shutil.copy(root / "videos/Run/v_3.avi", root / "videos/Run/v_4.avi")
    flip(store / "shards/train-00001/frames/bytes/c/0", 100)
    before = tree(store)
    message = refusal(mend, store, root)
    assert "gives other bytes" in message or "ends before its tube" in message
    assert tree(store) == before
    (root / "boxes.csv").write_text((root / "boxes.csv").read_text().replace("Run/v_4,0,Run,9,", "Run/v_4,0,Run,99,"))
    assert refusal(mend, store, root)


def test_an_unfinished_store(small_root: Path, tmp_path: Path) -> None:
    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_small(small_root, tmp_path / "s", progress=stop)
    found = verify(tmp_path / "s")
    assert {f.what for f in found} == {"planned, not built: run its build again"}
    unbuilt = {f"shards/{name}" for name in load_manifest(tmp_path / "s").unfinished}
    assert len(unbuilt) == len(SHARDS) - 1
    assert {f.file for f in found} == unbuilt | set(TABLES.values())


def test_progress_covers_every_byte(store: Path) -> None:
    steps: list[tuple[int, int]] = []
    verify(store, deep=True, progress=lambda *step: steps.append(step))
    assert sum(done for done, _ in steps) == steps[0][1]
    files = [p for p in store.rglob("*") if p.is_file() and "manifest" not in p.name]
    assert steps[0][1] == np.sum([p.stat().st_size for p in files])


def test_what_is_somebodys_is_told_of_and_is_no_damage(store: Path) -> None:
    (store / ".DS_Store").write_bytes(b"Bud1")
    told = CliRunner().invoke(cli, ["verify", str(store), "--deep"])
    assert told.exit_code == 0, told.output
    assert ".DS_Store: no part of a store lies here" in told.output
    next(store.glob("shards/*/frames/bytes/c/0")).unlink()
    told = CliRunner().invoke(cli, ["verify", str(store)])
    assert isinstance(told.exception, InputError)
    assert "1 findings" in told.exception.found
