"""How hard a prior is to tell from background: by one fused kernel on a CPU, by torch's operators elsewhere."""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from data_manifests.kernel import kernel

MOST_LOGIT = 82.0
"""Scores count as at most this in size, so that no power of e is 0 or infinite, nor a sum of a hundred of them."""
ROWS = 64
"""Priors whose powers the kernel holds at a time: they stay in the first-level cache."""
_LOG2_E, _MOST = np.float32(math.log2(math.e)), np.float32(MOST_LOGIT * math.log2(math.e))
_ROUND = np.float32(1.5 * 2**23)
"""A float32 of which no bit is left for fractions: what is added to it comes out rounded, in its lowest bits."""
# 2^x for |x| <= 1/2 by powers of x, to 1e-7: a fit at Chebyshev's places
_C0, _C1, _C2, _C3 = map(np.float32, (1.0, 6.93147207e-1, 2.40226512e-1, 5.55032721e-2))
_C4, _C5, _C6 = map(np.float32, (9.61802560e-3, 1.34004322e-3, 1.54697320e-4))


def odds_against_background(conf: Float[Tensor, "B P labels"]) -> Float[Tensor, "B P"]:
    """(1 - p) / p for the probability p of background: grows with its cross-entropy -log p, without a logarithm.

    NaN where a score is NaN or that of background is infinite.
    """
    if conf.device.type != "cpu" or torch.compiler.is_compiling():
        return composed_odds(conf)
    odds = torch.empty(conf.shape[:2])
    _fused_odds(conf.detach().float().contiguous().flatten(0, 1).numpy(), odds.view(-1).numpy())
    return odds


def composed_odds(conf: Float[Tensor, "B P labels"]) -> Float[Tensor, "B P"]:
    """The same, composed of torch's operators."""
    powers = conf.detach().clamp(-MOST_LOGIT, MOST_LOGIT).float().exp_()
    background = conf[..., 0].float()
    return powers[..., 1:].sum(-1) / powers[..., 0] + (background - background)


@kernel
@no_type_check
def _fused_odds(conf, odds):
    """Fills odds (n,) from scores (n, labels)."""
    rows, labels = conf.shape
    scores = conf.reshape(-1)
    powers, others = np.empty(ROWS * labels, np.float32), np.empty(ROWS, np.float32)
    for first in range(0, rows, ROWS):
        end = min(first + ROWS, rows)
        _powers(scores[first * labels : end * labels], powers)
        _sums(powers, labels, others[: end - first])
        for row in range(end - first):
            background = conf[first + row, 0]
            odds[first + row] = others[row] / powers[row * labels] + (background - background)


@kernel(fastmath={"contract"})
@no_type_check
def _powers(scores, powers):
    """Fills powers[:n] with e to the n scores: 2 to the whole part by a float's exponent, to the rest by a polynomial."""
    for i in range(len(scores)):
        exponent = scores[i] * _LOG2_E
        exponent = _MOST if exponent > _MOST else exponent  # written so that a NaN stays one
        exponent = -_MOST if exponent < -_MOST else exponent
        rounded = np.float32(exponent + _ROUND)
        x = exponent - (rounded - _ROUND)
        of_rest = np.float32((((((_C6 * x + _C5) * x + _C4) * x + _C3) * x + _C2) * x + _C1) * x + _C0)
        whole = np.int32((rounded.view(np.int32) + np.int32(127)) << np.int32(23)).view(np.float32)
        powers[i] = of_rest * whole


@kernel
@no_type_check
def _sums(powers, labels, sums):
    """Fills sums (n,) with those of the first n rows of powers, without their first column.

    Eight at a time: a loop over the few of a row waits for each addition, and is too short for LLVM's vectors.
    """
    for row in range(len(sums)):
        values = powers[row * labels + 1 : (row + 1) * labels]
        total = np.float32(0)
        eights = len(values) // 8 * 8
        for i in range(0, eights, 8):
            left = (values[i] + values[i + 1]) + (values[i + 2] + values[i + 3])
            total += left + ((values[i + 4] + values[i + 5]) + (values[i + 6] + values[i + 7]))
        for i in range(eights, len(values)):
            total += values[i]
        sums[row] = total
