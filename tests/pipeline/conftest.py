"""One small dataset and its undisturbed store for all tests of the store; never change them, copy them."""

from pathlib import Path

import pytest

from tests.pipeline.small_store import build_small, write_dataset


@pytest.fixture(scope="session")
def small_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset."""
    root = tmp_path_factory.mktemp("dataset")
    write_dataset(root)
    return root


@pytest.fixture(scope="session")
def small_store(small_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its store."""
    store = tmp_path_factory.mktemp("stores") / "small"
    build_small(small_root, store)
    return store
