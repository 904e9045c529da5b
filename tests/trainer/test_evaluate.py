from __future__ import annotations

import dataclasses
import json
import re
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from data_manifests.errors import InputError, run_command_line
from data_manifests.prior_spec import ACT300
from tests.trainer.evaluation_ranks import LABELS, LENGTHS, model_and_store, start, start_validation
from tests.trainer.memory_store import MemoryStore
from trainer.checkpoint import CheckpointMeta, save_checkpoint
from trainer.data.reader import Store
from trainer.detection.find import Detector
from trainer.evaluate import _Progress, main
from trainer.evaluation import evaluate_store, find_all, write_json
from trainer.evaluation_table import protocol_table, table
from trainer.model import ActNet
from trainer.pictures import draw_pictures

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The evaluation of the small noise store, in a folder, by this process."""
    out = tmp_path_factory.mktemp("evaluation")
    model, store = model_and_store()
    metrics = evaluate_store(model, store, device=CPU, out=out)
    write_json(out / "metrics.json", metrics)
    return out, metrics


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A checkpoint of the small network."""
    model, store = model_and_store()
    meta = CheckpointMeta(7, 2, store.meta.classes, 1 / 16, "none", ACT300, store.meta.digest, {})
    path = tmp_path_factory.mktemp("run") / "last.pt"
    save_checkpoint(path, model, torch.optim.SGD(model.parameters(), 0.1), meta)
    return path


def _by_ranks(out: Path, checkpoint: Path, world: int, errors: Path) -> dict[str, bytes]:
    """The files that the command leaves, run by `world` ranks."""
    errors.mkdir(exist_ok=True)
    for rank, (process, _) in enumerate(start(out, checkpoint, world, errors)):
        process.join(60)
        assert process.exitcode == 0, (errors / str(rank)).read_text()
    return _files(out)


@pytest.fixture(scope="module")
def by_one(checkpoint, tmp_path_factory) -> dict[str, bytes]:
    """The files that the command leaves, run by one process."""
    folder = tmp_path_factory.mktemp("one")
    return _by_ranks(folder / "out", checkpoint, 1, folder)


def test_metrics_say_what_was_scored_and_how(done):
    _, metrics = done
    assert set(metrics["video_map"]) == {"0.2", "0.5", "0.75", "0.5:0.95"}
    assert "0.5" in metrics["frame_map"]
    assert metrics["protocol"]["fields"]["ap_rule"] == "act"
    assert "inclusive" in metrics["protocol"]["words"]
    assert len(metrics["checkpoint"]["weights"]) == 64
    assert metrics["store"]["digest"].startswith("noise")
    assert metrics["left_out"]["videos_shorter_than_a_clip"] == ["Noise/v_03"]
    assert metrics["left_out"]["videos_shorter_than_a_tube"] == [
        f"Noise/v_{i:02d}" for i, frames in enumerate(LENGTHS) if frames < 15
    ]
    assert metrics["left_out"]["videos_without_detections"] == ["Noise/v_03"]
    assert metrics["counts"]["videos"] == len(LENGTHS)
    json.dumps(metrics, allow_nan=False)
    assert metrics["protocol"]["words"].split()[0] in table(metrics)


def test_finished_videos_are_not_computed_again(done, monkeypatch):
    out, metrics = done
    model, store = model_and_store()

    def refuse(*_: object) -> None:
        raise AssertionError("a finished video was computed again")

    monkeypatch.setattr(Detector, "video", refuse)
    assert evaluate_store(model, store, device=CPU, out=out) == metrics


def test_figures_do_not_need_a_folder(done):
    model, store = model_and_store()
    assert evaluate_store(model, store, device=CPU) == done[1]
    assert model.training, "the model's mode is given back"


@pytest.mark.parametrize("world", [2, 5])
def test_any_number_of_ranks_writes_the_bytes_of_one(world, by_one, done, checkpoint, tmp_path):
    assert _by_ranks(tmp_path / "out", checkpoint, world, tmp_path) == by_one
    assert {
        name: content for name, content in _files(done[0]).items() if name != "metrics.json"
    }.items() <= by_one.items()


