"""`python -m tests.trainer.data.killed_fetch URL CACHE REPLACED`: fetches a store, and is killed at work."""

import os
import signal
import sys
from pathlib import Path

from trainer.data.cache import ShardCache
from trainer.place import Remote


def main(url: str, cache: str, replaced: str) -> None:
    """Killed once so many files and shards are in place."""
    replace, left = os.replace, [int(replaced)]

    def replacing(old: Path, new: Path) -> None:
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        replace(old, new)

    os.replace = replacing  # type: ignore[assignment]
    ShardCache(Remote(url, Path(cache), 10**9)).fetch(None)


if __name__ == "__main__":
    main(*sys.argv[1:])
