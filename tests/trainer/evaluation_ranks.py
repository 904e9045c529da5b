"""One rank of a test's evaluation: RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT as torchrun sets them. Usage: ... OUT"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from data_manifests.prior_spec import ACT300
from tests.trainer.memory_store import MemoryStore
from trainer.evaluation import evaluate_store, write_json
from trainer.model import ActNet

LENGTHS, LABELS = (4, 19, 8, 1, 17, 3), ((0,), (0, 1), (), (1,), (1, 1), (0,))


def model_and_store() -> tuple[ActNet, MemoryStore]:
    """The same on every rank."""
    torch.manual_seed(0)
    return ActNet(ACT300, 2, 2, 1 / 16), MemoryStore(LENGTHS, LABELS)


def main() -> None:
    """Evaluates, and writes `metrics.json` on rank 0; PAUSE seconds after each video, so that a test can kill it in between."""
    out = Path(sys.argv[1])
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        torch.set_num_threads(1)  # as torchrun does
        dist.init_process_group("gloo")
    model, store = model_and_store()

    def pause(video_id: str, done: int, total: int) -> None:
        print(video_id, flush=True)
        time.sleep(float(os.environ.get("PAUSE", "0")))

    metrics = evaluate_store(model, store, device=torch.device("cpu"), out=out, progress=pause)
    if int(os.environ.get("RANK", "0")) == 0:
        write_json(out / "metrics.json", metrics)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
