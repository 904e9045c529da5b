"""All targets of one video: every clip's views, drawn, matched and encoded in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float32, Int16, Int64, Integer, UInt8, UInt16, UInt64

from data_manifests.errors import InputError
from data_manifests.kernel import kernel
from data_manifests.layout import IGNORED
from pipeline.clips import MAX_TUBES_OF_VIDEO, check_tubes, covers
from pipeline.matching import MatchRule, PriorGrid, encode_rows, match_rows
from pipeline.philox import video_key
from pipeline.prior_search import make_scratch
from pipeline.views import draw_view, project, whole_frame

NO_TUBE = MAX_TUBES_OF_VIDEO
"""Stands for the tube of an ignored prior."""
MAX_SIDE = 8191
"""Of a frame: the rectangle of a view reaches 4 sides far and is stored as int16."""
_ROWS = 16_384
"""Room for targets at first; it grows to what one clip needs."""


@dataclass(frozen=True)
class ViewTargets:
    """The views and targets of C clips with 1 + V views each; ragged arrays have a row r = clip * (1 + V) + view.

    Args:
        rectangle: x0 y0 x1 y1 in native pixels, half-open; may reach past the frame.
        mirrored: whether the view is its mirror image.
        sampler: which of SSD's seven samplers cropped it; 255 is the whole-frame fallback; 0 for view 0.
        kept: bit i is set if the i-th of the clip's tubes is in the view.
        offsets: rows of the arrays below that belong to view r are offsets[r] to offsets[r + 1].
        prior: positives ascending, then ignored ones ascending.
        label: class + 1, or `IGNORED`.
        tube: the tube's index in its video; `NO_TUBE` for ignored priors.
        overlap: of prior and tube.
        loc: encoded offsets, zero for ignored priors.
    """

    rectangle: Int16[np.ndarray, "C views 4"]
    mirrored: Bool[np.ndarray, "C views"]
    sampler: UInt8[np.ndarray, "C views"]
    kept: UInt64[np.ndarray, "C views"]
    offsets: Int64[np.ndarray, " rows_and_1"]
    prior: UInt16[np.ndarray, " M"]
    label: UInt8[np.ndarray, " M"]
    tube: UInt8[np.ndarray, " M"]
    overlap: Float32[np.ndarray, " M"]
    loc: Float32[np.ndarray, "M K 4"]


def video_targets(
    video_id: str,
    boxes: list[Float32[np.ndarray, "_ 4"]],
    first_frame: Integer[np.ndarray, " T"],
    labels: Integer[np.ndarray, " T"],
    clips: Integer[np.ndarray, " C"],
    *,
    index: Integer[np.ndarray, " T"] | None = None,
    width: int,
    height: int,
    K: int,
    views: int,
    seed: int,
    mirrored_label: tuple[int, ...],
    grid: PriorGrid,
    rule: MatchRule,
) -> ViewTargets:
    """Targets of one video's clips.

    Args:
        video_id: keys the views, together with the seed.
        boxes: of each tube, one a frame, x1 y1 x2 y2 in pixels.
        first_frame, labels: of each tube; frames are 0-based, labels are class indices.
        clips: first frames of the clips.
        index: of each tube in its video, where the video has others too; by default 0, 1, 2, ...
        width, height: of the frames, pixels.
        views: augmented views a clip; view 0, the whole frame, comes first.
        mirrored_label: for each class the one that its mirror image shows.

    Raises:
        InputError: the video has more tubes, or larger frames, than a target can name; or a box is empty.
    """
    T, C = len(boxes), len(clips)
    index = np.arange(T) if index is None else index
    if max(width, height) > MAX_SIDE:
        raise InputError(
            f"{video_id} has frames of {width} x {height}",
            wanted=f"sides of at most {MAX_SIDE} pixels",
            todo="build with a smaller --max-side",
        )
    for place, tube in enumerate(boxes):
        whole = np.isfinite(tube).all(1) & (tube[:, 2:] > tube[:, :2]).all(1)
        if not whole.all():
            frame = int(first_frame[place]) + int(np.argmin(whole))
            raise InputError(
                f"{video_id}: tube {index[place]} has an empty box at frame {frame}", todo="mend the annotation"
            )
    length = np.array([len(tube) for tube in boxes], np.int64)
    begin = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    flat = np.concatenate([np.zeros((0, 4), np.float32), *boxes])
    first = first_frame.astype(np.int64)
    starts = clips.astype(np.int64)
    covering = covers(starts, first, length, K).sum(0)
    check_tubes(video_id, int(index.max(initial=-1)) + 1, starts, covering)
    rectangle = np.zeros((C, 1 + views, 4), np.int16)
    mirrored = np.zeros((C, 1 + views), np.bool_)
    sampler = np.zeros((C, 1 + views), np.uint8)
    kept = np.zeros((C, 1 + views), np.uint64)
    offsets = np.zeros(C * (1 + views) + 1, np.int64)
    parts: list[tuple[np.ndarray, ...]] = []
    done = 0
    capacity = _ROWS
    class_and_mirror = (
        np.stack([labels, np.array(mirrored_label)[labels]]).astype(np.int64) if T else np.zeros((2, 0), np.int64)
    )
    variances = np.array(rule.variances, np.float32)
    scratch = make_scratch(len(grid.boxes))
    while done < C:
        rows, before = _make_rows(capacity, K), done
        done, filled = _fill(
            done, starts, flat, begin, first, length, index.astype(np.int64), class_and_mirror, width, height, K, views,
            *video_key(seed, video_id), grid, np.float32(rule.positive_overlap), np.float32(rule.negative_overlap),
            variances, scratch, rectangle, mirrored, sampler, kept, offsets, *rows,
        )  # fmt: skip
        if done == before:
            capacity *= 4
        parts.append(tuple(array[:filled].copy() for array in rows))
    columns = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)] if parts else list(_make_rows(0, K))
    return ViewTargets(rectangle, mirrored, sampler, kept, np.cumsum(offsets), *columns)


def _make_rows(rows: int, K: int) -> tuple[np.ndarray, ...]:
    return (
        np.empty(rows, np.uint16),
        np.empty(rows, np.uint8),
        np.empty(rows, np.uint8),
        np.empty(rows, np.float32),
        np.empty((rows, K, 4), np.float32),
    )


@kernel
@no_type_check
def _fill(
    done, starts, flat, begin, first, length, index, class_and_mirror, width, height, K, views, key0, key1, grid, positive,
    negative, variances, scratch, rectangle, mirrored, sampler, kept, offsets, prior, label, tube, overlap, loc,
):  # fmt: skip
    """Fills whole clips from `done` on while the rows last; returns the clips done and the rows filled."""
    filled = 0
    stream = np.zeros(9, np.uint64)
    rect = np.zeros(4, np.int64)
    tubes = np.empty(len(first), np.int64)
    while done < len(starts):
        start, T = starts[done], 0
        for t in range(len(first)):
            if first[t] <= start and first[t] + length[t] >= start + K:
                tubes[T] = t
                T += 1
        boxes = np.empty((T, K, 4), np.float32)
        for i in range(T):
            row = begin[tubes[i]] + start - first[tubes[i]]
            for k in range(K):
                for side in range(4):
                    boxes[i, k, side] = flat[row + k, side]
        projected = np.empty_like(boxes)
        filled_before = filled
        for view in range(1 + views):
            if view == 0:
                whole_frame(width, height, rect)
                flip = np.bool_(False)
                drawn, bits = 0, project(boxes, rect, flip, projected)
            else:
                flip, drawn, bits = draw_view(stream, key0, key1, start, view, boxes, width, height, rect, projected)
            in_view = np.empty(T, np.int64)
            count = 0
            for i in range(T):
                if (bits >> np.uint64(i)) & np.uint64(1):
                    in_view[count] = tubes[i]
                    count += 1
            M = match_rows(projected[:count], grid, positive, negative, scratch)
            if filled + M > len(prior):
                return done, filled_before
            loc[filled : filled + M] = 0
            encode_rows(
                projected[:count], grid.boxes, scratch.prior[:M], scratch.tube[:M], variances, loc[filled : filled + M]
            )
            for i in range(M):
                prior[filled + i], overlap[filled + i] = scratch.prior[i], scratch.overlap[i]
                if scratch.tube[i] < 0:
                    label[filled + i], tube[filled + i] = IGNORED, NO_TUBE
                else:
                    owner = in_view[scratch.tube[i]]
                    label[filled + i], tube[filled + i] = class_and_mirror[np.int64(flip), owner] + 1, index[owner]
            filled += M
            for side in range(4):
                rectangle[done, view, side] = rect[side]
            mirrored[done, view], sampler[done, view], kept[done, view] = flip, drawn, bits
            offsets[done * (1 + views) + view + 1] = M
        done += 1
    return done, filled
