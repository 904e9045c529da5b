"""SGD with the original's groups, and the learning rate as a function of the step."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch

from trainer.config import Config
from trainer.model import ActNet
from trainer.model.backbone import TRUNK

BIAS_RATE = 2.0
"""Biases learn at twice their weights' rate and without decay (`lr_mult: 2`, `decay_mult: 0` in the prototxts)."""


def parameter_groups(model: ActNet, config: Config) -> list[dict[str, Any]]:
    """Four groups: weights and biases of what all frames share, weights and biases of the heads.

    Each has `rate`, the factor on the scheduled rate, and `names`. Scales of batch normalisation count as
    biases; conv4_3's is a weight, as in SSD.
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
        if not parameter.requires_grad:
            continue
        part = "backbone" if name.startswith("backbone.") else "heads"
        group = groups[part, name.endswith(".bias") or ".norms." in name]
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def make_optimiser(groups: list[dict[str, Any]], config: Config) -> torch.optim.SGD:
    """SGD over the groups, on a GPU by one kernel; `set_rate` gives them their rates."""
    on_gpu = all(weights.is_cuda for group in groups for weights in group["params"])
    return torch.optim.SGD(groups, lr=config.base_lr, momentum=config.momentum, fused=on_gpu or None)


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


def freeze_trunk(model: ActNet) -> None:
    """conv1_1 to conv5_3 keep their weights."""
    for layer in TRUNK:
        model.backbone.convs[layer].requires_grad_(False)


class Average:
    """A running mean of the weights over the steps (Polyak and Juditsky 1992), younger ones weighing more.

    Attributes:
        model: the network with the averaged weights; of the buffers it has the newest.
    """

    def __init__(self, model: ActNet, decay: float) -> None:
        self.model, self._decay = copy.deepcopy(model).eval().requires_grad_(False), decay

    @torch.no_grad()
    def update(self, model: ActNet, step: int) -> None:
        """After a step. The first steps weigh more than `decay` would have it, lest random weights linger."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        for mine, newest in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(newest)
