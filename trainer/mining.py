"""Which negatives are mined: the hardest priors of each clip, by a kernel on a CPU, by torch's operators elsewhere."""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from data_manifests.kernel import kernel

MOST_LOGIT = 82.0
"""Rough powers are taken of scores of at most this size: none is 0 or infinite then, nor is a sum of a hundred of them."""
OFF = 1.07
"""By what factor, at most, odds of rough powers are off."""
_LOG2_E, _MOST = np.float32(math.log2(math.e)), np.float32(MOST_LOGIT * math.log2(math.e))
_MOST_EXPONENT, _MOST_ODDS = np.float32(120), 3e38
"""So that only what is NaN has infinite odds."""
_FIXED = np.float32(1.5 * 2**9)
"""A float32 whose lowest 14 bits are left for fractions: x, added to it, stands in its bits as 2^14 (x + 256)."""
_BIAS = np.int32((127 - 256) * 2**23)
"""What the exponent of a float32 begins with, less these 256."""
_ROUND = np.float32(1.5 * 2**23)
"""A float32 of which no bit is left for fractions: what is added to it comes out rounded, in its lowest bits."""
# 2^x for |x| <= 1/2 by powers of x, to 1e-7: a fit at Chebyshev's places
_C0, _C1, _C2, _C3 = map(np.float32, (1.0, 6.93147207e-1, 2.40226512e-1, 5.55032721e-2))
_C4, _C5, _C6 = map(np.float32, (9.61802560e-3, 1.34004322e-3, 1.54697320e-4))


def hardest(
    conf: Float[Tensor, "B P labels"], excluded: Int64[Tensor, " n"], wanted: tuple[int, ...]
) -> tuple[Int64[Tensor, " N"], Bool[Tensor, " N"]]:
    """The priors of each clip with the largest cross-entropy against background, in any order.

    They are compared by their odds (1 - p) / p for the probability p of background, as float32: they grow with -log p,
    without a logarithm. From e^83 on all may count as equal, and below e^-83. NaN, where a score is NaN or that of
    background is infinite, is harder than anything: it must reach the loss, where the watch sees it.

    Args:
        conf: logits, label 0 is background.
        excluded: batch-wide rows (b * P + prior) of priors that are never taken.
        wanted: how many of each clip, P at most.

    Returns:
        N = sum(wanted) batch-wide rows, clip by clip; and which of them count, as a clip may run out of priors.

    Raises:
        ValueError: `wanted` has not one number a clip.
    """
    if len(wanted) != len(conf):
        raise ValueError(f"{len(wanted)} numbers of negatives for {len(conf)} clips")
    if conf.device.type != "cpu" or torch.compiler.is_compiling():
        return composed(conf, excluded, wanted)
    B, P, _ = conf.shape
    is_excluded = np.zeros((B, P), np.bool_)
    is_excluded.reshape(-1)[excluded.numpy()] = True
    borders = np.cumsum((0, *wanted))
    rows, odds = np.empty(borders[-1], np.int64), np.full(borders[-1], -np.inf, np.float32)
    scores = conf.detach()
    if scores.dtype == torch.float32 and scores.is_contiguous():
        _take_hardest(scores.numpy(), is_excluded, borders, rows, odds, 0)
    else:  # a clip's scores at a time are converted
        for clip in np.flatnonzero(wanted).tolist():
            some = scores[clip : clip + 1].float().contiguous()
            _take_hardest(some.numpy(), is_excluded, borders, rows, odds, clip)
    return torch.from_numpy(rows), torch.from_numpy(odds != -np.inf)


def composed(
    conf: Float[Tensor, "B P labels"], excluded: Int64[Tensor, " n"], wanted: tuple[int, ...]
) -> tuple[Int64[Tensor, " N"], Bool[Tensor, " N"]]:
    """As `hardest`, composed of torch's operators."""
    B, P, _ = conf.shape
    scores = conf.detach().float()
    background = scores[..., :1]
    odds = (scores[..., 1:] - background).exp_().sum(-1) + (background - background)[..., 0]
    odds.view(-1).index_fill_(0, excluded, -torch.inf)
    odds, priors = odds.topk(max(wanted), dim=1)
    rows = priors + torch.arange(0, B * P, P, device=conf.device)[:, None]
    taken = [(clip, slice(0, count)) for clip, count in enumerate(wanted)]
    return torch.cat([rows[part] for part in taken]), torch.cat([odds[part] for part in taken]) != -torch.inf


