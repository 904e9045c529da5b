"""What the pipeline's command line says to a person: figures, pictures, and errors that end with exit code 2."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from data_manifests.layout import TABLES
from data_manifests.manifest import load_manifest, save_manifest
from pipeline.__main__ import main
from pipeline.alignment import Alignment
from pipeline.inspect import describe_store
from pipeline.summary import print_store
from tests.pipeline.own_data import HEADER, moving_square, tube_rows, write_own, write_video


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of 14 frames, two of them in the training split."""
    folder = tmp_path_factory.mktemp("own") / "root"
    rows = ""
    for name in ("Run/a", "Run/b", "Run/c"):
        write_video(folder / "videos" / f"{name}.avi", moving_square(14))
        rows += tube_rows(name, 1, 12, box="2,8,22,26")
    write_own(folder, rows, "Run/c\n")
    return folder


@pytest.fixture(scope="module")
def store(root: Path) -> Path:
    """Its store."""
    place = root.parent / "store"
    command = [sys.executable, "-m", "pipeline", "build", "--dataset", str(root / "own.toml"), "--root", str(root)]
    subprocess.run([*command, "--store", str(place), "--views", "2"], check=True)
    return place


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of the command."""
    monkeypatch.setattr(sys, "argv", ["pipeline", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_a_plan_needs_no_video_and_counts(root: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    for name in ("own.toml", "boxes.csv", "test.txt"):
        (tmp_path / name).write_bytes((root / name).read_bytes())
    assert run(monkeypatch, "plan", "--dataset", tmp_path / "own.toml", "--root", tmp_path, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["train_videos"]["clips"] == 2 * 7
    assert told["test_videos"]["videos"] == 1
    given = ("plan", "--dataset", tmp_path / "own.toml", "--root", tmp_path)
    assert run(monkeypatch, *given) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "clips" in out
    assert "of each video up to its last box: these annotations do not say how long it is" in out
    assert run(monkeypatch, *given, "--missing", "error") == 2
    assert "3 of 3 videos are not there" in capsys.readouterr().err
    (tmp_path / "videos/Run").mkdir(parents=True)
    shutil.copy(root / "videos/Run/a.avi", tmp_path / "videos/Run")
    assert run(monkeypatch, *given, "--missing", "skip") == 0
    assert "without 2 videos that are not there" in capsys.readouterr().out
    assert run(monkeypatch, *given, "--clip-length", 14) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "3 of 3 tubes are shorter than a clip of K = 14 frames: no clip holds them" in out
    assert "warning: no clip to train on" in out


def test_a_second_build_has_nothing_to_do(root: Path, store: Path, monkeypatch, capsys) -> None:
    arguments = ("--dataset", root / "own.toml", "--root", root, "--store", store, "--views", 2)
    assert run(monkeypatch, "build", *arguments) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_a_build_tells_the_rules_it_applied(root: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    shutil.copytree(root, tmp_path / "root")
    rows = "".join(tube_rows(f"Run/{name}", 1, 12, box="2,8,90,26") for name in "ab")
    (tmp_path / "root/boxes.csv").write_text(HEADER + rows)
    (tmp_path / "root/test.txt").write_text("")
    card = tmp_path / "root/own.toml"
    card.write_text(card.read_text().replace("box_width = 64\nbox_height = 48\n", ""))
    given = ("--dataset", card, "--root", tmp_path / "root", "--store", tmp_path / "store", "--views", 0)
    assert run(monkeypatch, "build", *given) == 0
    told = capsys.readouterr().out
    assert (
        "rule clipped-boxes applied to 2 videos: boxes that reach past the decoded frame are clipped to it\n  Run/a"
        in told
    )


def test_verify_of_a_store_that_is_not_finished_says_so(root: Path, store: Path, tmp_path, monkeypatch, capsys) -> None:
    """A damaged file beside what is not built yet is damage all the same."""
    shutil.copytree(store, tmp_path / "store")
    manifest = load_manifest(tmp_path / "store")
    shard = manifest.shards["train-00000"]
    shards = {**manifest.shards, "train-00000": replace(shard, files=None)}
    files = {name: file for name, file in manifest.files.items() if name not in TABLES.values()}
    save_manifest(replace(manifest, shards=shards, files=files), tmp_path / "store")
    shutil.rmtree(tmp_path / "store/shards/train-00000")
    shutil.rmtree(tmp_path / "store/tables")
    assert run(monkeypatch, "verify", tmp_path / "store") == 2
    told = capsys.readouterr()
    assert "train-00000: planned, not built" in told.out
    assert (
        "is not finished\n  found: nothing wrong in what is there (sizes and small files; --deep reads every byte)\n  do: run its build again"
        in told.err
    )
    assert run(monkeypatch, "report", tmp_path / "store", "-o", tmp_path / "page.html") == 0
    assert "1 shards are not built yet" in capsys.readouterr().err
    (tmp_path / "store/shards/test-00000/zarr.json").unlink()
    assert run(monkeypatch, "verify", tmp_path / "store") == 2
    assert "is damaged" in capsys.readouterr().err


def test_a_video_that_is_planned_only_is_not_built_yet(store: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    unfinished = tmp_path / "s"
    shutil.copytree(store, unfinished)
    manifest = load_manifest(unfinished)
    (name, record), *_ = [(name, record) for name, record in manifest.shards.items() if "Run/a" in record.videos]
    save_manifest(manifest.with_shard(name, replace(record, files=None)), unfinished)
    assert run(monkeypatch, "inspect", unfinished, "--video", "Run/a", "--png", tmp_path / "a.png") == 2
    assert f"Run/a is not built yet\n  found: the store at {unfinished} has it planned" in capsys.readouterr().err


def test_inspect_tells_and_draws(store: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    assert run(monkeypatch, "inspect", store, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["splits"]["train"]["clips"] == 14
    assert "too few videos" in told["motion"]["summary"]
    assert told["motion"]["warnings"] == []
    assert run(monkeypatch, "inspect", store) == 0
    assert "boxes against motion: too few videos" in capsys.readouterr().out
    assert run(monkeypatch, "inspect", store, "--no-motion") == 0
    out = capsys.readouterr().out
    assert "train" in out
    assert "motion" not in out
    picture = tmp_path / "clip.png"
    assert run(monkeypatch, "inspect", store, "--clip", "Run/a:3", "--view", 1, "--png", picture) == 0
    assert Image.open(picture).size == (6 * 300, 2 * 300 + 20)
    assert run(monkeypatch, "inspect", store, "--clip", "Run/a:3", "--png", tmp_path / "no-suffix") == 0
    assert Image.open(tmp_path / "no-suffix").format == "PNG"


@pytest.mark.parametrize("columns", [None, "60"])
def test_no_digit_of_a_table_is_cut_off(columns: str | None, store: Path, monkeypatch, capsys) -> None:
    described = describe_store(store)
    described["splits"]["train"] |= dict.fromkeys(("frames", "clips", "views", "bytes"), 987_654_321_000)
    described["classes"] = [
        row | dict.fromkeys(("videos", "boxes", "clips"), 123_456_789) for row in described["classes"]
    ]
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    print_store(described)
    out = capsys.readouterr().out
    assert "…" not in out
    assert (out.count("987,654,321,000") == 4) == (columns is None)


def test_what_motion_says_of_the_boxes_is_a_warning(store: Path, monkeypatch, capsys) -> None:
    shifted = Alignment(64, 0.1, {"mirrored": -4.0}, (-1.3, -1.7, -1.1))
    monkeypatch.setattr("pipeline.inspect_command.measure_alignment", lambda shards: shifted)
    assert run(monkeypatch, "inspect", store) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "warning: boxes fit the motion better 1.3 frames earlier (95 %: -1.7 to -1.1)" in out
    assert run(monkeypatch, "inspect", store, "--json") == 0
    assert json.loads(capsys.readouterr().out)["motion"]["warnings"] == shifted.warnings


def test_report_writes_its_page_beside_the_store(store: Path, monkeypatch, capsys) -> None:
    page = store.with_name("store.html")
    assert run(monkeypatch, "report", store) == 0
    assert f"report: {page}" in " ".join(capsys.readouterr().out.split())
    assert page.read_text().startswith("<!doctype html>")
    page.unlink()


def test_verify_finds_a_flipped_bit_and_repairs_it(root: Path, store: Path, monkeypatch, capsys) -> None:
    assert run(monkeypatch, "verify", store, "--deep") == 0
    data = store / "shards" / "train-00000" / "frames" / "bytes" / "c" / "0"
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)
    assert run(monkeypatch, "verify", store, "--deep") == 2
    assert "Run/a" in capsys.readouterr().out
    assert run(monkeypatch, "verify", store, "--repair") == 2
    assert "add --dataset and --root" in capsys.readouterr().err
    assert data.read_bytes() == content
    repair = ("--repair", "--dataset", root / "own.toml", "--root", root)
    assert run(monkeypatch, "verify", store, *repair) == 0
    assert run(monkeypatch, "verify", store, "--deep") == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["plan", "--dataset", "ucf102", "--root", "."], "did you mean ucf101"),
        (["plan", "--dataset", "ucf101", "--root", "nowhere"], "nowhere is not there"),
        (["plan", "--dataset", "ucf101"], "--root is missing"),
        (["plan", "--dataset", "ROOT/own.toml", "--root", "ROOT/own.toml"], "own.toml is not a folder"),
        (["plan", "--dataset", "missing.toml", "--root", "."], "missing.toml is not there"),
        (["plan", "--dataset", "ucf101", "--root", "."], "annotation file"),
        (["build", "--dataset", "ucf101", "--root", ".", "--store", "s", "--frames", "png"], "jpeg:95"),
        (["build", "--dataset", "ucf101", "--root", ".", "--store", "s", "--frames", "jpeg:095"], "jpeg:95"),
        (["build", "--dataset", "ucf101", "--root", ".", "--store", "s", "--clip-length", "17"], "1 to 16"),
        (["build", "--dataset", "ROOT/own.toml", "--root", "ROOT", "--store", ""], "--store is empty"),
        (
            ["build", *["--dataset", "ROOT/own.toml", "--root", "ROOT", "--store", "s", "--positive-overlap", "0.4"]],
            "do not go together",
        ),
        (["plan", "--dataset", "ROOT/own.toml", "--root", "ROOT", "--max-side", "0"], "--max-side 0\n  wanted: 32 to"),
        (["plan", "--dataset", "ROOT/own.toml", "--root", "ROOT", "--max-side", "-5"], "--max-side -5\n  wanted: 32"),
        (["inspect", "."], "no store at"),
        (["inspect", "STORE", "--clip", "Run/x:1", "--png", "x.png"], "no video 'Run/x'"),
        (["inspect", "STORE", "--clip", "Run/A:1", "--png", "x.png"], "did you mean Run/a"),
        (["inspect", "STORE", "--clip", "Run/a:99", "--png", "x.png"], "no valid clip at frame 99"),
        (["inspect", "STORE", "--clip", "Run/a:1"], "--png"),
        (["inspect", "STORE", "--png", "x.png"], "--png is of a picture"),
        (["inspect", "STORE", "--view", "1"], "--view is of a picture"),
        (["inspect", "STORE", "--clip", "Run/a:1", "--png", "x.txt"], "ends in .png"),
        (["inspect", "STORE", "--clip", "Run/a:1", "--gif", "x.png"], "ends in .gif"),
        (["inspect", "STORE", "--video", "Run/a", "--view", "1", "--png", "x.png"], "a video is drawn as it is"),
        (["inspect", "STORE", "--clip", "Run/a:1", "--png", "/proc/x.png"], "cannot write or read /proc/x.png"),
        (["report", "."], "no store at"),
        (["inspect", "STORE", "--video", "Run/a", "--png", "."], "cannot write or read"),
        (["report", "STORE", "-o", "STORE"], "name a file: that is a folder"),
        (
            ["build", *["--dataset", "ROOT/own.toml", "--root", "ROOT", "--store", "ROOT/own.toml/store"]],
            "is a file, not a folder",
        ),
        (
            ["build", *["--dataset", "ROOT/own.toml", "--root", "ROOT", "--store", "s", "--workers", "-1"]],
            "'--workers'",
        ),
        (["inspect", "STORE", "--browse", "--port", "99999"], "'--port': 99999"),
        (["verify", "STORE", "--repair", "--root", "ROOT"], "one of --dataset and --root alone"),
        (["biuld"], "build"),
        (["plan", "--datset", "ucf101"], "--dataset"),
    ],
)
def test_bad_input_ends_with_2_and_a_message(
    arguments: list[str], told: str, root: Path, store: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *(part.replace("STORE", str(store)).replace("ROOT", str(root)) for part in arguments)) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lost", ["priors", "shards", "shards/train-00000/targets", "shards/train-00000/frames"])
def test_a_store_copied_by_half_says_what_is_missing(
    lost: str, store: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    half = tmp_path / "half"
    shutil.copytree(store, half)
    (shutil.rmtree if (half / lost).is_dir() else Path.unlink)(half / lost)
    picture = ("--clip", "Run/a:3", "--png", tmp_path / "clip.png")
    assert {run(monkeypatch, "inspect", half, "--no-motion"), run(monkeypatch, "inspect", half, *picture)} <= {0, 2}
    told = capsys.readouterr().err
    assert "is missing" in told
    assert "verify STORE --repair" in told


def test_a_negative_number_of_workers_is_refused(root: Path, store: Path, monkeypatch, capsys) -> None:
    arguments = ("--dataset", root / "own.toml", "--root", root, "--store", store, "--views", 2)
    assert run(monkeypatch, "build", *arguments, "--workers", -1) == 2
    assert "--workers" in capsys.readouterr().err
