"""On a real GPU: what other tests hold by construction. Skipped where there is none."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import trainer.step
from data_manifests.errors import InputError
from data_manifests.prior_spec import ACT300
from tests.gpu import needs_gpu
from tests.trainer.sparse_targets import noise_batch, sparse_targets
from trainer.checkpoint import read_checkpoint
from trainer.config import Config
from trainer.data.batch import Batch
from trainer.detection.find import Detector
from trainer.distributed import Ranks
from trainer.gradients import GradientSum
from trainer.logs import LAG, Watch
from trainer.loss import tubelet_loss
from trainer.model import ActNet
from trainer.model.initial import initialise
from trainer.optim import Average, make_optimiser, parameter_groups, set_rate
from trainer.stages import Clock, profile_steps
from trainer.step import Learner, train_step

pytestmark = needs_gpu
HOST, GPU = torch.device("cpu"), torch.device("cuda", 0)
CONFIG = Config(
    width=1 / 16, norm="batch", iterations=6, batch=2, base_lr=1e-3, schedule="step", clip_norm=1.0, distort=True
)
LONG = 2_000_000_000
"""Cycles of the GPU: about a second."""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def exact() -> Iterator[None]:
    """Convolutions in float32, not in TF32."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield
    torch.backends.cudnn.allow_tf32 = before


def _learner(config: Config, device: torch.device) -> Learner:
    model = ActNet(ACT300, 2, 2, config.width, config.norm)
    initialise(model, 0)
    model.to(device)
    optimiser = make_optimiser(parameter_groups(model, config), config)
    set_rate(optimiser, config.base_lr)
    return Learner(model, model, GradientSum(model, max(1, config.accumulate)), optimiser)


def _step(learner: Learner, parts: list[Batch], config: Config = CONFIG, step: int = 0) -> torch.Tensor:
    ranks = Ranks(0, 1, next(learner.model.parameters()).device)
    return train_step(learner, parts, step, config=config, ranks=ranks, clock=Clock())


@pytest.mark.parametrize("settings", [{}, {"amp": True}, {"norm": "none", "clip_norm": 0.0}, {"accumulate": 2}])
def test_a_step_returns_while_the_gpu_has_not_begun_it(settings: dict) -> None:
    """Nothing in it waits: not for a value, not for a shape, not for a copy."""
    config = dataclasses.replace(CONFIG, **settings)
    learner, watch = _learner(config, GPU), Watch(GPU)
    average = Average(learner.model, 0.9)
    parts = [noise_batch((3, 5), seed=seed).pin_memory() for seed in range(max(1, config.accumulate))]
    for step in range(3):  # memory is taken and kernels are chosen, which does wait
        watch.push(step, _step(learner, parts, config), ())
        average.update(learner.model, step)
    watch.take(0)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.cuda._sleep(LONG)
        awake = torch.cuda.Event()
        awake.record()
        watch.push(3, _step(learner, parts, config), ())
        average.update(learner.model, 3)
        full = config.accumulate > 1  # the GPU's queue of some thousand launches: then the host waits for room in it
        assert full or not awake.query()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert watch.take(0)[0].loss > 0


def test_the_loss_is_that_of_the_cpu() -> None:
    for seed, positives in enumerate([(4, 9, 1), (0, 5), (0, 0), (300, 2)]):
        random = torch.Generator().manual_seed(seed)
        outputs = (
            torch.randn(len(positives), 8396, 2, 4, generator=random),
            torch.randn(len(positives), 8396, 4, generator=random),
        )
        targets = sparse_targets(positives, ignored=3, priors=8396, seed=seed)
        told = {}
        for device in (HOST, GPU):
            loc, conf = (output.clone().to(device).requires_grad_() for output in outputs)
            moved = {name: rows.to(device) for name, rows in targets.items()}
            normaliser = torch.tensor(float(sum(positives)), device=device)
            losses = tubelet_loss(loc, conf, **moved, positives=positives, normaliser=normaliser)
            losses.total.backward()
            mined = losses.mined[losses.is_mined].sort().values
            told[device.type] = [value.detach().cpu() for value in (losses.total, loc.grad, conf.grad, mined)]
        assert torch.equal(told["cpu"][-1], told["cuda"][-1])
        torch.testing.assert_close(told["cuda"], told["cpu"], rtol=1e-5, atol=1e-8)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_steps_are_those_of_the_cpu(norm: str) -> None:
    config = dataclasses.replace(CONFIG, norm=norm)
    learners = [_learner(config, device) for device in (HOST, GPU)]
    for step in range(3):
        batch = noise_batch((3, 5), seed=step)
        ours, theirs = (_step(learner, [batch], config, step).cpu() for learner in learners)
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=0)


