"""Looks through a folder and those below it, for the card that is drafted and for the build alike."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def folders_below(root: Path, *, unreadable: bool) -> Iterator[tuple[Path, list[Path]]]:
    """The folders from `root` on, each with its files, in the order of their names.

    Links are followed, as videos often lie on a disk of their own, but for one to a folder that it lies in. Hidden files
    and folders are passed over.

    Args:
        unreadable: passes over folders that may not be read.

    Raises:
        OSError: a folder may not be read, unless those are passed over.
    """

    def refuse(error: OSError) -> None:
        raise error

    for folder, folders, files in os.walk(root, followlinks=True, onerror=None if unreadable else refuse):
        here = Path(folder)
        above = [parent for parent in here.parents if parent == root or root in parent.parents]
        if os.path.realpath(here) in map(os.path.realpath, above):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield here, [here / name for name in sorted(files) if not name.startswith(".")]
