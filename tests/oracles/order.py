"""The sample order written out: every epoch as a list, from tables of the whole network's domain."""

from collections.abc import Iterator
from hashlib import blake2b

ROUNDS = 6


def epoch_order(seed: int, epoch: int, clips: int) -> list[int]:
    """An epoch's permutation of range(clips), by following each number's cycle in a table."""
    bits = 1
    while 4**bits < clips:
        bits += 1
    side = 2**bits
    table = list(range(side * side))
    for turn in range(ROUNDS):
        words = [
            int.from_bytes(blake2b(f"{seed}/{epoch}/{turn}/{right}".encode(), digest_size=8).digest(), "little") % side
            for right in range(side)
        ]
        table = [(at % side) * side + ((at // side) ^ words[at % side]) for at in table]
    order = []
    for index in range(clips):
        at = table[index]
        while at >= clips:
            at = table[at]
        order.append(at)
    return order


def samples(seed: int, clips: int, views: int) -> Iterator[tuple[int, int, int]]:
    """(clip, view, epoch) of position 0, 1, 2 and so on: epoch after epoch, none dropped, none repeated."""
    epoch = 0
    while True:
        for clip in epoch_order(seed, epoch, clips):
            yield clip, (1 + epoch % views if views else 0), epoch
        epoch += 1
