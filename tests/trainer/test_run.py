"""A run from beginning to end: stopped, killed, resumed, shared among processes, diverged."""

from __future__ import annotations

import dataclasses
import errno
import functools
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest
import torch
from click.testing import CliRunner

from data_manifests.errors import InputError
from data_manifests.object_store import ObjectStore
from pipeline.upload import upload
from tests.benchmarks.kills import logged
from tests.pipeline.own_data import CARD
from tests.trainer import ranks
from tests.trainer.tiny_store import write_tiny_store
from trainer.bfloat16 import has_bfloat16
from trainer.checkpoint import (
    checkpoint_path,
    link_last,
    load_model,
    newest_checkpoint,
    read_checkpoint,
    save_checkpoint,
    steps_saved,
)
from trainer.config import Config
from trainer.distributed import Ranks
from trainer.logs import Diverged
from trainer.prepare import Job
from trainer.run import cli, main
from trainer.run_record import only_run, read_run
from trainer.run_report import series
from trainer.seal import seal
from trainer.step import train_step
from trainer.training import _stopped_by, train

ALONE = Ranks(0, 1, torch.device("cpu"))
CONFIG = Config(
    width=1 / 16, norm="none", iterations=6, batch=2, base_lr=1e-5, schedule="step", milestones=(4,),
    workers=0, log_every=4, save_every=3, keep=2,
)  # fmt: skip
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _handlers():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def _train(
    store: Path,
    out: Path,
    resume: bool = False,
    val_store: Path | None = None,
    init: Path | None = None,
    **changed: object,
) -> Path:
    config = dataclasses.replace(CONFIG, **changed)
    train(Job(store, out, val_store=val_store, init=init, resume=resume), config, ALONE)
    return out


def _content(out: Path, name: str = "") -> dict:
    folder = out / "checkpoints"
    path = folder / name if name else newest_checkpoint(folder)
    assert path is not None
    return read_checkpoint(path)[0]


def _assert_same(a: dict, b: dict, within: float = 0.0) -> None:
    """Weights, momentum and averaged weights, each tensor within a share of its norm, or bit for bit.

    A norm alone would not do for the latter: squares of the smallest differences vanish.
    """
    for part in ("model", "optimiser", "average"):
        ours, theirs = _flat(a[part]), _flat(b[part])
        assert ours.keys() == theirs.keys()
        for name in ours:
            near = within > 0 and (ours[name] - theirs[name]).norm() <= within * theirs[name].norm()
            assert near or torch.equal(ours[name], theirs[name]), (part, name)


def _flat(state: dict | None, prefix: str = "") -> dict[str, torch.Tensor]:
    flat = {}
    for name, value in (state or {}).items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


@pytest.fixture(scope="module")
def undisturbed(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _train(tiny_store, tmp_path_factory.mktemp("undisturbed"), ema=0.9)


class _Stopped(Exception):
    pass


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch):
    """Something happens when a step begins."""
    import trainer.training

    real = trainer.training.train_step

    def arrange(step: int, event) -> None:
        def watched(learner, parts, at, **rest):
            if at == step:
                event(learner)
            return real(learner, parts, at, **rest)

        monkeypatch.setattr(trainer.training, "train_step", watched)

    return arrange


def _raise(*_: object) -> None:
    raise _Stopped


def test_a_resumed_run_equals_an_undisturbed_one_bit_for_bit(
    tiny_store: Path, undisturbed: Path, tmp_path: Path, stop_at
) -> None:
    stop_at(4, _raise)
    with pytest.raises(_Stopped):
        _train(tiny_store, tmp_path, ema=0.9)
    assert steps_saved(tmp_path / "checkpoints") == [3]
    (tmp_path / "metrics.jsonl").open("a").write('{"step": 4, "lo')  # torn by the kill
    stop_at(-1, _raise)
    _train(tiny_store, tmp_path, resume=True, ema=0.9)
    _assert_same(_content(tmp_path), _content(undisturbed))
    assert logged(tmp_path) == logged(undisturbed)
    assert [line["step"] for line in logged(tmp_path)] == [4, 6]


def test_it_can_be_reported(undisturbed: Path, tmp_path: Path) -> None:
    run = read_run(undisturbed)
    told = dataclasses.replace(CONFIG, ema=0.9)
    assert run.config == json.loads(json.dumps(dataclasses.asdict(told)))
    assert dict(run.about)["processes"] == "1 x cpu"
    assert dict(run.about)["parts"] == "2"
    assert [value for _, value in series(run)["loss"]] == [line["loss"] for line in logged(undisturbed)]
    (undisturbed / "run.json").rename(tmp_path / "run.json")
    assert read_run(undisturbed).config == run.config, "without the record, from a checkpoint"
    (tmp_path / "run.json").rename(undisturbed / "run.json")


