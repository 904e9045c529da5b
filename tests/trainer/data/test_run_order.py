"""What is trained at which step does not depend on ranks, workers and restarts. The whole product: `make faults`."""

import itertools
from pathlib import Path

import pytest

from tests.benchmarks.orders import RANKS, leg, starts


@pytest.fixture(scope="module")
def cuts(small_store: Path) -> tuple[int, ...]:
    """The first step, that in which an epoch ends, and one amid the next epoch, with which the runs end."""
    return starts(small_store)[0][:3]


@pytest.fixture(scope="module")
def whole(small_store: Path, cuts: tuple[int, ...]) -> list[str]:
    """The undisturbed run of one process."""
    return leg(small_store, 0, cuts[-1] + 1, [0])


def test_ranks_and_restarts_change_nothing(small_store: Path, cuts: tuple[int, ...], whole: list[str]) -> None:
    """Each run is a leg of some ranks up to a cut, and a leg of others from there on."""
    legs = {
        (start, ranks): leg(small_store, start, len(whole), [0] * ranks)
        for start, ranks in itertools.product(cuts, RANKS)
    }
    for cut, before, after in itertools.product(cuts, RANKS, RANKS):
        assert legs[0, before][:cut] + legs[cut, after] == whole, (cut, before, after)


def test_workers_change_nothing(small_store: Path, cuts: tuple[int, ...], whole: list[str]) -> None:
    """Not even if ranks have different numbers of them."""
    assert leg(small_store, cuts[1], len(whole), [1, 2]) == whole[cuts[1] :]


def test_a_run_may_start_anywhere(small_store: Path) -> None:
    far = 10**15
    assert leg(small_store, far, far + 1, [0]) == leg(small_store, far, far + 1, [0] * 4)
