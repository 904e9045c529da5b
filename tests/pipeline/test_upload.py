"""Stores on a real S3 server: what is there is the local store, whole, or a store that says what it lacks."""

import json
from pathlib import Path

import pytest
import s3fs
from click.testing import CliRunner, Result

from data_manifests.layout import MANIFEST, MANIFEST_COPY
from data_manifests.manifest import Manifest, load_manifest
from data_manifests.object_store import ObjectStore
from pipeline.__main__ import cli
from pipeline.upload import upload
from tests.pipeline.small_store import build_small, refusal, tree
from tests.s3_server import fetched, put_bytes

FRAMES = "shards/test-00000/frames/bytes/c/0"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_the_command_line_builds_and_verifies(s3: str, small_root: Path, tmp_path: Path) -> None:
    url, scratch = f"{s3}/built", tmp_path / "scratch"
    build = [
        "build",
        "--dataset",
        small_root / "own.toml",
        "--root",
        small_root,
        "--store",
        url,
        "--views",
        0,
        "--clip-length",
        4,
        "--split",
        "test",
    ]
    assert "--scratch" in str(run(*build).exception)
    build_small(small_root, scratch, split="test", views=0)  # what is in the scratch folder is not built again
    first = run(*build, "--scratch", scratch)
    assert first.exit_code == 0, first.exception
    assert f"uploaded 1 shard: {url}" in first.output
    assert tree(fetched(url, tmp_path / "copy")) == tree(scratch)
    assert f"nothing to upload: {url}" in run(*build, "--scratch", scratch).output
    assert "was not built from this scratch folder" in str(run(*build, "--scratch", tmp_path / "other").exception)
    assert not (tmp_path / "other").exists()
    assert "nothing wrong" in run("verify", url, "--deep").output


def test_a_store_at_a_url_is_inspected(s3: str, small_store: Path, tmp_path: Path) -> None:
    """As in its folder; its frames are fetched for a picture only."""
    url, remote = f"{s3}/inspected", ObjectStore(f"{s3}/inspected")
    assert "no store at" in str(run("inspect", url).exception)
    upload(small_store, remote)
    local = run("inspect", small_store, "--json", "--no-motion")
    remote.remove([FRAMES])
    there = json.loads(run("inspect", url, "--json").output)
    assert there.pop("health") != []
    assert there == {name: value for name, value in json.loads(local.output).items() if name != "health"}
    for what in (("--clip", "Run/v_1:2"), ("--video", "Run/v_1")):
        for place, picture in ((url, "there.png"), (small_store, "here.png")):
            drawn = run("inspect", place, *what, "--png", tmp_path / picture)
            assert drawn.exit_code == 0, drawn.exception
        assert (tmp_path / "there.png").read_bytes() == (tmp_path / "here.png").read_bytes()
    assert "has no video 'Run/none'" in str(run("inspect", url, "--video", "Run/none", "--png", "x.png").exception)
    assert "--scratch" in str(run("inspect", url, "--browse").exception)


