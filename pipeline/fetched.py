"""What is looked at of a store on an object store, fetched into a folder that goes away again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from data_manifests.layout import MANIFEST, SHARDS, data_file
from data_manifests.manifest import manifest_bytes, write_atomically
from data_manifests.object_store import ObjectStore

_FRAMES = data_file(Path("frames/bytes"), 1).as_posix()


@contextmanager
def fetched(remote: ObjectStore, video_id: str | None) -> Iterator[Path]:
    """A folder that opens as the store while it lasts. Nothing is checked on the way; readers check what they read.

    Args:
        video_id: fetches the one shard that holds this video, whole. None fetches all shards without their frames.

    Raises:
        InputError: there is no store, or the object store refuses.
    """
    manifest = remote.known_manifest()
    names = list(manifest.files)
    for shard, record in manifest.shards.items():
        if video_id is None or video_id in record.videos:
            left_out = _FRAMES if video_id is None else None
            names += [f"{SHARDS}/{shard}/{name}" for name in record.files or {} if name != left_out]
    with TemporaryDirectory(prefix="tubelets-") as scratch:
        remote.get(names, Path(scratch))
        write_atomically(Path(scratch, MANIFEST), manifest_bytes(manifest))
        yield Path(scratch)
