from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from data_manifests.errors import InputError, run_command_line
from data_manifests.prior_spec import ACT300
from tests.trainer.evaluation_ranks import LENGTHS, model_and_store
from tests.trainer.memory_store import MemoryStore
from trainer.checkpoint import CheckpointMeta, save_checkpoint
from trainer.data.reader import Store
from trainer.detection.find import Detector
from trainer.evaluate import main, protocol_table, table
from trainer.evaluation import evaluate_store, find_all, write_json
from trainer.model import ActNet
from trainer.pictures import draw_pictures

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]


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


def _ranks(out: Path, world: int, **more: str) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = os.environ | {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} | more
    command = [sys.executable, "-m", "tests.trainer.evaluation_ranks", str(out)]
    return [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=common | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]


def test_metrics_say_what_was_scored_and_how(done):
    _, metrics = done
    assert set(metrics["video_map"]) == {"0.2", "0.5", "0.75", "0.5:0.95"}
    assert "0.5" in metrics["frame_map"]
    assert metrics["protocol"]["fields"]["ap_rule"] == "act"
    assert "inclusive" in metrics["protocol"]["words"]
    assert len(metrics["checkpoint"]["weights"]) == 64
    assert metrics["store"]["digest"].startswith("noise")
    assert metrics["left_out"]["videos_shorter_than_a_clip"] == ["Noise/v_03"]
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


def test_three_ranks_write_the_bytes_of_one(done, tmp_path):
    ranks = _ranks(tmp_path, 3)
    for rank in ranks:
        _, errors = rank.communicate(timeout=100)
        assert rank.returncode == 0, errors
    assert _files(tmp_path) == _files(done[0])


def test_a_killed_evaluation_goes_on(done, tmp_path):
    (killed,) = _ranks(tmp_path, 1, PAUSE="60")
    killed.stdout.readline()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    finished = _files(tmp_path)
    assert 0 < len(finished) < len(LENGTHS)
    model, store = model_and_store()
    again: list[str] = []
    found = Detector.video

    def counted(self, blocks, frames, width, height, name):
        again.append(name)
        return found(self, blocks, frames, width, height, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Detector, "video", counted)
        write_json(tmp_path / "metrics.json", evaluate_store(model, store, device=CPU, out=tmp_path))
    assert len(again) == len(LENGTHS) - len(finished)
    assert _files(tmp_path) == _files(done[0])


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
    assert sorted(tmp_path.iterdir()) == sorted(drawn), "nothing half-written is left"


@pytest.fixture
def checkpoint(tmp_path, monkeypatch) -> Path:
    """A checkpoint of the small network; the noise store is found under any name."""
    model, store = model_and_store()
    monkeypatch.setattr(Store, "open", classmethod(lambda cls, path, split=None: store))
    meta = CheckpointMeta(7, 2, store.meta.classes, 1 / 16, "none", ACT300, store.meta.digest, {})
    save_checkpoint(tmp_path / "last.pt", model, torch.optim.SGD(model.parameters(), 0.1), meta)
    return tmp_path / "last.pt"


def _command(monkeypatch, *arguments: object) -> None:
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
    assert len(list((folder / "pictures").iterdir())) == 1


def test_other_classes_of_the_same_number_are_refused(checkpoint, monkeypatch):
    content = torch.load(checkpoint, weights_only=True)
    content["meta"]["classes"] = ["Up", "Down"]
    torch.save(content, checkpoint)
    with pytest.raises(InputError, match="classes"):
        _command(monkeypatch, "--store", "noise", "--checkpoint", checkpoint, "--device", "cpu")


def test_a_wrong_option_ends_with_2(checkpoint, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        run_command_line(
            lambda: _command(monkeypatch, "--store", "noise", "--checkpoint", checkpoint, "--ap-rule", "best")
        )
    assert end.value.code == 2
    assert "act" in capsys.readouterr().err


def test_ranks_that_take_the_longest_video_first_end_together(golden):
    """Simulated on UCF101-24's test videos: 8 ranks, the next video to whoever is free; within 3 % of the bound."""
    annotations = np.load(golden / "annots_index.npz")
    lengths = np.sort(annotations["nframes"][annotations["is_test"]])[::-1]
    busy = np.zeros(8)
    for length in lengths:
        busy[busy.argmin()] += length
    assert busy.max() <= 1.03 * max(lengths.sum() / 8, lengths[0])