def test_the_page_of_a_store_at_a_url_is_that_of_its_folder(
    s3: str, small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the frames, those alone are fetched that are shown or measured."""
    url, remote = f"{s3}/reported", ObjectStore(f"{s3}/reported")
    upload(small_store, remote)
    asked, real = [], ObjectStore.get
    monkeypatch.setattr(ObjectStore, "get", lambda self, names, to: asked.extend(names) or real(self, names, to))
    monkeypatch.chdir(tmp_path)
    assert "report: reported.html" in run("report", url).output
    run("report", small_store, "-o", "here.html")
    assert Path("reported.html").read_bytes() == Path("here.html").read_bytes()
    assert len(asked) == len(set(asked)) > 10
    assert not [name for name in asked if "frames/bytes/c" in name]
    content = bytearray((small_store / FRAMES).read_bytes())
    content[40] ^= 1
    put_bytes(url, FRAMES, bytes(content))
    assert "test-00000: frame row 0 is damaged" in str(run("report", url, "-o", "damaged.html").exception)
    assert not Path("damaged.html").exists()


def test_puts_that_fail(
    s3: str, small_root: Path, small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every attempt goes on from the last one, and never is a shard recorded that is not whole."""
    scratch, remote = tmp_path / "scratch", ObjectStore(f"{s3}/failing")
    left, real = [0], s3fs.S3FileSystem._put_file

    async def failing(*args: object, **kwargs: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(5, "connection lost")
        await real(*args, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "_put_file", failing)
    build_small(small_root, scratch, split="test")
    for puts, state in ((0, None), (30, (0, 1))):
        left[0] = puts
        assert "connection lost" in refusal(upload, scratch, remote)
        assert _built_and_planned(remote) == state
    left[0] = 1000
    assert upload(scratch, remote) == 1
    assert _built_and_planned(remote) == (1, 0)
    build_small(small_root, scratch, split="train")
    per_shard = len(load_manifest(scratch).shards["train-00000"].files or {})
    for puts, state in ((30, (1, 2)), (per_shard + 30, (2, 1)), (per_shard + 3, (3, 0))):
        left[0] = puts
        assert "connection lost" in refusal(upload, scratch, remote)
        assert _built_and_planned(remote) == state
    assert remote.known_manifest().lacks == "the tables"
    left[0] = 1000
    assert upload(scratch, remote) == 0
    assert tree(fetched(remote.url, tmp_path / "copy")) == tree(small_store)


def _built_and_planned(remote: ObjectStore) -> tuple[int, int] | None:
    """Shards of the manifest; sees that those built are whole."""
    there, sizes = remote.manifest(), remote.sizes()
    if there is None:
        return None
    built = {name: record.files for name, record in there.shards.items() if record.files is not None}
    for name, files in built.items():
        for file, record in files.items():
            assert sizes[f"shards/{name}/{file}"] == record.size
    return len(built), len(there.unfinished)


def test_what_is_damaged_is_named_and_put_anew(s3: str, small_root: Path, small_store: Path, tmp_path: Path) -> None:
    url, scratch = f"{s3}/damaged", tmp_path / "scratch"
    build_small(small_root, scratch, split="test")
    assert "no store at" in str(run("verify", url).exception)
    upload(scratch, ObjectStore(url))
    content = bytearray((scratch / FRAMES).read_bytes())
    content[40] ^= 1
    put_bytes(url, FRAMES, bytes(content))
    put_bytes(url, "shards/test-00000/tubes.parquet", b"short")
    put_bytes(url, "shards/stranger", b"?")
    put_bytes(url, MANIFEST, b"{}")
    ObjectStore(url).remove(["tables/tubes.parquet"])
    assert "nothing wrong" not in run("verify", url).output
    found = run("verify", url, "--deep")
    for words in (
        f"{FRAMES}, row 0: its checksum does not fit the manifest (video Jump/t_0)", "test-00000/tubes.parquet: 5 bytes",
        "shards/stranger: not the store's", "manifest.json: KeyError", "tables/tubes.parquet: missing",
    ):  # fmt: skip
        assert words in found.output
    assert len(found.output.splitlines()) == 5
    mistaken = run("verify", url, "--repair", "--scratch", small_store)
    assert f"{small_store} does not hold the store at {url}" in str(mistaken.exception)
    assert ObjectStore(url).read(MANIFEST_COPY) == (scratch / MANIFEST_COPY).read_bytes(), "the last good one"
    repaired = run("verify", url, "--repair", "--scratch", scratch)
    assert repaired.exit_code == 0, repaired.exception
    assert tree(fetched(url, tmp_path / "copy")) == tree(scratch)


def test_what_somebody_else_put_there_is_neither_built_over_nor_removed(
    s3: str, small_root: Path, tmp_path: Path
) -> None:
    url, scratch = f"{s3}/shared", tmp_path / "scratch"
    build_small(small_root, scratch, split="test")
    put_bytes(url, "thesis/shards.txt", b"years")
    told = refusal(upload, scratch, ObjectStore(url))
    assert "holds something else" in told
    assert "thesis/shards.txt" in told
    assert list(ObjectStore(url).sizes()) == ["thesis/shards.txt"]
    ObjectStore(url).remove(["thesis/shards.txt"])
    upload(scratch, ObjectStore(url))
    put_bytes(url, "thesis/shards.txt", b"years")
    put_bytes(url, "shards/stranger", b"?")
    repaired = run("verify", url, "--repair", "--scratch", scratch)
    assert "shards/stranger: removed" in repaired.output
    assert repaired.exit_code == 0
    assert "thesis/shards.txt: no part of a store lies here, so it is somebody's and stays" in repaired.output
    assert f"nothing wrong at {url}" in repaired.output
    assert ObjectStore(url).read("thesis/shards.txt") == b"years"
    assert ObjectStore(url).read("shards/stranger") is None


def test_an_upload_that_was_cut_before_its_manifest_goes_on(s3: str, small_root: Path, tmp_path: Path) -> None:
    url, scratch = f"{s3}/cut", tmp_path / "scratch"
    build_small(small_root, scratch, split="test")
    put_bytes(url, "zarr.json", (scratch / "zarr.json").read_bytes())
    upload(scratch, ObjectStore(url))
    ObjectStore(url).remove([MANIFEST])
    upload(scratch, ObjectStore(url))
    assert tree(fetched(url, tmp_path / "copy")) == tree(scratch)


def test_no_such_bucket_or_protocol(s3: str) -> None:
    assert "no-such-bucket" in refusal(ObjectStore("s3://no-such-bucket/x").put_manifest, Manifest("0"))
    assert "s3://BUCKET/PREFIX" in refusal(ObjectStore, "nowhere://x")
