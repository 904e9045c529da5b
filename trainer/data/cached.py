"""Opens a store wherever it lies; one on an object store mends its cache while it is read."""

from __future__ import annotations

from jaxtyping import UInt8
from numpy import ndarray
from pyarrow import Table

from data_manifests.errors import InputError
from data_manifests.object_store import ObjectStore
from trainer.data.cache import ShardCache
from trainer.data.reader import Sample, Store
from trainer.place import Place, Remote


class CachedStore(Store):
    """A store that is read from a `ShardCache`. A row or table that is damaged there is read again, fetched anew."""

    def __init__(self, place: Remote, split: str | None) -> None:
        """See `open_place`."""
        self._cache = ShardCache(place)
        try:
            super().__init__(self._cache.fetch(split), split)
        except InputError:  # another process may just be mending a shard, which is gone until it has arrived
            super().__init__(self._cache.fetch(split), split)
        self.place = place

    def sample(self, clip: int, view: int) -> Sample:
        """See `Store.sample`."""
        try:
            return super().sample(clip, view)
        except InputError:
            self._mend(self._locate(clip)[0])
            return super().sample(clip, view)

    def frames(self, video_id: str, start: int, stop: int) -> UInt8[ndarray, "n height width 3"]:
        """See `Store.frames`."""
        try:
            return super().frames(video_id, start, stop)
        except InputError:
            self._mend(self.shards.of_video[video_id])
            return super().frames(video_id, start, stop)

    def _table(self, name: str) -> Table:
        try:
            return super()._table(name)
        except InputError:
            self._cache.fetch(self.split)  # which looks at the small files
            return super()._table(name)

    def _mend(self, name: str) -> None:
        self._cache.mend(name)
        self.shards.reopen()


def open_place(place: Place, split: str | None = None) -> Store:
    """Opens a store, or one split of it: see `Store.open` and `ShardCache.fetch`."""
    return CachedStore(place, split) if isinstance(place, Remote) else Store.open(place, split)


def splits_at(place: Remote) -> list[str]:
    """The splits that a remote store has; none of its shards is fetched."""
    return sorted({record.split for record in ObjectStore(place.url).known_manifest().shards.values()})
