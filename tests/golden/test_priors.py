"""The priors of the original, bit for bit."""

from hashlib import sha256
from pathlib import Path

import numpy as np

from data_manifests.card import load_card
from data_manifests.prior_spec import ACT300
from data_manifests.priors import make_priors


def test_every_prior_is_the_originals_to_the_bit(golden: Path) -> None:
    theirs = np.load(golden / "priors.npz", allow_pickle=False)
    ours = make_priors(ACT300)
    assert sha256(ours.tobytes()).hexdigest() == sha256(theirs["boxes"].tobytes()).hexdigest()


def test_grids_and_counts_are_the_originals(golden: Path) -> None:
    theirs = np.load(golden / "priors.npz", allow_pickle=False)
    assert [layer.grid for layer in ACT300.layers] == theirs["map_sizes"].tolist()
    assert [layer.grid**2 * layer.priors_per_cell for layer in ACT300.layers] == theirs["layer_counts"].tolist()


def test_the_card_has_these_priors() -> None:
    assert load_card("ucf101").priors == ACT300
