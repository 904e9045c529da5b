"""Tubelets of overlapping clips, linked into tubes (ACT.py, `BuildTubes`; Kalogeiton et al. 2017, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float32, Int16, Int64

from data_manifests.kernel import kernel
from trainer.detection.overlap import mean_float32, pixel_area, pixel_overlap, pixel_overlap_sums
from trainer.detection.suppress import suppress_tubes
from trainer.detection.tubelets import VideoTubelets


@dataclass(frozen=True)
class LinkRule:
    """How tubelets become tubes; the defaults are the constants of ACT's BuildTubes.

    Args:
        start_overlap: class NMS among the tubelets of one start.
        start_top: tubelets of a class that a start may keep.
        link_overlap: least mean IoU, over the common frames, of a tube's last tubelet with the next.
        misses: a tube ends when its last tubelet is this many starts behind (5, whatever K is).
        least_score: tubes of a lower mean score are dropped.
        least_frames: shorter tubes are dropped.
        tube_overlap: 3-D NMS among a class's tubes of a video.
    """

    start_overlap: float = 0.3
    start_top: int = 10
    link_overlap: float = 0.2
    misses: int = 5
    least_score: float = 0.01
    least_frames: int = 15
    tube_overlap: float = 0.3


ACT_LINKS = LinkRule()


@dataclass(frozen=True)
class Tubes:
    """The tubes of one video: class ascending, then in the order in which the original finishes them.

    Tube t has class label[t], starts at frame first[t], and owns the rows ptr[t]:ptr[t + 1] of boxes (pixels) and
    box_scores; `kept` says whether it passes 3-D NMS within its class.
    """

    label: Int16[np.ndarray, "T"]
    score: Float32[np.ndarray, "T"]
    first: Int64[np.ndarray, "T"]
    ptr: Int64[np.ndarray, "bounds"]
    boxes: Float32[np.ndarray, "n 4"]
    box_scores: Float32[np.ndarray, "n"]
    kept: Bool[np.ndarray, "T"]


@kernel
@no_type_check
def _overlap_rows(corners, areas, boxes, begin, known, close, i, limit, sums):
    """Fills row i of `close`: which tubelets of the start overlap tubelet i by more than `limit` (a sum of K IoUs)."""
    n = corners.shape[2]
    pixel_overlap_sums(corners, areas, 0, n, boxes[begin + i], sums)
    for j in range(n):
        close[i, j] = not (sums[j] <= limit)
    known[i] = True


@kernel
@no_type_check
def _best_of_start(values, free, known, close, corners, areas, boxes, begin, limit, top, sums, picked):
    """Greedy NMS that stops at `top` tubelets; of equal scores the last row wins. Returns how many rows it put in
    `picked`.
    """
    n = len(values)
    for j in range(n):
        free[j] = not np.isnan(values[j])
    count = 0
    while count < top:
        best = -1
        for j in range(n):
            if free[j] and (best < 0 or values[j] >= values[best]):
                best = j
        if best < 0:
            break
        picked[count] = best
        count += 1
        if not known[best]:
            _overlap_rows(corners, areas, boxes, begin, known, close, best, limit, sums)
        for j in range(n):
            free[j] &= not close[best, j]
        free[best] = False
    return count


@kernel
@no_type_check
def _start_tubelets(ptr, boxes, scores, overlap, top):
    """The tubelets that each (start, class) offers for linking: rows (starts, classes, top) and their counts."""
    starts, classes, K = len(ptr) - 1, scores.shape[1] - 1, boxes.shape[1]
    offered = np.empty((starts, classes, top), np.int64)
    counts = np.zeros((starts, classes), np.int64)
    most = 0
    for start in range(starts):
        most = max(most, ptr[start + 1] - ptr[start])
    all_corners, all_areas = np.empty(K * 4 * most, np.float32), np.empty(K * most, np.float32)
    all_close = np.empty(most * most, np.bool_)
    values, sums = np.empty(most, np.float32), np.empty(most, np.float32)
    free, known = np.empty(most, np.bool_), np.empty(most, np.bool_)
    picked = np.empty(top, np.int64)
    for start in range(starts):
        begin = ptr[start]
        n = ptr[start + 1] - begin
        corners = all_corners[: K * 4 * n].reshape(K, 4, n)
        areas = all_areas[: K * n].reshape(K, n)
        close = all_close[: n * n].reshape(n, n)
        for k in range(K):
            for j in range(n):
                for c in range(4):
                    corners[k, c, j] = boxes[begin + j, k, c]
                areas[k, j] = pixel_area(corners[k, 0, j], corners[k, 1, j], corners[k, 2, j], corners[k, 3, j])
        known[:n] = False
        for label in range(classes):
            for j in range(n):
                values[j] = scores[begin + j, 1 + label]
            count = _best_of_start(
                values[:n], free[:n], known, close, corners, areas, boxes, begin, overlap, top, sums, picked
            )
            counts[start, label] = count
            for i in range(count):
                offered[start, label, i] = begin + picked[i]
    return offered, counts


@kernel
@no_type_check
def _link_kernel(offered, counts, boxes, scores, label, link_overlap, misses):
    """Chains of one class. Returns ptr (chains + 1), start and row of each link, and the chains' mean scores."""
    starts, top, K = counts.shape[0], offered.shape[2], boxes.shape[1]
    room = top * (misses + 2)
    links = 0
    for start in range(starts):
        links += counts[start, label]
    out_ptr, out_mean = np.empty(links + 1, np.int64), np.empty(links, np.float32)
    out_start, out_row = np.empty(links, np.int64), np.empty(links, np.int64)
    out_ptr[0] = 0
    chains, done = 0, 0

    chain_start, chain_row = np.empty((room, starts), np.int64), np.empty((room, starts), np.int64)
    chain_score = np.empty((room, starts), np.float32)
    length, mean = np.zeros(room, np.int64), np.empty(room, np.float32)
    spare = np.arange(room)[::-1].copy()
    spares = room
    current = np.empty(room, np.int64)
    live = 0
    taken = np.empty(top, np.bool_)
    finished = np.empty(room, np.int64)

    for start in range(starts):
        here = offered[start, label]
        count = counts[start, label]
        taken[:count] = False
        if live > 1:
            order = np.argsort(-mean[current[:live]], kind="mergesort")
            current[:live] = current[:live][order]
        ended = 0
        for place in range(live):
            tube = current[place]
            last = length[tube] - 1
            offset = start - chain_start[tube, last]
            tail = boxes[chain_row[tube, last]]
            best = -1
            for i in range(count):
                if taken[i]:
                    continue
                head = boxes[here[i]]
                if offset < K:
                    overlap = np.float32(0)
                    for k in range(K - offset):
                        overlap += pixel_overlap(head[k], tail[k + offset])
                    overlap /= np.float32(K - offset)
                else:
                    overlap = pixel_overlap(head[0], tail[K - 1])
                if overlap >= link_overlap:
                    best = i
                    break
            if best >= 0:
                taken[best] = True
                last += 1
                chain_start[tube, last], chain_row[tube, last] = start, here[best]
                chain_score[tube, last] = scores[here[best], 1 + label]
                length[tube] = last + 1
                mean[tube] = mean_float32(chain_score[tube], last + 1)
            elif offset >= misses:
                finished[ended] = place
                ended += 1
        for e in range(ended - 1, -1, -1):
            place = finished[e]
            tube = current[place]
            n = length[tube]
            out_start[done : done + n] = chain_start[tube, :n]
            out_row[done : done + n] = chain_row[tube, :n]
            out_mean[chains] = mean[tube]
            done += n
            chains += 1
            out_ptr[chains] = done
            spare[spares] = tube
            spares += 1
            current[place : live - 1] = current[place + 1 : live].copy()
            live -= 1
        for i in range(count):
            if not taken[i]:
                spares -= 1
                tube = spare[spares]
                chain_start[tube, 0], chain_row[tube, 0] = start, here[i]
                chain_score[tube, 0] = scores[here[i], 1 + label]
                length[tube], mean[tube] = 1, chain_score[tube, 0]
                current[live] = tube
                live += 1
    for place in range(live):
        tube = current[place]
        n = length[tube]
        out_start[done : done + n] = chain_start[tube, :n]
        out_row[done : done + n] = chain_row[tube, :n]
        out_mean[chains] = mean[tube]
        done += n
        chains += 1
        out_ptr[chains] = done
    return out_ptr[: chains + 1], out_start[:done], out_row[:done], out_mean[:chains]