@pytest.mark.parametrize(("world", "victim"), [(3, 0), (3, 1)])
def test_after_a_rank_was_killed_the_command_goes_on(world, victim, by_one, checkpoint, tmp_path):
    """Rank 0 holds the counter of the others."""
    out, errors = tmp_path / "out", tmp_path / "errors"
    errors.mkdir()
    ranks = start(out, checkpoint, world, errors, stuck=victim)
    process, told = ranks[victim]
    told.recv()
    unfinished = told.recv()
    process.kill()
    for rank, (process, _) in enumerate(ranks):
        process.join(30)
        said = (errors / str(rank)).read_text()
        assert process.exitcode == (-signal.SIGKILL if rank == victim else 2), said
        assert rank == victim or "another process of this run is gone" in said
    finished = _files(out)
    assert 0 < len(finished) < len(LENGTHS)
    assert f"detections/{unfinished}.npz" not in finished
    assert finished.items() <= by_one.items()
    before = {name: (out / name).stat().st_ino for name in finished}
    (out / "detections/Noise/.v_02.npz.1.new").write_bytes(b"of a rank that was killed as it wrote")
    assert _by_ranks(out, checkpoint, 1, errors) == by_one
    assert {name: (out / name).stat().st_ino for name in finished} == before, "nothing finished is computed again"


@pytest.mark.parametrize("keep", [0, 100, -30])
def test_a_truncated_detections_file_is_named(done, tmp_path, keep):
    folder = tmp_path / "detections" / "Noise"
    folder.mkdir(parents=True)
    whole = (done[0] / "detections/Noise/v_01.npz").read_bytes()
    (folder / "v_01.npz").write_bytes(whole[:keep])
    model, store = model_and_store()
    with pytest.raises(InputError, match=r"v_01\.npz is damaged"):
        evaluate_store(model, store, device=CPU, out=tmp_path)


def test_a_changed_byte_in_a_detections_file_is_seen(done, tmp_path):
    folder = tmp_path / "detections" / "Noise"
    folder.mkdir(parents=True)
    changed = bytearray((done[0] / "detections/Noise/v_01.npz").read_bytes())
    changed[len(changed) // 2] ^= 1
    (folder / "v_01.npz").write_bytes(changed)
    model, store = model_and_store()
    with pytest.raises(InputError, match="damaged"):
        evaluate_store(model, store, device=CPU, out=tmp_path)


def test_detections_of_another_checkpoint_are_refused(done):
    _, store = model_and_store()
    torch.manual_seed(1)
    with pytest.raises(InputError, match="its weights differs"):
        evaluate_store(ActNet(ACT300, 2, 2, 1 / 16), store, device=CPU, out=done[0])


@pytest.mark.parametrize(("classes", "K", "what"), [(3, 2, "classes"), (2, 3, "K")])
def test_a_checkpoint_that_does_not_fit_the_store_is_refused(classes, K, what):
    with pytest.raises(InputError, match=what):
        evaluate_store(ActNet(ACT300, classes, K, 1 / 16), MemoryStore([3], [[0]]), device=CPU)


def test_a_network_that_gives_nan_is_refused_by_name(tmp_path):
    model, store = model_and_store()
    with torch.no_grad():
        model.conf[0].bias[0] = torch.nan
    with pytest.raises(InputError, match=r"Noise/v_01, clip 0, is not finite"):
        evaluate_store(model, store, device=CPU, out=tmp_path)
    assert _files(tmp_path) == {}


def test_classes_without_ground_truth_are_left_out_of_the_means_and_named():
    model, _ = model_and_store()
    metrics = evaluate_store(model, MemoryStore([17, 2], [[0], []]), device=CPU)
    assert metrics["left_out"]["classes_without_ground_truth"] == ["Class1"]
    assert metrics["frame_ap"]["0.5"]["Class1"] is None
    assert metrics["frame_map"]["0.5"] == metrics["frame_ap"]["0.5"]["Class0"]
    nothing = evaluate_store(model, MemoryStore([2], [[]]), device=CPU)
    assert nothing["frame_map"]["0.5"] is None
    assert nothing["video_map"]["0.5:0.95"] is None
    json.dumps(nothing, allow_nan=False)
    assert "-" in table(nothing)


def test_every_protocol_scores_the_same_detections(done):
    model, store = model_and_store()
    evaluation = find_all(model, store, device=CPU, out=done[0])
    text, rows = protocol_table(evaluation)
    assert len(rows) == 6
    assert len({row["protocol"] for row in rows}) == 6
    assert rows[0]["frame_map"] == done[1]["frame_map"]
    assert all(row["protocol"] in text for row in rows)


def test_pictures_of_some_videos(done, tmp_path):
    model, store = model_and_store()
    evaluation = find_all(model, store, device=CPU, out=done[0])
    drawn = draw_pictures(evaluation, lambda name, frame: store.frames(name, frame, frame + 1)[0], tmp_path, 3)
    assert len(drawn) == 3
    assert all(path.stat().st_size > 1000 for path in drawn)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(drawn), (
        "nothing half-written is left"
    )
    alike = dataclasses.replace(evaluation, video_ids=["a-b/c", "a/b-c", *evaluation.video_ids[2:]])
    frame = store.frames(evaluation.video_ids[0], 0, 1)[0]
    drawn = draw_pictures(alike, lambda *_: frame, tmp_path, len(alike.video_ids))
    assert len(set(drawn)) == len(alike.video_ids)


def _command(monkeypatch, *arguments: object, store: MemoryStore | None = None) -> None:
    """The noise store, or this one, is found under any name."""
    store = store or model_and_store()[1]
    monkeypatch.setattr(Store, "open", classmethod(lambda cls, path, split=None: store))
    monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, arguments)])
    main()


