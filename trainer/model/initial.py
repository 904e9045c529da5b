"""Initial weights by rule, each checked against what its rule promises."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from data_manifests.errors import InputError
from trainer.model.act import ActNet
from trainer.model.backbone import L2Norm

SIGMAS = 6.0
"""How far, in standard errors, mean and deviation may lie from what a rule promises."""


@dataclass(frozen=True)
class Origin:
    """Where a parameter came from, its mean and standard deviation, and those that the rule promises (None: a file)."""

    name: str
    source: str
    mean: float
    deviation: float
    promised: tuple[float, float] | None


def initialise(model: ActNet, seed: int) -> list[Origin]:
    """Random weights: He in the backbone, Xavier in the heads, zero biases. An entry for every parameter.

    He et al. (ICCV 2015) keeps a signal's size through ReLUs, without which the trunk does not learn from random
    weights; Xavier is that of Glorot and Bengio (2010), by inputs and outputs: Caffe's, by inputs alone, which ACT has in
    heads and extra layers, is up to 1.4 times less wide.

    Raises:
        InputError: a parameter has no rule, or is not what its rule promises.
    """
    torch.manual_seed(seed)
    origins = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            origins += _convolution(name, module)
        elif isinstance(module, L2Norm):
            # a cell's L2 norm is spread over fewer channels when the network is narrower
            scale = module.initial_scale * math.sqrt(model.backbone.width)
            nn.init.constant_(module.weight, scale)
            origins.append(origin(f"{name}.weight", module.weight, "20 sqrt(width)", (scale, 0.0)))
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
            origins.append(origin(f"{name}.weight", module.weight, "one", (1.0, 0.0)))
            origins.append(origin(f"{name}.bias", module.bias, "zero", (0.0, 0.0)))
    check(model, origins)
    return origins


def _convolution(name: str, conv: nn.Conv2d) -> list[Origin]:
    fan_in = conv.weight[0].numel()
    if name.startswith("backbone."):
        rule, deviation = "He normal", math.sqrt(2 / fan_in)
        if name.endswith("conv1_1"):  # its input is in grey levels, which deviate by some 64
            rule, deviation = "He normal / 64", deviation / 64
        nn.init.normal_(conv.weight, 0, deviation)
    else:
        fan_out = conv.weight.shape[0] * conv.weight[0, 0].numel()
        rule, deviation = "Xavier uniform", math.sqrt(2 / (fan_in + fan_out))
        bound = deviation * math.sqrt(3)
        nn.init.uniform_(conv.weight, -bound, bound)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return [
        origin(f"{name}.weight", conv.weight, rule, (0.0, deviation)),
        origin(f"{name}.bias", conv.bias, "zero", (0.0, 0.0)),
    ]


def origin(name: str, value: Tensor, source: str, promised: tuple[float, float] | None) -> Origin:
    """An entry, with the mean and deviation that the parameter has now."""
    value = value.detach().double()
    deviation = float(value.std()) if value.numel() > 1 else 0.0
    return Origin(name, source, float(value.mean()), deviation, promised)


def check(model: ActNet, origins: list[Origin]) -> None:
    """Every parameter has one entry, and is what its rule promises.

    Raises:
        InputError: naming the parameter, what it is and what it should be.
    """
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    named = [entry.name for entry in origins]
    if sorted(named) != sorted(sizes):
        odd = sorted(set(sizes).symmetric_difference(named)) or sorted({n for n in named if named.count(n) > 1})
        raise InputError(
            f"parameters without one rule: {', '.join(odd)}", todo="give them a rule in trainer/model/initial.py"
        )
    for entry in origins:
        if entry.promised is None:
            continue
        mean, deviation = entry.promised
        size = sizes[entry.name]
        rounding = 1e-6 * abs(mean) + 1e-12
        if (
            abs(entry.mean - mean) > SIGMAS * deviation / math.sqrt(size) + rounding
            or abs(entry.deviation - deviation) > SIGMAS * deviation / math.sqrt(2 * size) + rounding
        ):
            raise InputError(
                f"{entry.name} is not what its rule ({entry.source}) promises",
                found=f"mean {entry.mean:.4g}, deviation {entry.deviation:.4g}",
                wanted=f"mean {mean:.4g}, deviation {deviation:.4g}",
                todo="this is a bug: please report it",
            )


def report(origins: list[Origin], write: Callable[[str], None]) -> None:
    """A line a parameter: its source, mean and deviation, and what the rule promises."""
    for entry in origins:
        promise = "" if entry.promised is None else " (promised {:.4g}, {:.4g})".format(*entry.promised)
        write(f"{entry.name:36s} {entry.source:40s} mean {entry.mean:+.4g} deviation {entry.deviation:.4g}{promise}")
