"""`python -m tests.trainer.data.numbered`: reads ahead by a worker, tells its process id, and is killed."""

import multiprocessing
import os
import signal

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


def fail(error: Exception, number: int, pixels: np.ndarray) -> str:
    """Cannot read any batch."""
    raise error


if __name__ == "__main__":
    batches = read_ahead(number_everywhere, (2, 5), workers=1, lent=1)
    next(batches)
    print(multiprocessing.active_children()[0].pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
