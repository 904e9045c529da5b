"""Writing often enough, and no more."""

import time

import pytest

from pipeline.sparingly import SHARE, Sparingly


def test_a_dear_write_takes_a_small_share_of_the_time_and_the_newest_is_written_at_the_end() -> None:
    written = []

    def write(value: int) -> None:
        written.append(value)
        time.sleep(0.002)

    begun = time.monotonic()
    with Sparingly(write) as save:
        for value in range(100):
            save(value)
            time.sleep(0.001)
        within = len(written)
    assert written[0] == 0
    assert written[-1] == 99
    assert 2 <= within <= 1 + (time.monotonic() - begun) * SHARE / 0.002
    assert written == sorted(set(written))


def test_what_waits_is_written_when_the_work_fails() -> None:
    written = []

    def write(value: str) -> None:
        time.sleep(0.001)
        written.append(value)

    def work() -> None:
        with Sparingly(write) as save:
            save("first")
            save("second")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        work()
    assert written == ["first", "second"]
