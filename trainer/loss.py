"""The ACT loss from sparse targets. It contains no IoU, sees no ground-truth box and never asks the device for a value.

Kalogeiton et al. (ICCV 2017), section 3.2; `ACTCuboidLossLayer` of the original.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from trainer.mining import hardest

NEGATIVES_PER_POSITIVE = 3
"""`neg_pos_ratio` of the original."""
MAX_CROSS_ENTROPY = -math.log(torch.finfo(torch.float32).tiny)
"""The original clamps probabilities at FLT_MIN; the gradient stays p - onehot."""
UNCOUNTED = -1
"""The label of an answer that counts for nothing."""


class Losses(NamedTuple):
    """Scalars on the device; `loc` and `conf` are the parts of `total`.

    `mined` holds the batch-wide prior rows (b * P + prior) of the negatives, `is_mined` which of them count.
    """

    total: Float[Tensor, ""]
    loc: Float[Tensor, ""]
    conf: Float[Tensor, ""]
    mined: Int64[Tensor, " N"]
    is_mined: Bool[Tensor, " N"]


def tubelet_loss(
    loc: Float[Tensor, "B P K 4"],
    conf: Float[Tensor, "B P labels"],
    *,
    sample: Int64[Tensor, " M"],
    prior: Int64[Tensor, " M"],
    label: Int64[Tensor, " M"],
    target: Float[Tensor, "M K 4"],
    ignored_sample: Int64[Tensor, " I"],
    ignored_prior: Int64[Tensor, " I"],
    positives: tuple[int, ...],
    normaliser: Float[Tensor, ""],
) -> Losses:
    """(1/K * sum smooth-L1 over positives + sum cross-entropy over positives and mined negatives) / normaliser.

    Negatives are mined per clip, three a positive, those with the largest cross-entropy against background first; a
    clip without positives has none. Ignored priors are never mined.

    Args:
        loc: predicted offsets.
        conf: predicted logits, label 0 is background.
        sample, prior, label, target: the positives, a row each (label is class + 1).
        ignored_sample, ignored_prior: priors that are neither positives nor negatives.
        positives: how many of the M rows belong to each of the B clips; a host value that bounds the mining.
        normaliser: positives of the global batch, on the device; values below 1 count as 1.
    """
    B, P, labels = conf.shape
    K = loc.shape[2]
    row = torch.add(prior, sample, alpha=P)
    loc_sum = F.smooth_l1_loss(loc.reshape(B * P, K, 4).index_select(0, row).float(), target, reduction="sum") / K

    with torch.no_grad():
        wanted = tuple(min(NEGATIVES_PER_POSITIVE * count, P) for count in positives)
        mined, is_mined = hardest(conf, torch.cat([row, torch.add(ignored_prior, ignored_sample, alpha=P)]), wanted)
        answered = torch.cat([row, mined])
        truth = torch.cat([label, is_mined.long() - 1])  # background, or UNCOUNTED
    # one gather: its backward fills the one dense gradient that the network's border needs
    answers = conf.reshape(B * P, labels).index_select(0, answered).float()
    cross_entropy = F.cross_entropy(answers, truth, ignore_index=UNCOUNTED, reduction="none")
    conf_sum = _clamped(cross_entropy).sum()

    share = 1 / normaliser.clamp(min=1)
    total = (loc_sum + conf_sum) * share
    return Losses(total, loc_sum.detach() * share, conf_sum.detach() * share, mined, is_mined)


def _clamped(cross_entropy: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    return cross_entropy + (cross_entropy.detach().clamp(max=MAX_CROSS_ENTROPY) - cross_entropy.detach())
