"""A counter-based generator: every draw is a pure function of (seed, video, first frame, view, number of the draw).

Philox4x32-10, Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (SC 2011).
"""

from __future__ import annotations

from hashlib import blake2b
from typing import no_type_check

import numpy as np

from data_manifests.kernel import kernel

_ROUNDS = 10
_MULTIPLY = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def video_key(seed: int, video_id: str) -> tuple[np.uint64, np.uint64]:
    """The generator's two key words (32 bits each, in uint64) for one video."""
    digest = blake2b(f"{seed}/{video_id}".encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest[:4], "little")), np.uint64(int.from_bytes(digest[4:], "little"))


@kernel
@no_type_check
def philox(key0, key1, c0, c1, c2, c3):
    """Four 32-bit words (in uint64) for a counter of four words."""
    for _ in range(_ROUNDS):
        p0, p1 = _MULTIPLY[0] * c0, _MULTIPLY[1] * c2
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ key0, p1 & _LOW, (p0 >> _32) ^ c3 ^ key1, p0 & _LOW
        key0, key1 = (key0 + _WEYL[0]) & _LOW, (key1 + _WEYL[1]) & _LOW
    return c0, c1, c2, c3


@kernel
@no_type_check
def uniform(stream):
    """The stream's next draw, float64 in [0, 1) on a grid of 2**-32.

    A stream is a uint64 array: key0, key1, first frame, view, draws so far, and the block of four words in use.
    """
    drawn = stream[4]
    place = drawn & np.uint64(3)
    if place == 0:
        _load(stream, drawn >> np.uint64(2))
    stream[4] = drawn + np.uint64(1)
    return np.float64(stream[5 + np.int64(place)]) * 2.0**-32


@kernel
@no_type_check
def skip(stream, draws):
    """Leaves out draws, one or more: the next is what it would be after them."""
    before = stream[4]
    after = before + np.uint64(draws)
    stream[4] = after
    block, three = after >> np.uint64(2), np.uint64(3)
    if after & three != 0 and (before & three == 0 or before >> np.uint64(2) != block):
        _load(stream, block)


@kernel
@no_type_check
def _load(stream, block):
    stream[5], stream[6], stream[7], stream[8] = philox(stream[0], stream[1], block, stream[3], stream[2], np.uint64(0))


@kernel
@no_type_check
def open_stream(stream, key0, key1, first_frame, view):
    """Puts a stream at the first draw of one view of one clip."""
    stream[0], stream[1], stream[2], stream[3], stream[4] = key0, key1, np.uint64(first_frame), np.uint64(view), 0
