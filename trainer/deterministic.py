"""The same bits each time, on a GPU too."""

from __future__ import annotations

import os

import torch


def compute_deterministically() -> None:
    """From now on torch adds in one order on a GPU, or refuses; call it before the first use of a GPU.

    Without it cuDNN and the gradients of `index_select` may add in another order each time.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it as it starts
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
