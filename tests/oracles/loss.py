"""The ACT loss as a plain port writes it: dense targets, a sort over all priors, boolean masks, `.item()` for counts.

Follows `act_cuboid_loss_layer.cpp` and the mining of `ACT_cuboid_util.cpp` (QUIRKS 13 to 15 of the golden data).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -1


class Dense(NamedTuple):
    """Targets of every prior: `label` (B, P) 0 background, -1 ignored; `loc` (B, P, K, 4), zero but at positives."""

    label: Tensor
    loc: Tensor


def dense_targets(B: int, P: int, K: int, sparse: dict[str, Tensor]) -> Dense:
    """From the rows of `trainer.loss.tubelet_loss`."""
    device = sparse["target"].device
    label = torch.zeros(B, P, dtype=torch.int64, device=device)
    loc = torch.zeros(B, P, K, 4, device=device)
    label[sparse["sample"], sparse["prior"]] = sparse["label"]
    label[sparse["ignored_sample"], sparse["ignored_prior"]] = IGNORED
    loc[sparse["sample"], sparse["prior"]] = sparse["target"]
    return Dense(label, loc)


def plain_loss(loc: Tensor, conf: Tensor, targets: Dense) -> tuple[Tensor, Tensor]:
    """Total loss, and the (B, P) mask of mined negatives."""
    B, P, labels = conf.shape
    positive = targets.label > 0
    matches = positive.sum().item()
    if matches == 0:
        return (loc * 0).sum() + (conf * 0).sum(), torch.zeros_like(positive)
    mask = positive[:, :, None, None].expand_as(loc)
    loc_sum = F.smooth_l1_loss(loc[mask], targets.loc[mask], reduction="sum") / loc.shape[2]
    flat = conf.reshape(B * P, labels)
    hardness = (flat.logsumexp(1) - flat[:, 0]).view(B, P).detach()
    hardness[targets.label != 0] = -torch.inf
    order = hardness.sort(dim=1, descending=True).indices
    rank = order.sort(dim=1).indices
    mined = (rank < 3 * positive.sum(1, keepdim=True)) & (targets.label == 0)
    chosen = positive | mined
    scores = conf[chosen[:, :, None].expand_as(conf)].view(-1, labels)
    conf_sum = F.cross_entropy(scores, targets.label[chosen], reduction="sum")
    return (loc_sum + conf_sum) / matches, mined
