"""Which prior boxes a network has: a setting of the dataset card, and the input of `data_manifests.priors`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PriorLayer:
    """The priors of one feature map (`prior_box_param` in the original's prototxt).

    Args:
        name: the feature map's name.
        grid: cells a side.
        step: pixels of the input image from one cell to the next.
        min_size: side, in input pixels, of the square prior.
        max_size: the second square prior has side sqrt(min_size * max_size).
        ratios: further aspect ratios; each r also gives 1/r.
    """

    name: str
    grid: int
    step: int
    min_size: float
    max_size: float
    ratios: tuple[float, ...]

    @property
    def priors_per_cell(self) -> int:
        """Two squares, and two boxes a ratio."""
        return 2 + 2 * len(self.ratios)


@dataclass(frozen=True)
class PriorSpec:
    """All priors of a network whose input is `image_size` x `image_size` pixels."""

    image_size: int
    layers: tuple[PriorLayer, ...]

    @property
    def priors(self) -> int:
        """How many there are, over all layers."""
        return sum(layer.grid * layer.grid * layer.priors_per_cell for layer in self.layers)


ACT300 = PriorSpec(
    image_size=300,
    layers=(
        PriorLayer("conv4_3", 38, 8, 30.0, 60.0, (2.0,)),
        PriorLayer("fc7", 18, 16, 60.0, 111.0, (2.0, 3.0)),
        PriorLayer("conv6_2", 9, 32, 111.0, 162.0, (2.0, 3.0)),
        PriorLayer("conv7_2", 5, 64, 162.0, 213.0, (2.0, 3.0)),
        PriorLayer("conv8_2", 3, 100, 213.0, 264.0, (2.0,)),
        PriorLayer("conv9_2", 1, 300, 264.0, 315.0, (2.0,)),
    ),
)
"""ACT's SSD300 variant (act-detector, ACT_create_prototxt.py): 8396 priors, not SSD300's 8732, because pool5 is 2x2 stride 1."""
