"""Where a store lies: a folder, or a URL on an object store."""

from __future__ import annotations


def is_url(place: str) -> bool:
    """Whether it is a URL."""
    return "://" in place
