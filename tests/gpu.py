"""Tests that a GPU runs where there is one, and that are skipped where there is none."""

import pytest
import torch

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")
