"""Shared memory is never written while it is held; workers end when they should, and not when they should not."""

import errno
import gc
import itertools
import mmap
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from typing import NoReturn

import pytest

from data_manifests.errors import InputError
from tests.trainer.data.numbered import LAST, fail, number_everywhere
from trainer.data.worker import SharedPixels
from trainer.data.workers import READ_AHEAD, _Team, read_ahead

SHAPE, LENT = (2, 5), 3


def test_memory_is_used_again_only_when_nobody_holds_it() -> None:
    slots = 2 * READ_AHEAD + LENT
    batches = read_ahead(number_everywhere, SHAPE, workers=2, lent=LENT)
    corner = next(batches)[0][1:, 3:]
    places = set()
    for number in range(1, 5 * slots):
        frames, answer = next(batches)
        assert answer == f"batch {number}"
        assert (frames == number).all()
        places.add(frames.data_ptr())
    assert corner.data_ptr() - 8 not in places
    kept = [next(batches)[0] for _ in range(2 * slots)]
    for number, frames in enumerate(kept, 5 * slots):
        assert (frames == number).all()
    assert (corner == 0).all()
    del kept, frames
    places.update(next(batches)[0].data_ptr() for _ in range(3 * slots))
    assert len(places) <= slots
    answers = [answer for _, answer in itertools.islice(batches, LAST - 10 * slots)]
    last, answer = next(batches)
    assert answer == f"batch {LAST}"
    with pytest.raises(InputError, match=f"batch {LAST + 1} is damaged"):
        next(batches)
    assert len(answers) == LAST - 10 * slots
    assert (last == LAST).all()  # they outlive their workers


def test_a_worker_hears_no_signal_and_is_missed_when_it_dies() -> None:
    before = set(multiprocessing.active_children())
    batches = read_ahead(number_everywhere, SHAPE, workers=1, lent=LENT)
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - before
    assert worker.pid
    os.kill(worker.pid, signal.SIGINT)
    os.kill(worker.pid, signal.SIGTERM)
    assert [answer for _, answer in itertools.islice(batches, 30)][-1] == "batch 30"
    os.kill(worker.pid, signal.SIGKILL)
    start = time.monotonic()
    with pytest.raises(InputError, match=r"a process that reads the store died[\s\S]*SIGKILL"):
        list(itertools.islice(batches, LAST))
    assert time.monotonic() - start < 3
    assert set(multiprocessing.active_children()) == before


def test_a_full_disk_is_told_of_as_anywhere() -> None:
    read = partial(fail, OSError(errno.ENOSPC, "full", "/cache/x"))
    with pytest.raises(InputError, match=r"cannot write or read /cache/x[\s\S]*free some space"):
        next(read_ahead(read, SHAPE, workers=1, lent=LENT))


def test_no_error_passes_for_the_end_of_the_run(capfd: pytest.CaptureFixture) -> None:
    """A worker ends silently when its pipe breaks, and only then."""
    read = partial(fail, ConnectionResetError("by the file server"))
    with pytest.raises(InputError, match=r"died[\s\S]*exit code 1[\s\S]*see its message above"):
        next(read_ahead(read, SHAPE, workers=1, lent=LENT))
    assert "ConnectionResetError: by the file server" in capfd.readouterr().err


def test_workers_that_have_not_begun() -> None:
    """They are deaf already, and not waited for."""
    before = set(multiprocessing.active_children())
    team = _Team(number_everywhere, SharedPixels.allocate((1,)), 4)
    new = set(multiprocessing.active_children()) - before
    status = [Path(f"/proc/{process.pid}/status").read_text() for process in new]
    start = time.monotonic()
    team.end()
    assert time.monotonic() - start < 1
    assert set(multiprocessing.active_children()) == before
    masks = [int(line.split()[1], 16) for text in status for line in text.splitlines() if line.startswith("SigBlk")]
    deaf = 1 << signal.SIGINT - 1 | 1 << signal.SIGTERM - 1
    assert [mask & deaf for mask in masks] == [deaf] * 4
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGINT, signal.SIGTERM}


class _TravelsOnce:
    """A way to read that a second worker cannot be given."""

    travelled = False

    __call__ = staticmethod(number_everywhere)

    def __reduce__(self) -> tuple:
        if self.travelled:
            raise KeyboardInterrupt
        self.travelled = True
        return partial, (number_everywhere,)


def test_when_not_all_workers_start_none_stays() -> None:
    before = set(multiprocessing.active_children())
    with pytest.raises(KeyboardInterrupt):
        _Team(_TravelsOnce(), SharedPixels.allocate((1,)), 2)
    assert set(multiprocessing.active_children()) == before


def test_a_worker_ends_with_a_run_that_is_killed() -> None:
    command = [sys.executable, "-m", "tests.trainer.data.numbered"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == -signal.SIGKILL
    assert not run.stderr
    worker = Path("/proc") / str(int(run.stdout))
    deadline = time.monotonic() + 5
    while _runs(worker):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _runs(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _shared_memory() -> list[str]:
    """What is mapped of it here."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if " /dev/shm/" in line]


def test_shared_memory_has_no_name_and_goes_with_its_last_batch() -> None:
    resource_tracker.ensure_running()
    gc.collect()
    mapped, descriptors = _shared_memory(), os.listdir("/proc/self/fd")
    batches = read_ahead(number_everywhere, SHAPE, workers=1, lent=LENT)
    held = next(batches)[0]
    (block,) = set(_shared_memory()) - set(mapped)
    assert block.endswith(" (deleted)")
    batches.close()
    gc.collect()
    assert block in _shared_memory()
    assert (held == 0).all()
    del held
    gc.collect()
    assert _shared_memory() == mapped
    assert len(os.listdir("/proc/self/fd")) <= len(descriptors)


def test_shared_memory_that_cannot_be_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(mmap, "mmap", refuse)
    with pytest.raises(InputError, match=r"Too many open files\n.*MB in /dev/shm\n.*smaller --batch$"):
        SharedPixels.allocate((2, 5))


def test_too_little_shared_memory() -> None:
    size = os.statvfs("/dev/shm")
    with pytest.raises(InputError, match=r"MB in /dev/shm\n.*or enlarge /dev/shm"):
        SharedPixels.allocate((2 * size.f_blocks * size.f_frsize,))
