"""The ACT clip rule against plain loops."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clips import valid_clips
from tests.oracles import clips as plain


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 40),
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), max_size=5),
    st.integers(1, 16),
    st.integers(1, 5),
)
def test_valid_clips_are_those_of_plain_loops(frames: int, tubes: list[tuple[int, int]], K: int, stride: int) -> None:
    first, length = np.array(tubes, np.int64).reshape(-1, 2).T
    start, count = valid_clips(frames, first, length, K, stride)
    assert list(zip(start.tolist(), count.tolist())) == plain.valid_clips(frames, tubes, K, stride)
