"""Several ranks that run `trainer.evaluate`, or validate, on one small store of noise."""

from __future__ import annotations

import os
import sys
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

import trainer.checkpoint
import trainer.distributed
import trainer.evaluate
import trainer.evaluation
import trainer.evaluation_table
import trainer.pictures
import trainer.prepare
import trainer.training
from data_manifests.errors import run_command_line
from data_manifests.prior_spec import ACT300
from tests.trainer import ranks
from tests.trainer.memory_store import MemoryStore
from trainer.data.reader import Store
from trainer.detection.find import Detector
from trainer.detection.tubelets import VideoTubelets
from trainer.detections_file import weights_digest
from trainer.model import ActNet
from trainer.peers import Peers
from trainer.prepare import Job

LENGTHS, LABELS = (4, 17, 5, 1, 6, 3), ((0,), (0, 1), (), (1,), (1, 1), (0,))


def model_and_store() -> tuple[ActNet, MemoryStore]:
    """The same on every rank."""
    torch.manual_seed(0)
    return ActNet(ACT300, 2, 2, 1 / 16), MemoryStore(LENGTHS, LABELS)


def start(
    out: Path, checkpoint: Path, world: int, errors: Path, *, stuck: int | None = None
) -> list[tuple[BaseProcess, Connection]]:
    """Starts `world` ranks; each tells a video's name when it begins with it.

    Args:
        errors: folder for what each rank says on stderr, `0`, `1`, ...
        stuck: a rank that never gets done with its second video, while the others take their time.
    """
    return ranks.start(world, _evaluate, out, checkpoint, errors, stuck)


def start_validation() -> list[tuple[BaseProcess, Connection]]:
    """Starts two ranks of a training run that validates.

    Each tells the digest of the network that it validates, whether the two agree on 5 and on their ranks, what it
    gathers of {rank: rank}, and what it takes of 7, 8 and 9.
    """
    return ranks.start(2, _validate)


def _validate(rank: int, tell: Connection) -> None:
    joined = trainer.distributed.join("cpu")
    torch.manual_seed(0)
    model = ActNet(ACT300, 2, 2, 1 / 16, "batch")
    for buffer in model.buffers():
        buffer.fill_(1 + rank)  # as after a step, which moves each rank's by its own clips
    validated: list[str] = []

    def evaluate(model: ActNet, store: object, device: torch.device) -> dict[str, dict[str, float]]:
        validated.append(weights_digest(model))
        return {"frame_map": {"0.5": 0.0}, "video_map": {"0.5": 0.0}}

    trainer.evaluation.open_store = lambda *_: (None, "")  # type: ignore[assignment, return-value]
    trainer.evaluation.evaluate_store = evaluate  # type: ignore[assignment]
    job = Job(Path("store"), Path("out"), val_store=Path("val"))
    trainer.training._validate(model, job, joined, None, 1)
    peers = Peers.here()
    gathered, taken = peers.gather({rank: rank}), list(peers.take([7, 8, 9]))
    agreed = [joined.agree("five", 5), joined.agree("rank", rank)]
    tell.send((validated, agreed, gathered, taken))
    peers.wait()  # rank 0 holds the counter


def _evaluate(rank: int, tell: Connection, out: Path, checkpoint: Path, errors: Path, stuck: int | None) -> None:
    sys.stderr = open(errors / str(rank), "w")  # noqa: SIM115
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    store = model_and_store()[1]
    Store.open = classmethod(lambda cls, path, split=None: store)  # type: ignore[assignment, method-assign]

    begun: list[str] = []
    is_stuck = errors / "stuck"
    compute = Detector.video

    def video(self: Detector, blocks: object, frames: int, width: int, height: int, name: str) -> VideoTubelets:
        begun.append(name)
        hangs = rank == stuck and len(begun) == 2
        if hangs:
            is_stuck.touch()
        tell.send(name)
        if hangs:
            time.sleep(60)
        while stuck not in (None, rank) and not is_stuck.exists():  # else they might leave it nothing to be stuck in
            time.sleep(0.05)
        return compute(self, blocks, frames, width, height, name)

    Detector.video = video  # type: ignore[assignment, method-assign]
    trainer.distributed._PATIENCE = 0.1
    sys.argv = ["evaluate", "--store", "noise", "--checkpoint", f"{checkpoint}", "--out", f"{out}", "--device", "cpu"]
    run_command_line(trainer.evaluate.main)