def test_the_rate_follows_its_schedule(undisturbed: Path) -> None:
    assert [line["base_lr"] for line in logged(undisturbed)] == pytest.approx([1e-5, 1e-6])


@pytest.mark.parametrize("setting", ["", "channels_last", "amp"])
def test_it_learns(setting: str, tiny_store: Path, tmp_path: Path) -> None:
    chosen = {setting: True} if setting else {}
    _train(
        tiny_store, tmp_path, iterations=6, batch=2, milestones=(), base_lr=2e-3, log_every=3, save_every=6, **chosen
    )
    first, last = (line["loss"] for line in logged(tmp_path))
    assert last < 0.9 * first


def test_accumulated_gradients_equal_the_larger_batchs(tiny_store: Path, undisturbed: Path, tmp_path: Path) -> None:
    """But for float32's rounding: where a pool's largest inputs are equal but for that, the gradient takes another of them."""
    at_once = _train(tiny_store, tmp_path, accumulate=1, ema=0.9)
    _assert_same(_content(undisturbed, "step-00000003.pt"), _content(at_once, "step-00000003.pt"), within=1e-2)
    for ours, theirs in zip(logged(undisturbed), logged(at_once), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)


def test_sigterm_saves_and_the_run_goes_on_to_the_same_weights(
    tiny_store: Path, undisturbed: Path, tmp_path: Path, stop_at, capsys
) -> None:
    stop_at(1, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    _train(tiny_store, tmp_path, ema=0.9)
    saved = steps_saved(tmp_path / "checkpoints")[-1]
    assert saved < 6
    assert f"asked to stop: saved after step {saved}" in capsys.readouterr().out
    stop_at(-1, _raise)
    _train(tiny_store, tmp_path, resume=True, ema=0.9)
    _assert_same(_content(tmp_path), _content(undisturbed))
    assert logged(tmp_path) == logged(undisturbed)


def test_a_loss_that_is_not_finite_stops_with_step_clips_and_last_good_checkpoint(
    tiny_store: Path, tmp_path: Path, stop_at
) -> None:
    def spoil(learner) -> None:
        with torch.no_grad():
            learner.model.conf[0].weight[0, 0, 0, 0] = torch.nan

    stop_at(2, spoil)
    with pytest.raises(InputError) as stopped:
        _train(tiny_store, tmp_path, save_every=1)
    assert stopped.value.what == "the loss is nan at step 2"
    assert "from frame" in stopped.value.found
    assert "view 1" in stopped.value.found
    assert "step-00000001.pt" in stopped.value.todo
    newest = newest_checkpoint(tmp_path / "checkpoints")
    assert newest is not None
    assert newest.name == (tmp_path / "checkpoints/last.pt").resolve().name == "step-00000001.pt"
    assert all(value.isfinite().all() for value in read_checkpoint(newest)[0]["model"].values())


def test_no_checkpoint_holds_weights_that_are_not_finite(tiny_store: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="step 0"):
        _train(tiny_store, tmp_path, base_lr=1e38, save_every=1)
    assert steps_saved(tmp_path / "checkpoints") == []


def test_statistics_that_are_not_finite_are_not_saved(tiny_store: Path, tmp_path: Path, monkeypatch) -> None:
    def spoiled(learner, *args, **kwargs):
        values = real(learner, *args, **kwargs)
        next(m for m in learner.model.modules() if isinstance(m, torch.nn.BatchNorm2d)).running_var[0] = torch.inf
        return values

    real = train_step
    monkeypatch.setattr("trainer.training.train_step", spoiled)
    with pytest.raises(InputError, match="batch statistics are not finite after step 0"):
        _train(tiny_store, tmp_path, norm="batch", save_every=1)
    assert steps_saved(tmp_path / "checkpoints") == []


def test_batch_normalisation_of_one_frame_is_refused(tmp_path: Path) -> None:
    store = write_tiny_store(tmp_path, K=1)
    with pytest.raises(InputError, match=r"nothing to take a mean of[\s\S]*2 frames in 2 parts"):
        _train(store, tmp_path / "out", norm="batch", accumulate=2)


def test_a_training_that_ended_while_another_began_is_not_gone_back_on(
    tiny_store: Path, tmp_path: Path, monkeypatch
) -> None:
    _train(tiny_store, tmp_path, iterations=3)
    before = tmp_path / "checkpoints/step-00000003.pt"

    def late(out: Path) -> IO[str]:
        shutil.copy(before, before.with_name("step-00000006.pt"))
        return real(out)

    real = only_run
    monkeypatch.setattr("trainer.prepare.only_run", late)
    with pytest.raises(InputError, match="another training has just saved"):
        _train(tiny_store, tmp_path, resume=True)


def test_processes_that_diverge_at_once_set_one_checkpoint_aside(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint_path(tmp_path, step).write_bytes(b"")
    link_last(checkpoint_path(tmp_path, 2))
    error = Diverged(2, "the output is not finite", "NaN")
    for _ in range(2):
        assert "go on from" in str(_stopped_by(error, tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "diverged-step-00000002.pt", "last.pt", "step-00000001.pt"
    ]  # fmt: skip
    assert (tmp_path / "last.pt").resolve().name == "step-00000001.pt"
    for _ in range(2):
        assert "start again" in str(_stopped_by(Diverged(1, "it", "NaN"), tmp_path))
    assert not (tmp_path / "last.pt").is_symlink()


def test_the_best_checkpoint_is_kept_whatever_comes_after(
    tiny_store: Path, tmp_path: Path, monkeypatch, stop_at
) -> None:
    figures = iter([0.5, 0.4, 0.3, 0.6])
    monkeypatch.setattr("trainer.training._validate", lambda *_: next(figures))
    changed = {"eval_every": 1, "val_store": tiny_store, "save_every": 5}
    stop_at(3, _raise)
    with pytest.raises(_Stopped):
        _train(tiny_store, tmp_path, **changed)
    _, meta = read_checkpoint(tmp_path / "checkpoints/best.pt")
    assert (meta.step, meta.best) == (1, 0.5)
    stop_at(-1, _raise)
    _train(tiny_store, tmp_path, resume=True, **changed, iterations=4)
    _, meta = read_checkpoint(tmp_path / "checkpoints/best.pt")
    assert (meta.step, meta.best) == (4, 0.6)


def test_figures_of_another_validation_store_are_not_compared(
    tiny_store: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    figures = iter([0.9, 0.6, 0.7])
    monkeypatch.setattr("trainer.training._validate", lambda *_: next(figures))
    other, out = write_tiny_store(tmp_path / "other", 8), tmp_path / "run"
    _train(tiny_store, out, iterations=1, val_store=tiny_store)
    _train(tiny_store, out, iterations=2, resume=True)
    _train(tiny_store, out, iterations=3, resume=True, val_store=other)
    assert "--val-store is another one: the best so far, 0.900, is not compared with" in capsys.readouterr().out
    meta = read_checkpoint(out / "checkpoints/best.pt")[1]
    assert (meta.step, meta.best) == (3, 0.6)
    _train(tiny_store, out, iterations=4, resume=True, val_store=other)
    assert "is another one" not in capsys.readouterr().out
    assert read_checkpoint(out / "checkpoints/best.pt")[1].best == 0.7


def test_a_run_killed_between_its_newest_and_its_best_checkpoint_loses_neither(
    tiny_store: Path, tmp_path: Path, monkeypatch
) -> None:
    """What is written last is what a resumed run goes on from: it comes to the best one again."""
    monkeypatch.setattr("trainer.training._validate", lambda *_: 0.5)
    written: list[Path] = []

    def killed(path: Path, *rest: object) -> None:
        if written:
            raise _Stopped
        save_checkpoint(path, *rest)
        written.append(path)

    monkeypatch.setattr("trainer.training.save_checkpoint", killed)
    changed = {"iterations": 2, "save_every": 5, "val_store": tiny_store}
    with pytest.raises(_Stopped):
        _train(tiny_store, tmp_path, **changed)
    monkeypatch.setattr("trainer.training.save_checkpoint", save_checkpoint)
    _train(tiny_store, tmp_path, resume=True, **changed)
    assert read_checkpoint(tmp_path / "checkpoints/best.pt")[1].best == 0.5


def test_a_run_killed_while_it_validates_has_saved_and_validates_when_it_goes_on(
    tiny_store: Path, tmp_path: Path, monkeypatch
) -> None:
    changed = {"iterations": 2, "save_every": 5, "val_store": tiny_store}
    with monkeypatch.context() as killed:
        killed.setattr("trainer.training._validate", _raise)
        with pytest.raises(_Stopped):
            _train(tiny_store, tmp_path, **changed)
    assert read_checkpoint(tmp_path / "checkpoints/last.pt")[1].unscored
    with open(tmp_path / "metrics.jsonl", "a") as log:  # killed after it was told, before it was saved
        log.write('{"step": 2, "val_frame_map": 0.5, "val_video_map": 0.5}\n')
    _train(tiny_store, tmp_path, resume=True, **changed)
    assert [line["step"] for line in logged(tmp_path) if "val_frame_map" in line] == [2]
    for name in ("best", "last"):
        meta = read_checkpoint(tmp_path / f"checkpoints/{name}.pt")[1]
        assert (meta.step, meta.unscored) == (2, False)
        assert meta.best is not None


def test_a_rate_that_is_too_high_on_resuming_costs_no_checkpoint(tiny_store: Path, tmp_path: Path) -> None:
    _train(tiny_store, tmp_path, iterations=2, save_every=1, keep=1)
    for _ in range(2):
        with pytest.raises(
            InputError, match=r"weights are not finite after step 2[\s\S]*go on from .*step-00000002\.pt"
        ):
            _train(tiny_store, tmp_path, resume=True, iterations=4, save_every=1, keep=1, base_lr=1e38)
    assert steps_saved(tmp_path / "checkpoints") == [2]
    _train(tiny_store, tmp_path, resume=True, iterations=4, save_every=1, keep=1)
    assert steps_saved(tmp_path / "checkpoints") == [4]


def test_resuming_where_only_diverged_checkpoints_are_is_refused(tiny_store: Path, tmp_path: Path) -> None:
    _train(tiny_store, tmp_path, iterations=2, save_every=1, keep=1)
    saved = tmp_path / "checkpoints/step-00000002.pt"
    saved.rename(saved.with_name("diverged-step-00000002.pt"))
    with pytest.raises(InputError, match=r"of a run that diverged\n  found: diverged-step-00000002\.pt"):
        _train(tiny_store, tmp_path, resume=True, iterations=4)


def test_an_output_that_diverges_at_a_validation_costs_no_checkpoint(tiny_store: Path, tmp_path: Path) -> None:
    """The weights are huge, and finite."""
    changed = {"keep": 1, "iterations": 3, "val_store": tiny_store, "eval_every": 2}
    _train(tiny_store, tmp_path, iterations=1, keep=1)
    with pytest.raises(InputError, match=r"output for [\s\S]* is not finite[\s\S]*go on from .*step-00000001\.pt"):
        _train(tiny_store, tmp_path, resume=True, base_lr=1e4, **changed)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {
        "step-00000001.pt", "diverged-step-00000002.pt", "last.pt",
    }  # fmt: skip
    assert (tmp_path / "checkpoints/last.pt").exists()
    _train(tiny_store, tmp_path, resume=True, **changed)
    assert steps_saved(tmp_path / "checkpoints") == [3]


def test_weights_that_diverge_at_a_validation_are_told_by_their_step(tiny_store: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"weights are not finite after step 0[\s\S]*a smaller --base-lr"):
        _train(tiny_store, tmp_path, base_lr=1e38, eval_every=1, val_store=tiny_store)


@pytest.mark.parametrize("what", ["store", "validation store", "precision"])
def test_processes_that_would_train_otherwise_are_refused(
    what: str, tiny_store: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(Ranks, "agree", lambda self, asked, value: asked != what)
    with pytest.raises(InputError, match=f"the processes have not the same {what}\n  found: .* in process 0"):
        _train(tiny_store, tmp_path, val_store=tiny_store)


def test_a_run_killed_before_it_linked_its_last_checkpoint_links_it(
    tiny_store: Path, tmp_path: Path, monkeypatch
) -> None:
    last = tmp_path / "checkpoints/last.pt"

    def killed(path: Path) -> None:
        path.with_suffix(".link").symlink_to(path.name)
        raise _Stopped

    with monkeypatch.context() as at_link:
        at_link.setattr("trainer.training.link_last", killed)
        with pytest.raises(_Stopped):
            _train(tiny_store, tmp_path, iterations=1)
    assert not last.exists()
    _train(tiny_store, tmp_path, iterations=1, resume=True)
    assert last.resolve().name == "step-00000001.pt"
    assert not list(last.parent.glob("*.link"))


def test_validation_writes_both_figures(tiny_store: Path, tmp_path: Path, capsys) -> None:
    _train(tiny_store, tmp_path, iterations=1, val_store=tiny_store)
    assert f"validating on 2 train videos of {tiny_store}\n" in capsys.readouterr().out
    scored = [line for line in logged(tmp_path) if "val_frame_map" in line]
    assert len(scored) == 1
    assert 0 <= scored[0]["val_frame_map"] <= 1
    assert 0 <= scored[0]["val_video_map"] <= 1
    assert (tmp_path / "checkpoints/best.pt").exists()


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (
            {"card_text": CARD.replace('["Run", "Jump"]', '["Jump", "Run"]')},
            "in their classes\n  found: Jump, Run\n  wanted: Run, Jump\n  do: build it with",
        ),
        ({"K": 3}, "in their clip length K\n  found: 3\n  wanted: 2\n"),
        (None, "nowhere"),
    ],
)
def test_a_store_that_cannot_be_validated_on_is_refused_before_the_first_step(
    other: dict | None, told: str, tiny_store: Path, tmp_path: Path
) -> None:
    validated = tmp_path / "nowhere" if other is None else write_tiny_store(tmp_path, **other)
    with pytest.raises(InputError, match=told):
        _train(tiny_store, tmp_path / "out", val_store=validated)
    assert not (tmp_path / "out").exists()


def test_a_frozen_trunk_stays_as_it_was(tiny_store: Path, undisturbed: Path, tmp_path: Path) -> None:
    frozen = {"iterations": 2, "save_every": 1, "frozen": True, "weight_decay": 0.1}
    with pytest.raises(InputError, match=r"random numbers\n  wanted: --init"):
        _train(tiny_store, tmp_path, **frozen)
    assert not list(tmp_path.iterdir())
    _train(tiny_store, tmp_path, init=undisturbed / "checkpoints/last.pt", **frozen)
    before, after = (_content(tmp_path, f"step-0000000{step}.pt")["model"] for step in (1, 2))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [name for name in changed if ".conv1_" in name or ".conv5_" in name]
    assert {"backbone.convs.fc6.weight", "loc.0.weight"} <= changed


def test_averaged_weights_are_the_ones_that_are_loaded(undisturbed: Path) -> None:
    path = newest_checkpoint(undisturbed / "checkpoints")
    assert path is not None
    content, _ = read_checkpoint(path)
    model, _ = load_model(path)
    name = "loc.0.weight"
    assert torch.equal(model.state_dict()[name], content["average"][name])
    assert not torch.equal(content["model"][name], content["average"][name])


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"seed": 1}, "seed"), ({"batch": 4}, "batch"), ({"width": 0.125}, "width"), ({"frozen": True}, "frozen")],
)
def test_resuming_with_settings_that_change_the_run_is_refused(
    changed: dict, named: str, tiny_store: Path, undisturbed: Path
) -> None:
    with pytest.raises(InputError, match=f"another {named}"):
        _train(tiny_store, undisturbed, resume=True, ema=0.9, **changed)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda content: content["model"].popitem(), r"do not fit its own description"),
        (lambda content: content["meta"]["config"].update(colour=1), r"not those of this version\n  found: no setting colour"),
        (lambda content: content["meta"]["config"].pop("iterations"), r"found: iterations is missing"),
    ],
)  # fmt: skip
def test_a_whole_checkpoint_that_does_not_fit_is_refused(
    spoil, told: str, tiny_store: Path, undisturbed: Path, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoints/step-00000003.pt"
    content = torch.load(undisturbed / "checkpoints" / path.name, weights_only=True)
    spoil(content)
    path.parent.mkdir()
    with io.BytesIO() as memory:
        torch.save(content, memory)
        seal(memory)
        path.write_bytes(memory.getvalue())
    with pytest.raises(InputError, match=told):
        _train(tiny_store, tmp_path, resume=True, ema=0.9)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("array", ["frames/bytes", "targets/loc"])
def test_a_run_never_trains_on_a_changed_byte(array: str, workers: int, tiny_store: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(tiny_store, store)
    (data,) = (path for path in (store / f"shards/train-00000/{array}/c").rglob("*") if path.is_file())
    content = bytearray(data.read_bytes())
    for place in range(20, len(content), 200):  # so that the first clip is hit
        content[place] ^= 1
    data.write_bytes(content)
    with pytest.raises(InputError, match=rf"train-00000/{array.split('/')[0]}, row \d+ is damaged"):
        _train(store, tmp_path / "out", workers=workers, log_every=1)
    assert not logged(tmp_path / "out")


def test_two_trainings_in_one_folder(tiny_store: Path, tmp_path: Path, stop_at) -> None:
    def another(_: object) -> None:
        written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        for resume in (False, True):
            with pytest.raises(InputError, match="another training is at work in"):
                _train(tiny_store, tmp_path, seed=5, resume=resume)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == written

    stop_at(0, another)
    _train(tiny_store, tmp_path, iterations=1)
    stop_at(-1, _raise)
    _train(tiny_store, tmp_path, iterations=2, resume=True)


def test_where_nothing_can_be_locked_that_is_said(tmp_path: Path, monkeypatch, capsys) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "not there")

    with monkeypatch.context() as patch:
        patch.setattr("trainer.run_record.fcntl.flock", flock)
        only_run(tmp_path).close()
    assert "where nothing can be locked" in capsys.readouterr().out


def test_a_store_is_no_folder_for_a_run(tiny_store: Path) -> None:
    with pytest.raises(InputError, match=r"--out .* is a store"):
        _train(tiny_store, tiny_store)


def test_a_run_shorter_than_its_warm_up_is_told(tiny_store: Path, tmp_path: Path, capsys) -> None:
    _train(tiny_store, tmp_path, iterations=1, warmup=4)
    assert "whose rate rises to 2.5e-06 of 1e-05 only" in capsys.readouterr().out


def test_a_batch_that_cannot_be_shared_out_leaves_nothing(tiny_store: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a batch of 2 clips on 1 ranks in 3 parts"):
        _train(tiny_store, tmp_path / "out", accumulate=3)
    assert not (tmp_path / "out").exists()


def test_resuming_says_what_is_new_or_that_there_is_nothing(
    tiny_store: Path, undisturbed: Path, tmp_path, capsys
) -> None:
    _train(tiny_store, tmp_path / "new", resume=True, iterations=1)
    assert f"nothing to resume: no checkpoint in {tmp_path}/new/checkpoints" in capsys.readouterr().out
    _train(tiny_store, tmp_path / "new", resume=True, iterations=1, base_lr=0.5)
    told = capsys.readouterr().out
    assert re.search(r"other settings \(before / now\): base_lr [\d.e-]+ / 0\.5\n", told)
    assert "nothing to do: 1 steps are done" in told


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_anew(tiny_store: Path, tmp_path: Path) -> None:
    _train(tiny_store, tmp_path, iterations=2, save_every=1)
    for step in (1, 2):
        path = tmp_path / f"checkpoints/step-0000000{step}.pt"
        path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"is whole\n  found: step-00000001\.pt, step-00000002\.pt, all damaged"):
        _train(tiny_store, tmp_path, iterations=2, resume=True)
    with pytest.raises(InputError, match=r"holds a run already\n  found: step-00000002\.pt"):
        _train(tiny_store, tmp_path, iterations=2)


def test_resuming_on_a_store_that_has_grown_is_refused(undisturbed: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="another number of clips\n  found: 15\n  wanted: 16"):
        _train(write_tiny_store(tmp_path, frames_of_b=8), undisturbed, resume=True, ema=0.9)


def test_a_resumed_run_keeps_where_its_weights_came_from(tiny_store: Path, undisturbed: Path, tmp_path: Path) -> None:
    first = newest_checkpoint(undisturbed / "checkpoints")
    changed = {"iterations": 1, "save_every": 1}
    config = dataclasses.replace(CONFIG, **changed)
    train(Job(tiny_store, tmp_path, init=first), config, ALONE)
    told = (tmp_path / "weights.txt").read_text()
    assert "file step-" in told
    _train(tiny_store, tmp_path, resume=True, iterations=2)
    assert (tmp_path / "weights.txt").read_text() == told
    assert json.loads((tmp_path / "run.json").read_text())["init"] == str(first)


def test_a_run_is_not_overwritten(tiny_store: Path, undisturbed: Path) -> None:
    with pytest.raises(InputError, match="holds a run already"):
        _train(tiny_store, undisturbed)


def test_profile_names_where_time_goes_and_trains_nothing(tiny_store: Path, tmp_path: Path, capsys) -> None:
    train(Job(tiny_store, tmp_path, profile=1), CONFIG, ALONE)
    told = capsys.readouterr().out
    assert "backbone, forward" in told
    assert "The CPU waited for data" in told
    assert "measuring on" in told
    assert "training" not in told
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert not (tmp_path / "checkpoints").exists()


def test_deterministic_is_set_before_a_gpu_is_used(tiny_store: Path, tmp_path: Path, monkeypatch) -> None:
    import trainer.distributed

    def joined(_: str) -> Ranks:
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
        return ALONE

    monkeypatch.setattr(trainer.distributed, "join", joined)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(sys, "argv", ["run", *_options(tiny_store, tmp_path, iterations=1), "--deterministic"])
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        torch.use_deterministic_algorithms(False)
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    assert ended.value.code == 0
    assert steps_saved(tmp_path / "checkpoints") == [1]


@pytest.mark.parametrize(
    ("flags", "given", "amp"),
    [("bf16", [], True), ("avx2", [], False), ("avx2", ["--amp"], True), ("bf16", ["--no-amp"], False)],
)
def test_a_cpu_without_bfloat16_does_not_imitate_it_unless_asked(
    flags: str, given: list[str], amp: bool, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import trainer.bfloat16
    import trainer.training

    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : fpu {flags} sse2\n")
    there = functools.partial(trainer.bfloat16.has_bfloat16, cpuinfo=tmp_path / "cpuinfo")
    seen = []
    monkeypatch.setattr(trainer.bfloat16, "has_bfloat16", there)
    monkeypatch.setattr(trainer.training, "train", lambda job, config, ranks: seen.append(config.amp))
    ended = CliRunner().invoke(cli, ["--store", str(tiny_store), "--preset", "demo", "--device", "cpu", *given])
    assert ended.exit_code == 0, ended.exception
    assert seen == [amp]
    assert ("no bfloat16 in this device" in ended.output) == (flags == "avx2" and not given)


@pytest.mark.parametrize(("capability", "has"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_has_bfloat16_from_ampere_on(capability: tuple[int, int], has: bool, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_bfloat16(torch.device("cuda", 0)) == has


def test_help_names_every_setting() -> None:
    told = CliRunner().invoke(cli, ["--help"]).output
    for field in dataclasses.fields(Config):
        assert "--" + field.name.replace("_", "-") in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--preset", "dmeo"], "did you mean demo?"),
        (["--preset", "demo", "--store", "nowhere"], "nowhere"),
        (["--preset", "demo", "--batch", "0"], "batch"),
        (["--preset", "demo", "--milestones", "1,x"], "1,x"),
        (["--preset", "demo", "--eval-every", "5"], "--val-store"),
        (["--preset", "demo", "--profile", "5", "--compile"], "add --no-compile"),
    ],
)
def test_bad_input_ends_with_2_and_a_message(arguments, told, tiny_store, tmp_path, monkeypatch, capsys) -> None:
    given = ["run", "--store", str(tiny_store), "--out", str(tmp_path), *arguments]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def _options(store: Path | str, out: Path, **changed: object) -> list[str]:
    options = dataclasses.asdict(dataclasses.replace(CONFIG, **changed))
    options["milestones"] = ",".join(map(str, options["milestones"]))
    given = [f"--{k.replace('_', '-')}={v}" for k, v in options.items() if not isinstance(v, bool)]
    given += ["--compile"] * options["compile"]
    return ["--store", str(store), "--preset", "demo", "--out", str(out), "--resume",
            *given, "--distort", "--no-amp", "--no-channels-last"]  # fmt: skip


def test_two_ranks_equal_one_and_each_goes_on_where_the_other_was(
    tiny_store: Path, undisturbed: Path, tmp_path: Path, capsys
) -> None:
    """Bit for bit, as by default they compute the same parts."""

    def two_equal_one(out: Path, said: Path) -> None:
        ended = ranks.trained(2, _options(tiny_store, out, ema=0.9), said)
        assert [rank.code for rank in ended] == [0, 0], ended
        assert "Warning" not in ended[0].err
        _assert_same(_content(out), _content(undisturbed))
        for ours, theirs in zip(logged(out), logged(undisturbed), strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)

    two_equal_one(tmp_path, tmp_path / "said")

    begun_by_one = tmp_path / "one"
    shutil.copytree(undisturbed, begun_by_one)
    (begun_by_one / "checkpoints/step-00000006.pt").unlink()
    two_equal_one(begun_by_one, tmp_path / "then")

    newest = tmp_path / "checkpoints/step-00000006.pt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    _train(tiny_store, tmp_path, resume=True, ema=0.9)
    told = capsys.readouterr()
    assert f"warning: checkpoint {newest} is damaged" in told.err
    assert "note:" not in told.out
    assert "steps 3 to 6" in told.out
    _assert_same(_content(tmp_path), _content(undisturbed))


def test_a_loss_that_is_not_finite_on_one_rank_stops_both(tiny_store: Path, tmp_path: Path) -> None:
    options = _options(tiny_store, tmp_path, iterations=1000, save_every=1)
    ended = ranks.trained(2, options, tmp_path / "said", ranks.spoil)
    assert [rank.code for rank in ended] == [2, 2], ended
    for rank in ended:
        assert "the loss is nan at step 2" in rank.err
        assert "step-00000001.pt by --resume" in rank.err
        assert "Traceback" not in rank.err
    assert "found: clips of another process" in ended[0].err
    assert re.search(r"found: clips (Run/a|Jump/b) from frame \d+, view 1\n", ended[1].err)


def test_loss_and_network_are_one_graph_each_without_data_dependent_shapes_and_learn(
    tiny_store: Path, tmp_path: Path
) -> None:
    """In a process without the hook that checks types, and without making code of the graphs.

    The latter takes minutes: `python -m tests.benchmarks.compiled`.
    """
    options = _options(
        tiny_store, tmp_path, iterations=12, milestones=(), base_lr=1e-3, log_every=6, save_every=12, compile=True
    )
    (ended,) = ranks.trained(1, options, tmp_path / "said", ranks.compile_to_one_graph)
    assert ended.code == 0, ended.err
    first, last = (line["loss"] for line in logged(tmp_path))
    assert last < 0.9 * first


def test_a_clip_that_one_rank_cannot_read_stops_both(tiny_store: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(tiny_store, store)
    stream = next(store.glob("shards/*/frames/bytes/c/0"))
    content = bytearray(stream.read_bytes())
    content[300] ^= 1
    stream.write_bytes(content)
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "trainer.run"]
    command = [sys.executable, *start, *_options(store, tmp_path / "out", iterations=40)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert ended.returncode != 0
    assert "frame 0 of video" in ended.stderr
    assert ended.stderr.count("error: another process of this run stopped") == 1
    assert ended.stderr.count("Traceback") <= 1  # torchrun's own


def test_the_loaders_workers_end_with_the_training(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with the process, which may be a notebook's, nor when nothing of the run is left: tracebacks hold it for long."""
    import trainer.training

    real, held, before = trainer.training._go_through, [], set(multiprocessing.active_children())

    def hold(*run: object) -> bool:
        held.append(run)
        return real(*run)

    monkeypatch.setattr(trainer.training, "_go_through", hold)
    _train(tiny_store, tmp_path, workers=1, iterations=1)
    assert set(multiprocessing.active_children()) <= before


def test_signals_that_reach_the_loaders_workers_too(tiny_store: Path, tmp_path: Path) -> None:
    """As Ctrl-C in a terminal and a scheduler's stop do: workers leave it to the run."""
    running = {}
    for sent in (signal.SIGINT, signal.SIGTERM):
        said = tmp_path / f"{sent.name}-said"
        said.mkdir()
        options = _options(tiny_store, tmp_path / sent.name, iterations=10_000, log_every=1, workers=1)
        ((running[sent], _),) = ranks.start(1, ranks.train, options, said, ranks.lead_a_group)
    for sent, process in running.items():
        written = tmp_path / sent.name / "metrics.jsonl"
        while not (written.exists() and written.stat().st_size):
            assert process.is_alive()
            time.sleep(0.005)
        os.killpg(process.pid, sent)
    for sent, process in running.items():
        process.join(100)
        told, complained = ((tmp_path / f"{sent.name}-said/0.{name}").read_text() for name in ("out", "err"))
        saved = re.search(r"asked to stop: saved after step (\d+)", told)
        assert saved
        assert (tmp_path / sent.name / f"checkpoints/step-{int(saved[1]):08d}.pt").is_file()
        assert ("Ctrl-C: saves after this step" in complained) == (sent == signal.SIGINT)
        assert complained.endswith("interrupted\n") == (sent == signal.SIGINT)
        assert "done in" not in told
        assert "Traceback" not in complained
    assert [process.exitcode for process in running.values()] == [130, 0]


def test_a_killed_run_goes_on_to_the_same_weights(tiny_store: Path, undisturbed: Path, tmp_path: Path) -> None:
    (tmp_path / "said").mkdir()
    ((running, _),) = ranks.start(1, ranks.train, _options(tiny_store, tmp_path, ema=0.9), tmp_path / "said")
    while not (tmp_path / "checkpoints/step-00000003.pt").exists():
        assert running.is_alive()
        time.sleep(0.005)
    running.kill()
    running.join()
    _train(tiny_store, tmp_path, resume=True, ema=0.9)
    _assert_same(_content(tmp_path), _content(undisturbed))
    assert logged(tmp_path) == logged(undisturbed)


def test_a_run_on_a_url_is_the_run_on_the_folder(s3: str, tiny_store: Path, undisturbed: Path, tmp_path: Path) -> None:
    url, cache = f"{s3}/trained", tmp_path / "cache"
    upload(tiny_store, ObjectStore(url))
    ended = CliRunner().invoke(cli, [*_options(url, tmp_path / "out", ema=0.9), "--cache", str(cache)])
    assert ended.exit_code == 0, ended.exception
    assert f"of {url} into {cache}" in ended.stderr
    _assert_same(_content(tmp_path / "out"), _content(undisturbed))
    assert logged(tmp_path / "out") == logged(undisturbed)
    assert json.loads((tmp_path / "out/run.json").read_text())["store"] == url


def test_a_run_that_passed_over_a_damaged_checkpoint_keeps_what_it_saves(tiny_store: Path, tmp_path: Path) -> None:
    _train(tiny_store, tmp_path, iterations=2, save_every=1)
    newest = tmp_path / "checkpoints/step-00000002.pt"
    newest.with_name("step-00000003.pt").write_bytes(newest.read_bytes()[:-1000])
    newest.unlink()
    _train(tiny_store, tmp_path, iterations=2, save_every=1, keep=1, resume=True)
    assert steps_saved(tmp_path / "checkpoints") == [2, 3], "the damaged one is neither counted nor removed"
    assert (tmp_path / "checkpoints/last.pt").resolve().name == "step-00000002.pt"


@pytest.mark.parametrize(
    "changed",
    [
        {"norm": "batch", "channels_last": True, "accumulate": 2, "ema": 0.9, "clip_norm": 10.0},
        {"frozen": True, "amp": True, "batch": 1, "warmup": 3, "schedule": "cosine", "milestones": ()},
    ],
    ids=["batch norm, channels last, in parts, averaged, clipped", "frozen, bfloat16, warm-up, cosine"],
)
def test_whatever_the_settings_a_resumed_run_equals_the_whole_one(
    changed: dict, tiny_store: Path, undisturbed: Path, tmp_path: Path
) -> None:
    if "frozen" in changed:
        changed = {**changed, "init": undisturbed / "checkpoints/last.pt"}
    changed = {"iterations": 2, "save_every": 1, "log_every": 2, "base_lr": 1e-3} | changed
    whole = _train(tiny_store, tmp_path / "whole", **changed)
    resumed = tmp_path / "resumed"
    (resumed / "checkpoints").mkdir(parents=True)
    shutil.copy(whole / "checkpoints/step-00000001.pt", resumed / "checkpoints")
    _train(tiny_store, resumed, resume=True, **changed)
    _assert_same(_content(resumed), _content(whole))
    assert logged(resumed) == logged(whole)