@kernel
@no_type_check
def _tubes_of_chains(ptr, starts, rows, means, boxes, scores, label, least_score, least_frames):
    """Chains to tubes: every frame gets the mean box and the mean score of the tubelets that cover it."""
    K = boxes.shape[1]
    chosen = np.empty(len(means), np.int64)
    tubes, frames = 0, 0
    for chain in range(len(means)):
        length = starts[ptr[chain + 1] - 1] + K - starts[ptr[chain]]
        if not means[chain] < least_score and length >= least_frames:
            chosen[tubes] = chain
            tubes += 1
            frames += length
    first, bounds = np.empty(tubes, np.int64), np.zeros(tubes + 1, np.int64)
    out_boxes, out_scores = np.zeros((frames, 4), np.float32), np.zeros(frames, np.float32)
    covered = np.zeros(frames, np.int32)
    for t in range(tubes):
        chain = chosen[t]
        first[t] = starts[ptr[chain]]
        base = bounds[t]
        for i in range(ptr[chain], ptr[chain + 1]):
            place = base + starts[i] - first[t]
            for k in range(K):
                for c in range(4):
                    out_boxes[place + k, c] += boxes[rows[i], k, c]
                out_scores[place + k] += scores[rows[i], 1 + label]
                covered[place + k] += 1
        bounds[t + 1] = base + starts[ptr[chain + 1] - 1] + K - first[t]
        before = base
        for place in range(base, bounds[t + 1]):
            if covered[place] == 0:
                continue
            out_boxes[place] /= np.float32(covered[place])
            out_scores[place] /= np.float32(covered[place])
            for gap in range(before + 1, place):
                part = np.float32(gap - before) / np.float32(place - before)
                out_boxes[gap] = out_boxes[before] + part * (out_boxes[place] - out_boxes[before])
                out_scores[gap] = out_scores[before] + part * (out_scores[place] - out_scores[before])
            before = place
    return means[chosen[:tubes]], first, bounds, out_boxes, out_scores


