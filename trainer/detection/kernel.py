"""How a numba kernel is declared here: compiled once and cached on disk, free of the GIL, out of the type checkers'
sight.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

kernel: Callable[[Any], Any] = njit(cache=True, nogil=True, error_model="numpy")
"""Decorator of a kernel. Write `@no_type_check` under it: jaxtyping's import hook would wrap the function otherwise.

Division by zero gives inf or nan as in numpy; there is no fast-math, so float32 results are the original's.
"""
