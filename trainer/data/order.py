"""Which sample is trained when: a pure function of (seed, position), whatever the ranks, workers and restarts.

Positions count samples from the start of the run: position = step * global batch + place in the batch. Epoch e is the
positions e * clips to (e + 1) * clips, and visits each clip once, in an order of its own. An epoch need not be whole
batches: a batch may end one epoch and begin the next, so nothing is dropped and nothing repeated.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

_ROUNDS = 6


class Place(NamedTuple):
    """A clip's number, the view it is seen through, and the epoch."""

    clip: int
    view: int
    epoch: int


def sample_at(seed: int, position: int, clips: int, views: int) -> Place:
    """The sample at a position, in O(1) time and memory.

    Epoch e uses view 1 + e mod views; a store without augmented views is seen through view 0.

    Args:
        clips: number of clips of the store's split.
        views: augmented views a clip.
    """
    epoch, index = divmod(position, clips)
    return Place(permuted(seed, epoch, index, clips), 1 + epoch % views if views else 0, epoch)


def permuted(seed: int, epoch: int, index: int, count: int) -> int:
    """`index` under the epoch's permutation of range(count).

    A balanced Feistel network over the next even power of two; a result past `count` is permuted again until it falls
    inside (cycle walking: Black and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002).
    """
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for turn in range(_ROUNDS):
            word = blake2b(f"{seed}/{epoch}/{turn}/{right}".encode(), digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(word, "little") & mask)
        index = left << half | right
        if index < count:
            return index
