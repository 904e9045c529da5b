"""What is looked at of a store on an object store, fetched into a folder that goes away again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from data_manifests.layout import MANIFEST, MANIFEST_COPY, SHARDS
from data_manifests.manifest import manifest_bytes, write_atomically
from data_manifests.object_store import ObjectStore
from pipeline.stored import FRAMES_FILE


@contextmanager
def fetched(remote: ObjectStore, video_id: str | None) -> Iterator[Path]:
    """A folder that opens as the store while it lasts. Nothing is checked on the way; readers check what they read.

    Args:
        video_id: fetches the one shard that holds this video, whole. None fetches all shards, without their frames:
            those are holes of the same size.

    Raises:
        InputError: there is no store, or the object store refuses.
    """
    manifest, sizes = remote.known_manifest(), remote.sizes()
    names = [MANIFEST_COPY, *manifest.files]
    holes: list[str] = []
    for shard, record in manifest.shards.items():
        if video_id is None or video_id in record.videos:
            for name in record.files or {}:
                is_hole = video_id is None and name == FRAMES_FILE
                (holes if is_hole else names).append(f"{SHARDS}/{shard}/{name}")
    with TemporaryDirectory(prefix="tubelets-") as scratch:
        store = Path(scratch)
        remote.get([name for name in names if name in sizes], store)
        write_atomically(store / MANIFEST, manifest_bytes(manifest))
        for name in holes:
            if name in sizes:
                (store / name).parent.mkdir(parents=True, exist_ok=True)
                (store / name).touch()
                os.truncate(store / name, sizes[name])
        yield store
