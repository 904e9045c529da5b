"""`python -m tests.trainer.data.numbered`: reads ahead by a worker, tells its and its server's process ids, and is killed."""

import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np

from data_manifests.errors import InputError
from trainer.data.workers import read_ahead

LAST = 240


def number_everywhere(number: int, pixels: np.ndarray) -> str:
    """Fills a batch with its number. There is none after `LAST`."""
    if number > LAST:
        raise InputError(f"batch {number} is damaged")
    pixels[:] = number % 251
    return f"batch {number}"


def fail(error: Exception, said: Path, number: int, pixels: np.ndarray) -> str:
    """Cannot read any batch. What the worker says from here on goes to a file."""
    os.dup2(os.open(said, os.O_CREAT | os.O_WRONLY), 2)
    raise error


def told(name: str, number: int, pixels: np.ndarray) -> str:
    """What a variable of the environment says to the worker."""
    return os.environ[name]


if __name__ == "__main__":
    batches = read_ahead(number_everywhere, (2, 5), workers=1, lent=1)
    next(batches)
    worker = multiprocessing.active_children()[0].pid
    server = Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[1]
    print(worker, server, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
