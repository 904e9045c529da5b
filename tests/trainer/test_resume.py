"""What a resumed run keeps of the run that it goes on with."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from data_manifests.prior_spec import ACT300
from trainer.checkpoint import CheckpointMeta
from trainer.config import load_config
from trainer.distributed import Ranks
from trainer.resume import changes_told, parts_of_share

META = CheckpointMeta(7, 2, ("Up", "Down"), 1 / 16, "none", ACT300, "", {})


@pytest.mark.parametrize(
    ("before", "processes", "accumulate", "parts"),
    [
        (8, 8, 0, 1),
        (8, 4, 0, 2),
        (8, 1, 0, 8),
        (4, 8, 0, 1),  # more processes than there were parts
        (8, 3, 0, 4),  # of 24 clips: parts of two, before of three
        (8, 4, 1, 1),  # as it was said
        (8, 4, 4, 4),
        (0, 2, 0, 1),  # a checkpoint of before parts were recorded
    ],
)
def test_a_resumed_run_keeps_the_parts_of_its_steps(before: int, processes: int, accumulate: int, parts: int) -> None:
    config = load_config("demo", {"accumulate": accumulate, "batch": 24})
    assert parts_of_share(dataclasses.replace(META, parts=before), config, processes) == parts


def test_an_older_checkpoint_told_the_parts_among_its_settings() -> None:
    config = load_config("demo", {"batch": 8})
    assert parts_of_share(dataclasses.replace(META, config={"accumulate": 4}), config, 2) == 4


@pytest.mark.parametrize(
    ("batch", "processes", "norm", "parts"),
    [
        (8, 1, "none", 2),
        (8, 2, "none", 1),
        (8, 4, "none", 1),
        (7, 1, "none", 1),
        (1, 1, "none", 1),
        (8, 1, "batch", 1),  # else a clip would be normalised with fewer others
        (4, 4, "batch", 1),
    ],
)
def test_a_new_runs_steps_have_two_parts(batch: int, processes: int, norm: str, parts: int) -> None:
    assert parts_of_share(None, load_config("demo", {"batch": batch, "norm": norm}), processes) == parts
    assert parts_of_share(None, load_config("demo", {"accumulate": 3}), processes) == 3


@pytest.mark.parametrize(
    ("before", "norm", "parts", "device", "told"),
    [
        ({}, "none", 2, "cpu", []),
        ({}, "none", 4, "cpu", []),  # of how many it was is not known
        ({"parts": 1}, "none", 2, "cpu", ["note: parts of a step 1 / 2 (before / now): its gradients are rounded"]),
        (
            {"parts": 2},
            "batch",
            1,
            "cpu",
            ["note: parts of a step 2 / 1 (before / now): its clips, each part by itself,"],
        ),
        ({"parts": 2}, "none", 2, "cpu", []),
        ({"parts": 4}, "none", 4, "cpu", ["4 parts a process: a step's gradients stay the sum of 4"]),
        ({"threads": torch.get_num_threads()}, "none", 2, "cpu", []),
        (
            {"threads": 99},
            "none",
            2,
            "cpu",
            [f"note: threads of a process 99 / {torch.get_num_threads()} (before / now)"],
        ),
        ({"threads": 99}, "none", 2, "cuda", []),
        ({"config": {"seed": 5}}, "none", 2, "cpu", ["going on with other settings (before / now): seed 5 / 0"]),
    ],
)
def test_it_is_told_what_is_not_as_it_was(before: dict, norm: str, parts: int, device: str, told: list[str]) -> None:
    of, config = dataclasses.replace(META, **before), load_config("demo", {"norm": norm})
    lines = list(changes_told(of, config, Ranks(0, 1, torch.device(device)), parts))
    assert len(lines) == len(told)
    assert all(line.startswith(beginning) for line, beginning in zip(lines, told, strict=True))
