"""Writes what changes all the time only so often that the writing hardly counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

SHARE = 0.05
"""Of the time, at most, that may go into writing."""

T = TypeVar("T")


class Sparingly(Generic[T]):
    """Hands values on to `write`; those that come while it would cost too much wait, and give way to newer ones.

    A store's manifest grows with its shards: at some thousands, to write it anew for each takes longer than to build them.
    Use it as a context manager: what waits at its end is written, whatever ended it.
    """

    def __init__(self, write: Callable[[T], None]) -> None:
        self._write, self._waiting, self._next = write, list[T](), 0.0

    def __call__(self, value: T) -> None:
        """Writes it, or keeps it until the next call or the end."""
        self._waiting = [value]
        if time.monotonic() >= self._next:
            self._flush()

    def _flush(self) -> None:
        while self._waiting:
            started = time.monotonic()
            self._write(self._waiting.pop())
            ended = time.monotonic()
            self._next = ended + (ended - started) / SHARE

    def __enter__(self) -> Sparingly[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flush()
