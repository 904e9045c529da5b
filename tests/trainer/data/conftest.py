"""The small store of the pipeline's tests."""

from tests.pipeline.conftest import small_root, small_store

__all__ = ["small_root", "small_store"]
