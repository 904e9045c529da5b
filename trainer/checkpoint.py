"""Checkpoints: everything a run needs to go on, written in one step, the newest valid one found again."""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data_manifests.errors import InputError
from data_manifests.manifest import remove_unfinished, write_atomically
from data_manifests.prior_spec import PriorLayer, PriorSpec
from trainer.model import ActNet
from trainer.model.weights import why_unread
from trainer.seal import check_seal, seal

VERSION = 1
LAST = "last.pt"
"""A link to the newest checkpoint of a run."""


@dataclass(frozen=True)
class CheckpointMeta:
    """What a checkpoint is of.

    Args:
        step: steps done.
        K, classes, width, norm, fc6_dilation, priors: of the network; `classes` are the names.
        store: digest of the settings of the store it was trained on.
        config: the run's settings.
        unlogged: readings since the last line of the log.
        best: the best validation figure so far.
        clips: of the split that it was trained on; 0: not recorded.
        unscored: its validation is still to come.
        validated: content digest of the store that `best` was measured on; "": not recorded.
        parts: that a step was computed in, by all processes; 0: not recorded.
        threads: of a process that computed on a CPU, on which its rounding depends; 0: not recorded.
    """

    step: int
    K: int
    classes: tuple[str, ...]
    width: float
    norm: str
    priors: PriorSpec
    store: str
    config: dict[str, Any]
    best: float | None = None
    fc6_dilation: str = "6"
    unlogged: tuple[tuple[float, ...], ...] = ()
    clips: int = 0
    unscored: bool = False
    validated: str = ""
    parts: int = 0
    threads: int = 0


def save_checkpoint(
    path: Path, model: ActNet, optimiser: torch.optim.Optimizer, meta: CheckpointMeta, average: ActNet | None = None
) -> None:
    """Writes weights, momentum, meta and a checksum: temp file, fsync, rename. One of that name is replaced whole.

    Nothing else is needed to go on: order, colours and schedule are functions of the seed and the step.

    Args:
        average: the network with the averaged weights, if the run averages.
    """
    content = {
        "version": VERSION,
        "meta": dataclasses.asdict(meta),
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict()["state"],
        "average": None if average is None else average.state_dict(),
    }
    memory = io.BytesIO()  # written by ourselves: torch.save turns a full disk into an error that does not say so
    torch.save(content, memory)
    seal(memory)
    write_atomically(path, memory.getbuffer())


def read_checkpoint(path: Path) -> tuple[dict[str, Any], CheckpointMeta]:
    """The raw content and its meta.

    Raises:
        InputError: it is not there, damaged, or not a checkpoint of this project.
    """
    if not path.is_file():
        raise InputError(
            f"checkpoint {path} is {'a folder' if path.is_dir() else 'not there'}",
            wanted=f"a file of trainer.run, like out/run/checkpoints/{LAST}",
            todo="check the path",
        )
    try:
        check_seal(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["version"] != VERSION:
            raise ValueError(f"it has version {content['version']}, not {VERSION}")
        raw = content["meta"]
        layers = (PriorLayer(**{**layer, "ratios": tuple(layer["ratios"])}) for layer in raw["priors"]["layers"])
        spec = PriorSpec(raw["priors"]["image_size"], tuple(layers))
        unlogged = tuple(tuple(reading) for reading in raw.get("unlogged", ()))
        return content, CheckpointMeta(
            **{**raw, "classes": tuple(raw["classes"]), "priors": spec, "unlogged": unlogged}
        )
    except (
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        raise InputError(
            f"checkpoint {path} is damaged or not one of trainer.run",
            found=why_unread(error),
            todo="use another checkpoint of the run; weights of other kinds go into a new run, by its --init",
        ) from error


def load_model(path: Path) -> tuple[ActNet, CheckpointMeta]:
    """The network of a checkpoint, ready for evaluation, on the CPU; with the averaged weights if the run averaged.

    Raises:
        InputError: as `read_checkpoint`.
    """
    content, meta = read_checkpoint(path)
    model = ActNet(meta.priors, len(meta.classes), meta.K, meta.width, meta.norm, meta.fc6_dilation)  # type: ignore[arg-type]
    load_state(model, content.get("average") or content["model"], path)
    return model.eval(), meta


def load_state(model: ActNet, state: dict[str, torch.Tensor], path: Path) -> None:
    """Gives the network that a checkpoint describes its weights.

    Raises:
        InputError: it lacks some, or has others.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(
            f"the weights in checkpoint {path} do not fit its own description",
            found=str(error).splitlines()[-1].strip(),
            todo="use another checkpoint of the run",
        ) from error


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a run that reads whole; damaged ones are named on stderr and passed over."""
    for step in reversed(steps_saved(folder)):
        path = checkpoint_path(folder, step)
        try:
            read_checkpoint(path)
        except InputError as error:
            print(f"warning: {error}", file=sys.stderr)
            continue
        return path
    return None


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps lies."""
    return folder / f"step-{step:08d}.pt"


def steps_saved(folder: Path) -> list[int]:
    """Of which steps there are checkpoints, ascending; `best.pt` is not among them."""
    names = (re.fullmatch(r"step-(\d{8,})\.pt", path.name) for path in folder.glob("step-*.pt"))
    return sorted(int(name[1]) for name in names if name)


def link_last(path: Path) -> None:
    """Points `LAST`, beside a checkpoint, to it."""
    link = path.with_suffix(".link")
    link.unlink(missing_ok=True)  # a killed process left it
    link.symlink_to(path.name)
    os.replace(link, path.parent / LAST)


def prune_checkpoints(folder: Path, keep: int, newest: int) -> None:
    """Removes all but the newest `keep`, and what a killed process left half-written; `best.pt` is not among them.

    Args:
        newest: the step just saved. Those of later steps, which `newest_checkpoint` passed over perhaps, are neither
            counted nor removed.
    """
    remove_unfinished(folder, below=False)  # where an evaluation may be at work
    for step in [step for step in steps_saved(folder) if step <= newest][:-keep]:
        checkpoint_path(folder, step).unlink()
