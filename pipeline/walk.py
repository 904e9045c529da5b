"""Looks through a folder and those below it, for the card that is drafted and for the build alike."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def folders_below(root: Path, *, unreadable: bool) -> Iterator[tuple[Path, list[Path]]]:
    """The folders from `root` on, each with its files, in the order of their names.

    Links are followed, as videos often lie on a disk of their own; a folder that is met again is passed over, as are
    hidden files and folders.

    Args:
        unreadable: passes over folders that may not be read.

    Raises:
        OSError: a folder may not be read, unless those are passed over.
    """

    def refuse(error: OSError) -> None:
        raise error

    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=None if unreadable else refuse):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(folder), [Path(folder) / name for name in sorted(files) if not name.startswith(".")]
