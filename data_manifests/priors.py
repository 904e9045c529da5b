"""The prior boxes of a network, bit for bit as the original's PriorBox layers make them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float32

from data_manifests.errors import InputError
from data_manifests.layout import MOST_PRIORS, PRIORS, data_file
from data_manifests.manifest import Manifest, check_file
from data_manifests.prior_spec import PriorLayer, PriorSpec


def make_priors(spec: PriorSpec) -> Float32[np.ndarray, "P 4"]:
    """x1 y1 x2 y2 in [0, 1] of the input image, not clipped; ordered by layer, row, column, prior.

    `PriorBoxLayer` of the original: sizes and centres are float32, the corners are computed in float64 and rounded.

    Raises:
        InputError: the network has more priors than a target can name.
    """
    if spec.priors > MOST_PRIORS:
        raise InputError(f"a network of {spec.priors} priors", wanted=f"at most {MOST_PRIORS}", todo="use fewer grids")
    return np.concatenate([_layer_priors(layer, spec.image_size) for layer in spec.layers])


def read_priors(store: Path, manifest: Manifest, spec: PriorSpec) -> Float32[np.ndarray, "P 4"]:
    """The priors that lie in a store.

    Raises:
        InputError: their file is missing or damaged, or holds another number of them than the settings tell.
    """
    place = check_file(store, data_file(Path(PRIORS), 2).as_posix(), manifest.files, deep=True)
    values = np.fromfile(place, "<f4")
    if len(values) != 4 * spec.priors:
        raise InputError(
            f"{place} does not hold the priors of the settings", found=f"{len(values)} numbers",
            wanted=f"{4 * spec.priors}", todo=f"python -m pipeline verify {store} --repair",
        )  # fmt: skip
    return values.reshape(-1, 4)


def prior_shapes(layer: PriorLayer) -> Float32[np.ndarray, "n 2"]:
    """Width and height, in input pixels, of the priors of one cell: the square, the larger square, then r and 1/r."""
    smallest, largest = np.float32(layer.min_size), np.float32(layer.max_size)
    middle = np.sqrt(smallest * largest)
    shapes = [(smallest, smallest), (middle, middle)]
    for ratio in layer.ratios:
        for r in (np.float32(ratio), np.float32(1) / np.float32(ratio)):
            shapes.append((smallest * np.sqrt(r), smallest / np.sqrt(r)))
    return np.array(shapes, np.float32)


def _layer_priors(layer: PriorLayer, image_size: int) -> Float32[np.ndarray, "P 4"]:
    centre = (np.arange(layer.grid, dtype=np.float32) + np.float32(0.5)) * np.float32(layer.step)
    y, x = np.meshgrid(centre, centre, indexing="ij")
    centres = np.stack([x, y], -1)[:, :, None].astype(np.float64)
    half = prior_shapes(layer).astype(np.float64) / 2
    corners = np.concatenate([(centres - half) / image_size, (centres + half) / image_size], -1)
    return corners.reshape(-1, 4).astype(np.float32)