def test_the_command_prints_and_writes_the_figures(checkpoint, done, monkeypatch, capsys):
    figures = checkpoint.parent / "figures.json"
    options = ("--json", figures, "--pictures", 1, "--all-protocols", "--device", "cpu")
    _command(monkeypatch, "--store", "noise", "--checkpoint", checkpoint, *options)
    printed = capsys.readouterr().out
    assert "inclusive" in printed
    assert "coco, annotated frames" in printed
    written = json.loads(figures.read_text())
    assert written["frame_map"] == done[1]["frame_map"]
    assert written["checkpoint"]["step"] == 7
    (folder,) = checkpoint.parent.glob("evaluation-*")
    assert json.loads((folder / "metrics.json").read_text()) == written
    found = {path: path.stat().st_mtime_ns for path in folder.glob("detections/*/*")}
    voc = ("--ap-rule", "voc", "--frames", "annotated")
    _command(monkeypatch, "--store", "noise", "--checkpoint", checkpoint, *voc, "--device", "cpu")
    assert {path: path.stat().st_mtime_ns for path in folder.glob("detections/*/*")} == found, "taken, not found again"
    by_act, by_voc = (folder / f"metrics-{rule}-frames.json" for rule in ("act-all", "voc-annotated"))
    assert json.loads(by_act.read_text()) == written, "figures by another protocol do not replace these"
    assert json.loads(by_voc.read_text())["protocol"]["name"].startswith("voc")
    assert by_voc.read_bytes() == (folder / "metrics.json").read_bytes()
    assert len(list((folder / "pictures").iterdir())) == 1


