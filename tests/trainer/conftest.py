"""One small store for all tests of training; never change it, copy it."""

from pathlib import Path

import pytest

from tests.trainer.tiny_store import write_tiny_store


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """K = 2, two classes, two views."""
    return write_tiny_store(tmp_path_factory.mktemp("tiny"))
