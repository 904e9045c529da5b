"""Priors of several networks against plain loops, and their counts."""

import numpy as np
import pytest

from data_manifests.errors import InputError
from data_manifests.prior_spec import ACT300, PriorLayer, PriorSpec
from data_manifests.priors import make_priors
from tests.oracles import priors as plain


def _ssd(size: int, grids: list[int], steps: list[int], sizes: list[float], wide: set[int]) -> PriorSpec:
    layers = (
        PriorLayer(f"map{i}", grid, step, sizes[i], sizes[i + 1], (2.0, 3.0) if i in wide else (2.0,))
        for i, (grid, step) in enumerate(zip(grids, steps))
    )
    return PriorSpec(size, tuple(layers))


SSD300 = _ssd(
    300, [38, 19, 10, 5, 3, 1], [8, 16, 32, 64, 100, 300], [30.0, 60.0, 111.0, 162.0, 213.0, 264.0, 315.0], {1, 2, 3}
)
SSD512 = _ssd(
    512,
    [64, 32, 16, 8, 4, 2, 1],
    [8, 16, 32, 64, 128, 256, 512],
    [35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.6],
    {1, 2, 3, 4},
)


@pytest.mark.parametrize(("spec", "count"), [(ACT300, 8396), (SSD300, 8732), (SSD512, 24564)])
def test_counts_are_the_papers_and_boxes_those_of_plain_loops(spec: PriorSpec, count: int) -> None:
    ours = make_priors(spec)
    assert len(ours) == spec.priors == count
    np.testing.assert_array_equal(ours.view(np.uint32), plain.priors(spec).view(np.uint32))


def test_more_priors_than_uint16_can_name_are_refused() -> None:
    with pytest.raises(InputError, match="65535"):
        make_priors(PriorSpec(300, (PriorLayer("dense", 150, 2, 30.0, 60.0, (2.0,)),)))