def test_a_place_that_cannot_be_written_is_told_before_the_first_video(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(Detector, "video", lambda *_, **__: pytest.fail("it looked"))
    with pytest.raises(FileExistsError):
        _command(monkeypatch, "--store", "noise", "--checkpoint", checkpoint, "--out", tmp_path / "file")


def test_of_many_names_some_are_told(done):
    many = {"videos_without_detections": [f"v_{i}" for i in range(13)], "classes_without_detections": ["Up", "Down"]}
    *_, videos, classes = table(done[1] | {"left_out": many}).splitlines()
    assert videos == "videos without detections: " + ", ".join(f"v_{i}" for i in range(10)) + " and 3 more"
    assert classes == "classes without detections: Up, Down"


def test_figures_are_written_before_they_are_printed(checkpoint, tmp_path, monkeypatch):
    def fails(_: object) -> str:
        raise UnicodeEncodeError("ascii", "ü", 0, 1, "a terminal that has no such letter")

    monkeypatch.setattr("trainer.evaluation_table.table", fails)
    with pytest.raises(UnicodeEncodeError):
        _command(monkeypatch, "--store", "noise", "--checkpoint", checkpoint, "--out", tmp_path, "--device", "cpu")
    assert "frame_map" in json.loads((tmp_path / "metrics.json").read_text())


def test_quiet_prints_nothing_and_writes_the_same(checkpoint, by_one, tmp_path, monkeypatch, capfd):
    for options, silent in ((["--quiet"], True), ([], False)):
        out = tmp_path / f"{silent}"
        for name, content in by_one.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(b"" if name == "metrics.json" else content)
        _command(monkeypatch, "--store", "noise", "--checkpoint", checkpoint, "--out", out, "--device", "cpu", *options)
        said = capfd.readouterr()
        assert (said.out == "") == silent
        assert said.err == "", "no line of progress in a pipe before half a minute is over"
        assert _files(out) == by_one


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_one_line_in_a_terminal_and_a_plain_one_now_and_then_in_a_pipe(terminal, monkeypatch, capsys):
    now = iter((0.0, 10.0, 20.0, 35.0, 40.0, 66.0, 80.0))
    monkeypatch.setattr("trainer.evaluate.time.monotonic", lambda: next(now))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    progress = _Progress()
    for done in range(1, 7):
        progress(f"Run/v_{done}", done, 12)
    progress.end()
    told = capsys.readouterr().err
    if terminal:
        assert told.count("\r") == 6
        assert told.endswith("6/12 videos  0.1/s  1.3 min left  Run/v_6\n")
    else:
        assert told == "3/12 videos  0.1/s  1.8 min left\n5/12 videos  0.1/s  1.5 min left\n"


def test_bfloat16_is_an_option_told_and_kept_apart(checkpoint, done, tmp_path, monkeypatch, capsys):
    """Of the first video alone: where the processor imitates it, a frame takes ten times as long."""
    checkpoint, first = shutil.copy(checkpoint, tmp_path), MemoryStore(LENGTHS[:1], LABELS[:1])
    options = ("--store", "noise", "--checkpoint", checkpoint, "--device", "cpu", "--amp")
    _command(monkeypatch, *options, store=first)
    assert f"{checkpoint}, bfloat16\n" in capsys.readouterr().out
    (folder,) = tmp_path.glob("evaluation-*-amp")
    written = json.loads((folder / "metrics.json").read_text())
    assert written["amp"] is True
    exact = np.load(done[0] / "detections/Noise/v_00.npz")["detections.score"]
    found = np.load(folder / "detections/Noise/v_00.npz")["detections.score"]
    assert not np.array_equal(exact, found)
    with pytest.raises(InputError, match="its found_by differs"):
        _command(monkeypatch, *options[:-1], "--out", folder, store=first)


def _refused(monkeypatch, capsys, *arguments: object) -> str:
    """What the command says when it ends with exit code 2."""
    with pytest.raises(SystemExit) as end:
        run_command_line(lambda: _command(monkeypatch, "--store", "noise", "--device", "cpu", *arguments))
    assert end.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"classes": ["Up", "Down"]}, "found: Up, Down"),
        ({"classes": ["Class0", "Class1", "Class2"]}, "classes"),
        ({"K": 3}, r"frames a clip \(K\).*\n.*found: 3 .*\n.*wanted: 2"),
        ({"priors": 31.0}, r"priors.*\n.*31\.0"),
    ],
)
def test_a_checkpoint_for_another_store_ends_with_2(changed, what, tmp_path, monkeypatch, capsys):
    store = model_and_store()[1]
    layer = dataclasses.replace(ACT300.layers[0], min_size=changed.get("priors", ACT300.layers[0].min_size))
    spec = dataclasses.replace(ACT300, layers=(layer, *ACT300.layers[1:]))
    classes, K = tuple(changed.get("classes", store.meta.classes)), changed.get("K", 2)
    model = ActNet(spec, len(classes), K, 1 / 16)
    meta = CheckpointMeta(7, K, classes, 1 / 16, "none", spec, store.meta.digest, {})
    save_checkpoint(tmp_path / "last.pt", model, torch.optim.SGD(model.parameters(), 0.1), meta)
    assert re.search(what, _refused(monkeypatch, capsys, "--checkpoint", tmp_path / "last.pt"))
    assert list(tmp_path.iterdir()) == [tmp_path / "last.pt"], "nothing is written"


