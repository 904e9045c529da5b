"""The order is a function of (seed, position) that visits every clip once an epoch, at no cost in memory."""

import itertools
import time
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles.order import epoch_order, samples
from trainer.data.order import permuted, sample_at


@pytest.mark.parametrize("clips", [1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000])
def test_order_is_the_oracles(clips: int) -> None:
    for seed, epoch in ((0, 0), (0, 1), (7, 3)):
        ours = [permuted(seed, epoch, index, clips) for index in range(clips)]
        assert ours == epoch_order(seed, epoch, clips)
        assert sorted(ours) == list(range(clips))


@pytest.mark.parametrize(("clips", "views"), [(5, 3), (64, 0), (7, 1)])
def test_positions_run_from_epoch_to_epoch(clips: int, views: int) -> None:
    expected = list(itertools.islice(samples(4, clips, views), 5 * clips + 2))
    assert [tuple(sample_at(4, position, clips, views)) for position in range(len(expected))] == expected


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**62), st.integers(0, 10**6), st.integers(1, 300))
def test_a_permutation_whatever_the_seed(seed: int, epoch: int, clips: int) -> None:
    assert len({permuted(seed, epoch, index, clips) for index in range(clips)}) == clips


def test_epochs_and_seeds_are_unlike() -> None:
    orders = [epoch_order(seed, epoch, 500) for seed in range(3) for epoch in range(3)]
    for one, other in itertools.combinations(orders, 2):
        same = sum(a == b for a, b in zip(one, other, strict=True))
        assert same < 10  # 1 is expected of two random orders


def test_places_are_uniform() -> None:
    """Each clip comes at each tenth of an epoch equally often: chi-squared over 2000 epochs."""
    clips, epochs = 50, 2000
    tenth = Counter(
        (permuted(1, epoch, index, clips), index // 5) for epoch in range(epochs) for index in range(0, clips, 5)
    )
    counts = np.array([tenth[clip, part] for clip in range(clips) for part in range(10)])
    expected = epochs / clips
    assert ((counts - expected) ** 2 / expected).sum() < 500 + 4 * np.sqrt(2 * 500)


def test_neighbours_do_not_stay_neighbours() -> None:
    """Clips i and i + 1 overlap in all frames but one: they must not be trained together."""
    order = np.array(epoch_order(0, 0, 4096))
    assert (np.abs(np.diff(order)) == 1).sum() < 10  # 2 are expected of a random order


def test_a_hundred_million_clips_cost_nothing() -> None:
    tracemalloc.start()
    started = time.process_time()
    places = [sample_at(0, 7 * 10**17 + position, 10**8, 8) for position in range(1000)]
    seconds = time.process_time() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len({place.clip for place in places}) == 1000
    assert peak < 1_000_000
    assert seconds < 2