def link(tubelets: VideoTubelets, rule: LinkRule = ACT_LINKS) -> Tubes:
    """Builds each class's tubes of one video, start after start.

    Each start offers its best tubelets of a class. The running tubes, best mean score first, take the best offered
    tubelet that overlaps their last one; tubelets that nobody takes start tubes of their own. A frame inside a tube
    that no tubelet covers (the original's K of 6 has none; it takes K <= `misses`) is interpolated between its
    neighbours.
    """
    boxes, scores, K = tubelets.any_boxes, tubelets.any_scores, tubelets.K
    offered, counts = _start_tubelets(
        tubelets.any_ptr, boxes, scores, np.float32(rule.start_overlap * K), rule.start_top
    )
    parts = []
    for label in range(tubelets.classes):
        ptr, starts, rows, means = _link_kernel(
            offered, counts, boxes, scores, label, np.float32(rule.link_overlap), rule.misses
        )
        parts.append(
            _tubes_of_chains(ptr, starts, rows, means, boxes, scores, label, rule.least_score, rule.least_frames)
        )
    labels = np.repeat(np.arange(len(parts), dtype=np.int16), [len(part[0]) for part in parts])
    score, first, _, tube_boxes, box_scores = (np.concatenate([part[i] for part in parts]) for i in range(5))
    ptr = np.concatenate(([0], np.cumsum(np.concatenate([np.diff(part[2]) for part in parts])))).astype(np.int64)
    kept = np.zeros(len(labels), bool)
    for label in range(tubelets.classes):
        rows = np.flatnonzero(labels == label)
        kept[suppress_tubes(first, ptr, tube_boxes, score, rows, overlap=rule.tube_overlap)] = True
    return Tubes(labels, score, first, ptr, tube_boxes, box_scores, kept)
