"""SGD with the original's groups, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from typing import Any

import torch

from trainer.config import Config
from trainer.model import ActNet

BIAS_RATE = 2.0
"""Biases learn at twice their weights' rate and without decay (`lr_mult: 2`, `decay_mult: 0` in the prototxts)."""


def parameter_groups(model: ActNet, config: Config) -> list[dict[str, Any]]:
    """Four groups: weights and biases of what all frames share, weights and biases of the heads.

    Each has `rate`, the factor on the scheduled rate, and `names`. Normalisation scales count as biases.
    """
    shared = config.shared_rate or 1 / model.K
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for part, rate in (("backbone", shared), ("heads", 1.0)):
        for bias in (False, True):
            groups[part, bias] = {
                "params": [],
                "names": [],
                "part": f"{part} {'biases' if bias else 'weights'}",
                "rate": rate * (BIAS_RATE if bias else 1.0),
                "weight_decay": 0.0 if bias else config.weight_decay,
            }
    for name, parameter in model.named_parameters():
        part = "backbone" if name.startswith("backbone.") else "heads"
        group = groups[part, name.endswith(".bias") or ".norms." in name]
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def make_optimiser(groups: list[dict[str, Any]], config: Config) -> torch.optim.SGD:
    """SGD over the groups; `set_rate` gives them their rates."""
    return torch.optim.SGD(groups, lr=config.base_lr, momentum=config.momentum)


def rate_at(config: Config, step: int) -> float:
    """The heads' learning rate at a step."""
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    if config.schedule == "cosine":
        return config.base_lr * warm * (1 + math.cos(math.pi * step / config.iterations)) / 2
    return config.base_lr * warm * 0.1 ** sum(step >= milestone for milestone in config.milestones)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Gives each group its share of a rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["rate"]
