"""The ACT loss from sparse targets. It contains no IoU, sees no ground-truth box and never asks the device for a value.

Kalogeiton et al. (ICCV 2017), section 3.2; `ACTCuboidLossLayer` of the original.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

NEGATIVES_PER_POSITIVE = 3
"""`neg_pos_ratio` of the original."""
MAX_CROSS_ENTROPY = -math.log(torch.finfo(torch.float32).tiny)
"""The original clamps probabilities at FLT_MIN; the gradient stays p - onehot."""
LOG2_E = math.log2(math.e)


class Losses(NamedTuple):
    """Scalars on the device; `loc` and `conf` are the parts of `total`.

    `mined` holds the batch-wide prior rows (b * P + prior) of the negatives, `is_mined` which of them count.
    """

    total: Float[Tensor, ""]
    loc: Float[Tensor, ""]
    conf: Float[Tensor, ""]
    mined: Int64[Tensor, "B hardest"]
    is_mined: Tensor


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
    row = sample * P + prior
    loc_sum = F.smooth_l1_loss(loc.reshape(B * P, K, 4)[row].float(), target, reduction="sum") / K

    hardest = min(NEGATIVES_PER_POSITIVE * max(positives), P)
    with torch.no_grad():
        taken = torch.cat([row, ignored_sample * P + ignored_prior])
        hardness = _odds_against_background(conf).flatten().index_fill(0, taken, -torch.inf).view(B, P)
        odds, mined = hardness.topk(hardest, dim=1)
        wanted = torch.zeros(B, dtype=torch.int64, device=conf.device)
        wanted = wanted.index_add(0, sample, torch.full_like(sample, NEGATIVES_PER_POSITIVE))
        rank = torch.arange(hardest, device=conf.device)
        # a NaN is harder than anything: it must reach the loss, where the watch sees it
        is_mined = (rank < wanted[:, None]) & (odds != -torch.inf)
        mined = mined + torch.arange(B, device=conf.device)[:, None] * P
        answered = torch.cat([row, mined.flatten()])
        truth = torch.cat([label, torch.zeros_like(mined).flatten()])
        counts = torch.cat([torch.ones_like(row, dtype=torch.bool), is_mined.flatten()])
    # one gather: its backward fills the one dense gradient that the network's border needs
    cross_entropy = F.cross_entropy(conf.reshape(B * P, labels)[answered].float(), truth, reduction="none")
    conf_sum = torch.where(counts, _clamped(cross_entropy), 0.0).sum()

    normaliser = normaliser.clamp(min=1)
    loc_loss = loc_sum / normaliser
    conf_loss = conf_sum / normaliser
    return Losses(loc_loss + conf_loss, loc_loss, conf_loss, mined, is_mined)


def _odds_against_background(conf: Float[Tensor, "B P labels"]) -> Float[Tensor, "B P"]:
    """(1 - p) / p for the probability p of background: grows with its cross-entropy -log p, without a logarithm.

    Clip by clip, so that the intermediate stays in the cache of a CPU; by powers of two, which take half the time of
    exp. Where a logit exceeds background's by 88 the odds are infinite: the original clamps p at FLT_MIN there.
    """
    others = torch.ones(conf.shape[2], device=conf.device)
    others[:1] = 0.0  # a slice: a number that is written to one element of a CUDA tensor is waited for
    clips = (clip.float() for clip in conf)
    return torch.stack([(clip - clip[:, :1]).mul_(LOG2_E).exp2_() @ others for clip in clips])


def _clamped(cross_entropy: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    return cross_entropy + (cross_entropy.detach().clamp(max=MAX_CROSS_ENTROPY) - cross_entropy.detach())