def test_it_learns_in_bfloat16_with_channels_last() -> None:
    config = dataclasses.replace(CONFIG, amp=True, width=1 / 8, base_lr=0.01, clip_norm=0.0, distort=False)
    learner = _learner(config, GPU)
    learner.model.to(memory_format=torch.channels_last)
    batch = noise_batch((12, 7)).pin_memory()
    losses = [_step(learner, [batch], config)[0] for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("slow", "named"), [("loader", "the loader"), ("loss", "the loss"), ("backbone", "the backbone")]
)
def test_the_gpus_own_clock_finds_the_slow_part(slow: str, named: str, monkeypatch, tmp_path: Path) -> None:
    learner = _learner(CONFIG, GPU)
    batch = noise_batch((3, 2)).pin_memory()
    if slow == "backbone":
        learner.model.backbone.convs["conv6_1"].register_forward_hook(lambda *_: torch.cuda._sleep(LONG // 4))
    if slow == "loss":
        real = trainer.step.tubelet_loss

        def slow_loss(*args, **kwargs):
            torch.cuda._sleep(LONG // 4)
            return real(*args, **kwargs)

        monkeypatch.setattr(trainer.step, "tubelet_loss", slow_loss)

    def run_step(clock: Clock) -> None:
        if slow == "loader":
            time.sleep(0.2)
        train_step(learner, [batch], 0, config=CONFIG, ranks=Ranks(0, 1, GPU), clock=clock)

    begun = time.perf_counter()
    told = profile_steps(2, run_step, learner.model, Ranks(0, 1, GPU), tmp_path).splitlines()[-1]
    assert time.perf_counter() - begun < 30
    assert told.startswith("The GPU waited for data")
    assert f"went to {named}" in told
    spent = json.loads((tmp_path / "profile.json").read_text())["seconds_a_step"]
    if slow == "loader":
        assert 0.15 < spent["data wait"] < 0.25
    else:
        assert spent["data wait"] < 0.02
    assert any(
        event.get("cat") == "kernel" for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    )


def test_a_loss_that_is_not_finite_is_told_two_steps_later_with_its_clips() -> None:
    learner, watch = _learner(CONFIG, GPU), Watch(GPU)
    batch = noise_batch((3, 2)).pin_memory()
    with torch.no_grad():
        next(learner.model.backbone.parameters()).fill_(torch.nan)
    for step in range(2):
        watch.push(step, _step(learner, [batch]), batch.clips)
        assert not watch.take(LAG)
    watch.push(2, _step(learner, [batch]), batch.clips)
    with pytest.raises(InputError, match=r"the loss is nan at step 0\n.*Noise/v_1 from frame 1, view 1"):
        watch.take(LAG)


@pytest.mark.usefixtures("exact")
def test_detections_are_those_of_the_cpu() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (9, 300, 300, 3), np.uint8)
    model = _learner(CONFIG, HOST).model.eval()
    found = {}
    for device in (HOST, GPU):
        detector = Detector(model.to(device), torch.rand(8396, 4), (0.1, 0.1, 0.2, 0.2), device)
        detector = dataclasses.replace(detector, priors=torch.rand(8396, 4, generator=torch.Generator().manual_seed(1)))
        found[device.type] = detector.video([frames[:4], frames[4:]], 9, 64, 48, "a")
    assert len(found["cpu"].any_scores) == len(found["cuda"].any_scores)
    np.testing.assert_allclose(
        np.sort(found["cuda"].any_scores[:, 0]), np.sort(found["cpu"].any_scores[:, 0]), rtol=1e-3
    )


def _run(store: Path, out: Path, *more: str) -> Path:
    command = [
        sys.executable, "-m", "trainer.run", "--store", store, "--preset", "demo", "--out", out, "--device", "cuda",
        "--iterations", "6", "--save-every", "3", "--keep", "9", "--log-every", "1", "--warmup", "2", "--workers", "1",
        *more,
    ]  # fmt: skip
    done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_deterministic_runs_and_one_that_goes_on_are_equal_bit_for_bit(tiny_store: Path, tmp_path: Path) -> None:
    whole, again = (_run(tiny_store, tmp_path / name, "--deterministic", "--distort") for name in "ab")
    resumed = tmp_path / "c" / "checkpoints"
    resumed.mkdir(parents=True)
    shutil.copy(whole / "checkpoints" / "step-00000003.pt", resumed)
    _run(tiny_store, tmp_path / "c", "--deterministic", "--distort", "--resume")
    contents = [read_checkpoint(out / "checkpoints" / "last.pt")[0] for out in (whole, again, tmp_path / "c")]
    for one, other in itertools.pairwise(contents):
        assert one["model"].keys() == other["model"].keys()
        assert all(torch.equal(one["model"][name], other["model"][name]) for name in one["model"])
        for (_, a), (_, b) in zip(one["optimiser"].items(), other["optimiser"].items(), strict=True):
            assert torch.equal(a["momentum_buffer"], b["momentum_buffer"])


def test_a_compiled_run_learns_what_one_that_is_not_compiled_does(tiny_store: Path, tmp_path: Path) -> None:
    settings = ("--iterations", "20", "--base-lr", "0.01", "--no-distort", "--log-every", "5")
    told = {}
    for compiled in ("--no-compile", "--compile"):
        out = _run(tiny_store, tmp_path / compiled, *settings, compiled)
        lines = (out / "metrics.jsonl").read_text().splitlines()
        told[compiled] = [json.loads(line)["loss"] for line in lines]
    assert told["--compile"][-1] < 0.8 * told["--compile"][0]
    np.testing.assert_allclose(told["--compile"], told["--no-compile"], rtol=0.05)
