"""Which negatives are mined: the hardest priors of each clip, by two kernels on a CPU, by torch's operators elsewhere."""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from data_manifests.kernel import kernel

MOST_LOGIT = 82.0
"""Scores count as at most this in size, so that no power of e is 0 or infinite, nor a sum of a hundred of them."""
OFF = 1.07
"""By what factor, at most, odds of rough powers are off."""
_SMALLEST = float(np.finfo(np.float32).tiny) * OFF
"""Odds below it may be off by more: a float32 has too few bits for them."""
ROWS = 256
"""Priors whose powers are held at a time: they stay in the cache."""
_LOG2_E, _MOST = np.float32(math.log2(math.e)), np.float32(MOST_LOGIT * math.log2(math.e))
_FIXED = np.float32(1.5 * 2**9)
"""A float32 whose lowest 14 bits are left for fractions: x, added to it, stands in its bits as 2^14 (x + 256)."""
_BIAS = np.int32((127 - 256) * 2**23)
"""What the exponent of a float32 begins with, less these 256."""


def hardest(
    conf: Float[Tensor, "B P labels"], excluded: Int64[Tensor, " n"], wanted: tuple[int, ...]
) -> tuple[Int64[Tensor, " N"], Bool[Tensor, " N"]]:
    """The priors of each clip with the largest cross-entropy against background, in any order.

    They are compared by their odds (1 - p) / p for the probability p of background: these grow with -log p, without a
    logarithm. NaN, where a score is NaN or that of background is infinite, is harder than anything: it must reach the
    loss, where the watch sees it.

    Args:
        conf: logits, label 0 is background.
        excluded: batch-wide rows (b * P + prior) of priors that are never taken.
        wanted: how many of each clip, P at most.

    Returns:
        N = sum(wanted) batch-wide rows, clip by clip; and which of them count, as a clip may run out of priors.
    """
    if conf.device.type != "cpu" or torch.compiler.is_compiling():
        return composed(conf, excluded, wanted)
    scores = conf.detach().float().contiguous()
    is_excluded = torch.zeros(conf.shape[:2], dtype=torch.bool)
    is_excluded.view(-1).index_fill_(0, excluded, True)
    rows = torch.empty(sum(wanted), dtype=torch.int64)
    odds = torch.full((len(rows),), -torch.inf, dtype=torch.float64)
    _fill_with_hardest(scores.numpy(), is_excluded.numpy(), np.array(wanted), rows.numpy(), odds.numpy())
    return rows, odds != -torch.inf


def composed(
    conf: Float[Tensor, "B P labels"], excluded: Int64[Tensor, " n"], wanted: tuple[int, ...]
) -> tuple[Int64[Tensor, " N"], Bool[Tensor, " N"]]:
    """As `hardest`, composed of torch's operators."""
    B, P, _ = conf.shape
    background = conf.detach()[..., 0].float()
    powers = conf.detach().clamp(-MOST_LOGIT, MOST_LOGIT).float().exp_()
    odds = powers[..., 1:].sum(-1) / powers[..., 0] + (background - background)
    odds.view(-1).index_fill_(0, excluded, -torch.inf)
    odds, priors = odds.topk(max(wanted), dim=1)
    rows = priors + torch.arange(0, B * P, P, device=conf.device)[:, None]
    taken = [(clip, slice(0, count)) for clip, count in enumerate(wanted)]
    return torch.cat([rows[part] for part in taken]), torch.cat([odds[part] for part in taken]) != -torch.inf


@kernel
@no_type_check
def _fill_with_hardest(conf, is_excluded, wanted, rows, odds):
    """Fills rows (sum(wanted),) with `hardest`'s, and odds with theirs or, where they run out, the -inf that it is given.

    First by rough odds, off by a factor of `OFF` at most. As many priors as are wanted have at least the least of the
    largest rough odds / OFF, so none whose own are below that / OFF is one of them: of the few others they are computed.
    """
    B, P, labels = conf.shape
    powers, others = np.empty((ROWS, labels), np.float32), np.empty(ROWS, np.float32)
    but_background = np.ones(labels, np.float32)
    but_background[0] = 0
    candidates, rough = np.empty(P, np.int64), np.empty(P, np.float32)
    begin = 0
    for clip in range(B):
        end = begin + wanted[clip]
        heap, taken, scores = odds[begin:end], rows[begin:end], conf[clip].reshape(-1)
        count, least = 0, -np.inf
        for first in range(0, P if begin < end else 0, ROWS):
            last = min(first + ROWS, P)
            _powers_about(scores[first * labels : last * labels], powers.reshape(-1))
            np.dot(powers[: last - first], but_background, others[: last - first])
            for row in range(last - first):
                background = scores[(first + row) * labels]
                about = others[row] / powers[row, 0] + (background - background)
                if about < least or is_excluded[clip, first + row]:
                    continue
                candidates[count], rough[count] = first + row, about
                count += 1
                if not about <= heap[0]:
                    _replace_least(heap, taken, np.float64(about), first + row)
                    least = heap[0] / OFF**2 if heap[0] > _SMALLEST else -np.inf
        for place in range(end - begin):
            heap[place], taken[place] = -np.inf, clip * P
        for candidate in range(count):
            if not rough[candidate] < least:
                exact = _odds(conf[clip, candidates[candidate]])
                if not exact <= heap[0]:
                    _replace_least(heap, taken, exact, clip * P + candidates[candidate])
        begin = end


@kernel(fastmath={"contract"})
@no_type_check
def _powers_about(scores, powers):
    """Fills powers[:n] with 1 to 1.062 times e to the n scores: of 2^(n + x), x < 1, takes 2^n (1 + x), as floats have it."""
    for i in range(len(scores)):
        exponent = scores[i] * _LOG2_E
        exponent = _MOST if exponent > _MOST else exponent  # written so that a NaN stays one
        exponent = -_MOST if exponent < -_MOST else exponent
        fixed = np.float32(exponent + _FIXED).view(np.int32)
        powers[i] = np.int32((fixed << np.int32(9)) + _BIAS).view(np.float32) + (exponent - exponent)


@kernel
@no_type_check
def _odds(scores):
    others = 0.0
    for label in range(1, len(scores)):
        others += math.exp(min(max(scores[label], -MOST_LOGIT), MOST_LOGIT))
    background = min(max(scores[0], -MOST_LOGIT), MOST_LOGIT)
    return others / math.exp(background) + (scores[0] - scores[0])


@kernel
@no_type_check
def _replace_least(heap, rows, value, row):
    """Puts a value, NaN as infinity, and the row it stands for in place of the first of a heap (least first)."""
    value = np.inf if value != value else value
    at, child = 0, 1
    while child < len(heap):
        if child + 1 < len(heap) and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[at], rows[at] = heap[child], rows[child]
        at, child = child, 2 * child + 1
    heap[at], rows[at] = value, row