def test_damaged_detections_and_those_of_another_checkpoint_end_with_2(
    checkpoint, by_one, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    file = out / "detections/Noise/v_01.npz"
    file.parent.mkdir(parents=True)
    file.write_bytes(by_one["detections/Noise/v_01.npz"][:-30])
    said = _refused(monkeypatch, capsys, "--checkpoint", checkpoint, "--out", out)
    assert f"{file} is damaged" in said
    file.write_bytes(by_one["detections/Noise/v_01.npz"])
    changed = torch.load(checkpoint, weights_only=True)
    changed["model"]["conf.0.bias"] += 1
    torch.save(changed, tmp_path / "other.pt")
    said = _refused(monkeypatch, capsys, "--checkpoint", tmp_path / "other.pt", "--out", out)
    assert str(file) in said
    assert "its weights differs" in said
    assert list(_files(out)) == ["detections/Noise/v_01.npz"], "nothing is written"


def test_a_gpu_that_is_not_there_ends_with_2(checkpoint, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no GPU" in _refused(monkeypatch, capsys, "--checkpoint", checkpoint, "--device", "cuda")


def test_a_network_that_finds_nothing_scores_zero(tmp_path):
    """No class has a detection and no video has one: the figures are 0, the rest of the truth is missed."""
    model, store = model_and_store()
    with torch.no_grad():
        for head, layer in zip(model.conf, ACT300.layers, strict=True):
            head.bias.view(layer.priors_per_cell, -1)[:, 0] = 1e4
    metrics = evaluate_store(model, store, device=CPU, out=tmp_path)
    assert metrics["left_out"]["videos_without_detections"] == [f"Noise/v_{i:02d}" for i in range(len(LENGTHS))]
    assert metrics["frame_ap"]["0.5"] == {"Class0": 0, "Class1": 0}
    assert set(metrics["video_map"].values()) == {0}
    assert metrics["errors"]["mean"]["missed"] == 1
    json.dumps(metrics, allow_nan=False)


def test_a_wrong_option_ends_with_2(checkpoint, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        run_command_line(
            lambda: _command(monkeypatch, "--store", "noise", "--checkpoint", checkpoint, "--ap-rule", "best")
        )
    assert end.value.code == 2
    assert "act" in capsys.readouterr().err


def test_a_place_where_no_json_can_be_written_is_told_before_the_work(checkpoint, tmp_path, monkeypatch, capsys):
    given = ("--checkpoint", checkpoint, "--json")
    assert f"--json {tmp_path} is a folder" in _refused(monkeypatch, capsys, *given, tmp_path)
    (tmp_path / "file").touch()
    assert "is a file, not a folder" in _refused(monkeypatch, capsys, *given, tmp_path / "file" / "figures" / "a.json")


def test_ranks_validate_the_network_that_the_first_one_saves() -> None:
    """Batch statistics differ from rank to rank after a step."""
    ranks = start_validation()
    (first, agreed, gathered, taken), (second, _, _, others) = [told.recv() for _, told in ranks]
    for process, _ in ranks:
        process.join(60)
    assert first == second
    assert len(first) == 1
    assert agreed == [True, False]
    assert gathered == {0: 0, 1: 1}
    assert sorted(taken + others) == [(1, 7), (2, 8), (3, 9)]
