"""Where a store is read from: a folder, or a URL through a cache on this machine; and the options that say so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from data_manifests.errors import InputError
from data_manifests.finite import FiniteRange
from data_manifests.place import is_url


@dataclass(frozen=True)
class Remote:
    """A store on an object store, and where it is cached.

    Args:
        url: of the store.
        cache: folder of the cache, which all processes of a machine share.
        limit: bytes that the cache may hold.
    """

    url: str
    cache: Path
    limit: int

    def __str__(self) -> str:
        return self.url


Place = Path | Remote


def cache_options(command: Any) -> Any:
    """The options of a command that reads stores: `cache` and `cache_gb`, for `place_of`."""
    command = click.option(
        "--cache-gb",
        type=FiniteRange(min=0, min_open=True),
        default=100.0,
        show_default=True,
        help="Its size; unused stores make way.",
    )(command)
    return click.option(
        "--cache",
        type=click.Path(path_type=Path),
        help="Local folder for the shards of a store at a URL.",
    )(command)


def place_of(store: str, cache: Path | None, cache_gb: float) -> Place:
    """What a command line says of a store: its folder, or its URL and cache.

    Raises:
        InputError: a URL without a cache.
    """
    if not is_url(store):
        return Path(store)
    if cache is None:
        raise InputError(
            f"{store} is read through a cache on this machine", wanted="--cache DIR, on a local disk", todo="add it"
        )
    return Remote(store.rstrip("/"), cache, int(cache_gb * 1e9))