@kernel
@no_type_check
def _take_hardest(scores, is_excluded, borders, rows, odds, first):
    """Those of the clips that scores (C, P, labels) begin with at `first`; a clip's are borders[clip] to borders[clip + 1]."""
    for clip in range(first, first + len(scores)):
        begin, end = borders[clip], borders[clip + 1]
        if begin < end:
            of_clip = scores[clip - first]
            _take_hardest_of(of_clip, is_excluded[clip], rows[begin:end], odds[begin:end], clip * len(of_clip))


@kernel
@no_type_check
def _take_hardest_of(scores, is_excluded, rows, odds, row_of_first):
    """Fills rows (n,) with those of `hardest` of a clip's scores (P, labels), and odds with theirs or, where they run out,
    the -inf that it is given.

    First by rough odds, off by a factor of `OFF` at most. As many priors as are wanted have at least the least of the
    largest rough odds / OFF, so none whose own are below that / OFF is one of them: of the few others they are computed.
    """
    P, labels = scores.shape
    candidates, rough = np.empty(P, np.int64), np.empty(P, np.float32)
    count, least = 0, np.float32(-np.inf)
    for prior in range(P):
        background, others = _rough_power(scores[prior, 0]), _rough_others(scores[prior])
        if others < least * background or is_excluded[prior]:
            continue
        about = others / background
        candidates[count], rough[count] = prior, about
        count += 1
        if about > odds[0]:
            _replace_least(odds, rows, about, prior)
            least = np.float32(odds[0] / OFF**2)
    powers = np.empty(labels, np.float32)
    for place in range(len(rows)):
        odds[place], rows[place] = -np.inf, row_of_first
    for candidate in range(count):
        if not rough[candidate] < least:
            prior = candidates[candidate]
            exact = _odds(scores[prior], powers)
            if exact > odds[0]:
                _replace_least(odds, rows, exact, row_of_first + prior)


@kernel(fastmath={"contract"})
@no_type_check
def _rough_power(score):
    """1 to 1.062 times e to this score, NaN if it is too large for that or NaN.

    Of 2^(n + x), x < 1, it is 2^n (1 + x): that is how a float has it.
    """
    exponent = score * _LOG2_E
    fixed = np.float32(exponent + _FIXED).view(np.int32)
    power = np.int32((fixed << np.int32(9)) + _BIAS).view(np.float32)
    return power if abs(exponent) <= _MOST else np.float32(np.nan)


@kernel(fastmath={"contract", "reassoc"})
@no_type_check
def _rough_others(scores):
    """The sum of the rough powers of all but background, in any order."""
    total = np.float32(0)
    for label in range(1, len(scores)):
        total += _rough_power(scores[label])
    return total


@kernel(fastmath={"contract"})
@no_type_check
def _odds(scores, powers):
    """Of one prior, infinite for NaN; powers is written to.

    2 to the whole part of an exponent by a float's own exponent, to the rest by a polynomial.
    """
    background = scores[0]
    for label in range(len(scores)):
        exponent = (scores[label] - background) * _LOG2_E
        exponent = _MOST_EXPONENT if exponent > _MOST_EXPONENT else exponent  # written so that a NaN stays one
        exponent = -_MOST_EXPONENT if exponent < -_MOST_EXPONENT else exponent
        rounded = np.float32(exponent + _ROUND)
        x = exponent - (rounded - _ROUND)
        of_rest = np.float32((((((_C6 * x + _C5) * x + _C4) * x + _C3) * x + _C2) * x + _C1) * x + _C0)
        powers[label] = of_rest * np.int32((rounded.view(np.int32) + np.int32(127)) << np.int32(23)).view(np.float32)
    total = 0.0
    for label in range(1, len(scores)):
        total += powers[label]
    return np.float32(np.inf if total != total or background - background != 0 else min(total, _MOST_ODDS))


@kernel
@no_type_check
def _replace_least(heap, rows, value, row):
    """Puts a value, and the row it stands for, in place of the first of a heap (least first)."""
    at, child = 0, 1
    while child < len(heap):
        if child + 1 < len(heap) and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[at], rows[at] = heap[child], rows[child]
        at, child = child, 2 * child + 1
    heap[at], rows[at] = value, row
