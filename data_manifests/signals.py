"""Signals around the start of processes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_back(*signals: signal.Signals) -> Iterator[None]:
    """These signals come to us afterwards, and never to a process started meanwhile: it inherits the mask.

    Another thread, which does not have the mask, may take one: its handler, which runs in the main thread, waits too.
    """
    before, came = signal.pthread_sigmask(signal.SIG_BLOCK, signals), list[int]()
    main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in signals if main}
    for number in handlers:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for caught in came:
            signal.raise_signal(caught)
