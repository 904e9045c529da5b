"""Counts what a store holds: tubes, clips, boxes, matches and views, for each split and class."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Integer

from data_manifests.layout import IGNORED, Settings
from pipeline.reconcile import Tube
from pipeline.stored import StoredShard, StoredVideo

LENGTHS = (1, 6, 10, 20, 40, 60, 80, 100, 150, 200, 300, 500)
"""Where the bins of tube lengths begin, frames."""
MATCHES = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Where the bins of the priors matched to a tube begin."""
OVERLAPS = 20
"""Bins of the best overlap in [0, 1]."""
PLACES = (18, 24)
"""Rows and columns of the map of box places."""
SIZES = tuple(2.0 ** (-i / 3) for i in range(18, -1, -1))
"""Edges of the bins of box sides, as part of the frame's side: thirds of an octave."""
SAMPLERS = 8
"""ACT's seven crops, and the whole frame that a view without a tube falls back to."""


@dataclass
class Count:
    """What was counted for one split and class.

    Args:
        covered: tubes of all clips that cover their clip, view 0.
        layers: matched priors by layer of the network, in view 0 and in the augmented views.
        overlap: best overlap of a covered tube with a prior that it is matched to, likewise.
        matches: priors matched to a covered tube, likewise; tubes that a view dropped are not counted.
        kept, dropped: tubes that the augmented views of each sampler kept and dropped.
    """

    layer_count: int
    videos: int = 0
    tubes: int = 0
    boxes: int = 0
    clips: int = 0
    covered: int = 0
    lengths: np.ndarray = field(default_factory=lambda: np.zeros(len(LENGTHS), int))
    places: np.ndarray = field(default_factory=lambda: np.zeros(PLACES, int))
    sizes: np.ndarray = field(default_factory=lambda: np.zeros((len(SIZES) - 1, len(SIZES) - 1), int))
    layers: np.ndarray = field(init=False)
    overlap: np.ndarray = field(default_factory=lambda: np.zeros((2, OVERLAPS), int))
    matches: np.ndarray = field(default_factory=lambda: np.zeros((2, len(MATCHES)), int))
    kept: np.ndarray = field(default_factory=lambda: np.zeros(SAMPLERS, int))
    dropped: np.ndarray = field(default_factory=lambda: np.zeros(SAMPLERS, int))

    def __post_init__(self) -> None:
        self.layers = np.zeros((2, self.layer_count), int)

    def summary(self) -> dict[str, int | float]:
        """The figures of a line in a table: counts, and of view 0 the priors a tube and the part of tubes that no prior
        fits (best overlap below 0.5); of augmented views the part of tubes that they dropped."""
        counts = {name: getattr(self, name) for name in ("videos", "tubes", "boxes", "clips")}
        poor = int(self.overlap[0, : OVERLAPS // 2].sum())
        dropped, all_tubes = int(self.dropped.sum()), int(self.dropped.sum() + self.kept.sum())
        return counts | {
            "priors_a_tube": int(self.layers[0].sum()) / max(1, self.covered),
            "without_fitting_prior": poor / max(1, self.covered),
            "dropped_by_views": dropped / max(1, all_tubes),
        }


@dataclass(frozen=True)
class TubeMatches:
    """How one tube fares in view 0 of the clips that it covers.

    Args:
        clips: their rows in the shard.
        matches: priors matched to the tube in each.
        overlap: the best of their overlaps, 0 where none is.
    """

    video: StoredVideo
    tube: Tube
    clips: Integer[np.ndarray, " C"]
    matches: Integer[np.ndarray, " C"]
    overlap: Float[np.ndarray, " C"]


class Census:
    """Counts shard by shard, so that a store larger than memory can be counted."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.counts: dict[tuple[str, int], Count] = {}
        self.ignored = 0
        self.views = np.zeros(SAMPLERS, int)
        self._layer_ends = np.cumsum([layer.grid**2 * layer.priors_per_cell for layer in settings.priors.layers])

    def add(self, shard: StoredShard) -> list[TubeMatches]:
        """Counts one shard; what was counted for each of its tubes is returned to be looked at more closely."""
        views = 1 + self.settings.views
        sampler, kept = shard["views/sampler"], shard["views/kept"]
        sampler = np.where(sampler >= SAMPLERS - 1, SAMPLERS - 1, sampler)
        self.views += np.bincount(sampler[:, 1:].ravel(), minlength=SAMPLERS)
        offsets, label, tube = shard["targets/offsets"], shard["targets/label"], shard["targets/tube"]
        matched = label != IGNORED
        self.ignored += int((~matched).sum())
        row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))[matched]
        tube, overlap = tube[matched].astype(np.int64), shard["targets/overlap"][matched]
        layer = np.searchsorted(self._layer_ends, shard["targets/prior"][matched], "right")
        told = []
        for video in shard.videos:
            clips, starts = shard.clip_starts(video)
            self._add_boxes(shard.split, video)
            if not len(clips):
                continue
            here = slice(*np.searchsorted(row, [clips[0] * views, (clips[-1] + 1) * views]))
            matches = _Matches(row[here] - clips[0] * views, tube[here], overlap[here], layer[here])
            told += self._add_clips(shard.split, video, clips, starts, sampler[clips], kept[clips], matches)
        return told

    def _count(self, split: str, label: int) -> Count:
        return self.counts.setdefault((split, label), Count(len(self._layer_ends)))

    def _add_boxes(self, split: str, video: StoredVideo) -> None:
        for label in {tube.label for tube in video.tubes}:
            self._count(split, label).videos += 1
        frame = np.array([video.width, video.height] * 2, np.float32)
        for tube in video.tubes:
            count, boxes = self._count(split, tube.label), tube.boxes / frame
            count.tubes += 1
            count.boxes += len(boxes)
            count.lengths[_bin(LENGTHS, np.array([len(boxes)]))] += 1
            _cover(count.places, boxes)
            wide, high = (np.searchsorted(SIZES, side, "right") - 1 for side in (boxes[:, 2:] - boxes[:, :2]).T)
            np.add.at(count.sizes, (high.clip(0, len(SIZES) - 2), wide.clip(0, len(SIZES) - 2)), 1)

    def _add_clips(
        self,
        split: str,
        video: StoredVideo,
        clips: Integer[np.ndarray, " C"],
        starts: Integer[np.ndarray, " C"],
        sampler: Integer[np.ndarray, "C views"],
        kept: Integer[np.ndarray, "C views"],
        matches: _Matches,
    ) -> list[TubeMatches]:
        first = np.array([tube.first_frame for tube in video.tubes])
        end = first + [len(tube.boxes) for tube in video.tubes]
        cover = (first <= starts[:, None]) & (end >= starts[:, None] + self.settings.K)
        place = np.cumsum(cover, 1) - 1
        labels = np.array([tube.label for tube in video.tubes])
        for label in np.unique(labels):
            self._count(split, int(label)).clips += int(cover[:, labels == label].any(1).sum())
        told = []
        for t, tube in enumerate(video.tubes):
            count, (of,) = self._count(split, tube.label), np.nonzero(cover[:, t])
            count.covered += len(of)
            in_view = (kept[of] >> place[of, t, None].astype(np.uint64)) & np.uint64(1) == 1
            count.kept += np.bincount(sampler[of, 1:][in_view[:, 1:]], minlength=SAMPLERS)
            count.dropped += np.bincount(sampler[of, 1:][~in_view[:, 1:]], minlength=SAMPLERS)
            number, best = matches.of(tube.index, kept.shape, count.layers)
            for augmented, views in enumerate((slice(0, 1), slice(1, None))):
                seen = in_view[:, views]
                bins = np.minimum(best[of, views][seen] * OVERLAPS, OVERLAPS - 1).astype(int)
                count.overlap[augmented] += np.bincount(bins, minlength=OVERLAPS)
                bins = _bin(MATCHES, number[of, views][seen])
                count.matches[augmented] += np.bincount(bins, minlength=len(MATCHES))
            told.append(TubeMatches(video, tube, clips[of], number[of, 0], best[of, 0]))
        return told


@dataclass(frozen=True)
class _Matches:
    """Matched priors of one video's views; row = clip * (1 + V) + view, from the video's first clip on."""

    row: Integer[np.ndarray, " M"]
    tube: Integer[np.ndarray, " M"]
    overlap: Float[np.ndarray, " M"]
    layer: Integer[np.ndarray, " M"]

    def of(
        self, tube: int, shape: tuple[int, int], layers: Integer[np.ndarray, "2 layers"]
    ) -> tuple[Integer[np.ndarray, "C views"], Float[np.ndarray, "C views"]]:
        """The number of priors matched to a tube in each view, and their best overlap; adds their layers."""
        mine = self.tube == tube
        row, overlap, layer = self.row[mine], self.overlap[mine], self.layer[mine]
        augmented = (row % shape[1] > 0).astype(int)
        np.add.at(layers, (augmented, layer), 1)
        number, best = np.bincount(row, minlength=shape[0] * shape[1]), np.zeros(shape[0] * shape[1], np.float32)
        np.maximum.at(best, row, overlap)
        return number.reshape(shape), best.reshape(shape)


def _bin(starts: tuple[int, ...], values: Integer[np.ndarray, " n"]) -> Integer[np.ndarray, " n"]:
    return np.maximum(np.searchsorted(starts, values, "right") - 1, 0)


def _cover(places: Integer[np.ndarray, "rows columns"], boxes: Float[np.ndarray, "frames 4"]) -> None:
    """Adds 1 to every cell that a box (in [0, 1]) reaches."""
    rows, columns = places.shape
    x1, y1 = np.floor(boxes[:, 0] * columns).astype(int), np.floor(boxes[:, 1] * rows).astype(int)
    x2, y2 = np.ceil(boxes[:, 2] * columns).astype(int), np.ceil(boxes[:, 3] * rows).astype(int)
    x1, x2, y1, y2 = x1.clip(0, columns), x2.clip(0, columns), y1.clip(0, rows), y2.clip(0, rows)
    edges = np.zeros((rows + 1, columns + 1), int)
    for y, x, sign in ((y1, x1, 1), (y1, x2, -1), (y2, x1, -1), (y2, x2, 1)):
        np.add.at(edges, (y, x), sign)
    places += edges.cumsum(0).cumsum(1)[:rows, :columns]
