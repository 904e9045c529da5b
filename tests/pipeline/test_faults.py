"""A small run of `make faults`: nothing wrong in a store goes unseen."""

import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from data_manifests.layout import MANIFEST, MANIFEST_COPY
from pipeline.verify import verify
from tests.benchmarks.faults import FAULTS, Stores, inject, prepare
from tests.pipeline.small_store import refusal
from trainer.data.reader import Store


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    """A good store and bad examples."""
    return prepare(tmp_path_factory.mktemp("faults"))


def test_no_fault_is_silent(stores: Stores, tmp_path: Path) -> None:
    caught = [inject(stores, tmp_path / "copy", seed) for seed in range(len(FAULTS))]
    assert [one for one in caught if one.silent] == []
    assert Counter(one.fault for one in caught) == dict.fromkeys(FAULTS, 1)
    assert {one.by for one in caught} >= {"opening", "reading"}


@pytest.mark.parametrize("how", ["a bit flipped", "grown"])
def test_every_file_is_watched(stores: Stores, tmp_path: Path, how: str) -> None:
    """All at once, since none may hide behind another; the manifests have tests of their own."""
    store, draw = tmp_path / "copy", random.Random(0)
    shutil.copytree(stores.good, store)
    names = stores.files.keys() - {MANIFEST, MANIFEST_COPY}
    assert len(names) > 100
    for name in names:
        content = bytearray((store / name).read_bytes())
        if how == "grown":
            content.append(0)
        else:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        (store / name).write_bytes(content)
    assert {finding.file for finding in verify(store, deep=how != "grown")} == names


def test_another_build_of_the_same_settings_is_refused_at_opening(stores: Stores, tmp_path: Path) -> None:
    """Its rows have good checksums and its files the recorded sizes; only the manifest knows that they are others."""
    store = Path(shutil.copytree(stores.good, tmp_path / "copy"))
    pixels, classes = stores.twins
    for twin, part, file in ((pixels, "", "frames"), (pixels, "frames", "frames"), (classes, "targets", "targets")):
        place = store / "shards" / "train-00000" / part
        shutil.rmtree(place)
        shutil.copytree(twin / place.relative_to(store), place)
        damaged = f"shards/train-00000/{file}/crc32c/c/0"
        assert f"{store / damaged} is damaged" in refusal(Store.open, store)
        assert damaged in [finding.file for finding in verify(store)]
        shutil.rmtree(place)
        shutil.copytree(stores.good / place.relative_to(store), place)
    assert Store.open(store).clips


@pytest.mark.parametrize("seed", range(4))
def test_a_bit_that_training_reads_is_refused_when_it_is_read(stores: Stores, tmp_path: Path, seed: int) -> None:
    number = list(FAULTS).index("a flipped bit of a row") + seed * len(FAULTS)
    caught = inject(stores, tmp_path / "copy", number)
    assert caught.by == "reading", caught
    assert "is damaged" in caught.message
    assert "video" in caught.message or "clip" in caught.message
