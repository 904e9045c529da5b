"""Checkpoints: everything a run needs to go on, written in one step, the newest valid one found again."""

from __future__ import annotations

import dataclasses
import os
import pickle
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data_manifests.errors import InputError
from data_manifests.prior_spec import PriorLayer, PriorSpec
from trainer.model import ActNet

VERSION = 1
LAST = "last.pt"
"""A link to the newest checkpoint of a run."""


@dataclass(frozen=True)
class CheckpointMeta:
    """What a checkpoint is of.

    Args:
        step: steps done.
        K, classes, width, norm, priors: of the network; `classes` are the names.
        store: digest of the settings of the store it was trained on.
        config: the run's settings.
        best: the best validation figure so far.
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


def save_checkpoint(path: Path, model: ActNet, optimiser: torch.optim.Optimizer, meta: CheckpointMeta) -> None:
    """Writes weights, momentum and meta: temp file, fsync, rename. A checkpoint of that name is replaced whole.
    `LAST` beside it points to it.

    Nothing else is needed to go on: order, colours and schedule are functions of the seed and the step.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    content = {
        "version": VERSION,
        "meta": dataclasses.asdict(meta),
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict()["state"],
    }
    try:
        with open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        temporary.symlink_to(path.name)
        os.replace(temporary, path.parent / LAST)
    finally:
        temporary.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> tuple[dict[str, Any], CheckpointMeta]:
    """The raw content and its meta.

    Raises:
        InputError: it is not there, damaged, or not a checkpoint of this project.
    """
    if not path.is_file():
        raise InputError(f"checkpoint {path} is not there", todo="check the path")
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise ValueError(f"the checksum of {broken} does not fit")
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["version"] != VERSION:
            raise ValueError(f"it has version {content['version']}, not {VERSION}")
        raw = content["meta"]
        layers = (PriorLayer(**{**layer, "ratios": tuple(layer["ratios"])}) for layer in raw["priors"]["layers"])
        spec = PriorSpec(raw["priors"]["image_size"], tuple(layers))
        return content, CheckpointMeta(**{**raw, "classes": tuple(raw["classes"]), "priors": spec})
    except (
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        EOFError,
        zipfile.BadZipFile,
        pickle.UnpicklingError,
    ) as error:
        raise InputError(
            f"checkpoint {path} is damaged or not one of trainer.run",
            found=str(error).splitlines()[0] if str(error) else type(error).__name__,
            todo="use another checkpoint of the run",
        ) from error


def load_model(path: Path) -> tuple[ActNet, CheckpointMeta]:
    """The network of a checkpoint, ready for evaluation, on the CPU.

    Raises:
        InputError: as `read_checkpoint`.
    """
    content, meta = read_checkpoint(path)
    model = ActNet(meta.priors, len(meta.classes), meta.K, meta.width, meta.norm)  # type: ignore[arg-type]
    model.load_state_dict(content["model"])
    return model.eval(), meta


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a run that reads whole; damaged ones are named on stderr and passed over."""
    for path in sorted(folder.glob("step-*.pt"), reverse=True):
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


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Removes all but the newest `keep`; `best.pt` is not among them."""
    for path in sorted(folder.glob("step-*.pt"))[:-keep]:
        path.unlink()
