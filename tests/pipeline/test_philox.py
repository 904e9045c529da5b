"""The generator against the vectors of its authors."""

import numpy as np
import pytest

from pipeline.philox import open_stream, philox, skip, uniform, video_key


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # Random123, tests/kat_vectors: philox4x32 10
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_words_are_those_of_random123(counter: tuple, key: tuple, words: tuple) -> None:
    assert tuple(map(int, philox(*map(np.uint64, (*key, *counter))))) == words


def _draws(seed: int, video: str, first_frame: int, view: int, count: int) -> list[float]:
    stream = np.zeros(9, np.uint64)
    open_stream(stream, *video_key(seed, video), first_frame, view)
    return [uniform(stream) for _ in range(count)]


def test_draws_depend_on_seed_video_frame_and_view_and_on_nothing_else() -> None:
    draws = _draws(0, "a/b", 3, 1, 9)
    assert draws == _draws(0, "a/b", 3, 1, 9)
    others = [_draws(*key, 9) for key in [(1, "a/b", 3, 1), (0, "a/c", 3, 1), (0, "a/b", 4, 1), (0, "a/b", 3, 2)]]
    assert len({tuple(other) for other in [draws, *others]}) == 5
    assert len(set(draws)) == 9
    assert all(0 <= draw < 1 for draw in draws)


@pytest.mark.parametrize("before", range(6))
@pytest.mark.parametrize("draws", [1, 2, 3, 4, 5, 200])
def test_draws_that_are_left_out_change_none_that_follow(before: int, draws: int) -> None:
    stream = np.zeros(9, np.uint64)
    open_stream(stream, *video_key(0, "a/b"), 3, 1)
    for _ in range(before):
        uniform(stream)
    skip(stream, draws)
    assert [uniform(stream) for _ in range(6)] == _draws(0, "a/b", 3, 1, before + draws + 6)[-6:]


def test_keys_are_the_same_on_any_machine() -> None:
    assert [int(word) for word in video_key(0, "Surfing/v_Surfing_g01_c01")] == [3518746636, 328597760]
