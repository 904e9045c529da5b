"""Signals around the start of processes."""

import os
import signal
import threading
import time

import pytest

from data_manifests.signals import held_back


def test_a_signal_that_another_thread_takes_waits_too() -> None:
    """The mask is this thread's alone: another's takes the signal, and its handler would interrupt this one."""
    asleep = threading.Event()
    other = threading.Thread(target=asleep.wait)
    other.start()
    done = []

    def work() -> None:
        with held_back(signal.SIGINT):
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(20):
                time.sleep(0.005)
            done.append("held back")
        done.append("not at all")

    try:
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        asleep.set()
        other.join()
    assert done == ["held back"]
