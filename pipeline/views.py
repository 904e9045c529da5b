"""Views: ACT's augmentation, composed to one rectangle of whole native pixels and one bit.

Liu et al., SSD (ECCV 2016), section 2.2, as ACT uses it (`data_param` of the original's prototxt), with the mean over the
K frames of the IoU in place of the IoU:

1. expand: with probability 1/2 the frame lies at a random place on a canvas 1 to 4 times its size;
2. crop: seven samplers try up to 50 crops each, and one of the crops that satisfied its sampler is taken at random;
3. mirror with probability 1/2.

Where the original departs from SSD's sampler, SSD's is used: the aspect ratio is bounded so that a crop fits in the
canvas, the expanded frame lies anywhere, the seventh sampler accepts, and boxes are divided by the crop's true size.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from data_manifests.kernel import kernel
from pipeline.philox import open_stream, skip, uniform
from pipeline.prior_search import mean_iou

MAX_EXPANSION = 4.0
MIN_SCALE, MAX_SCALE = 0.3, 1.0
MIN_ASPECT, MAX_ASPECT = 0.5, 2.0
MAX_TRIALS = 50
MIN_OVERLAP = np.array([0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.0], np.float32)
"""What each sampler wants of its best overlap; the first takes the whole canvas, the last any crop."""
WHOLE_FRAME = 255
"""The sampler of a view that kept no tube in `MAX_REDRAWS` draws and fell back to the whole frame."""
MAX_REDRAWS = 20


@kernel
@no_type_check
def _areas(boxes):
    """Smallest and largest area of each tube."""
    areas = np.empty((len(boxes), 2), np.float32)
    for g in range(len(boxes)):
        smallest, largest = np.float32(np.inf), np.float32(0)
        for k in range(boxes.shape[1]):
            area = (boxes[g, k, 2] - boxes[g, k, 0]) * (boxes[g, k, 3] - boxes[g, k, 1])
            smallest, largest = min(smallest, area), max(largest, area)
        areas[g, 0], areas[g, 1] = smallest, largest
    return areas


@kernel
@no_type_check
def _in_reach(areas, least, most, overlap):
    """Whether a crop of an area between `least` and `most` may overlap some tube by that mean IoU: no IoU is above the
    smaller area / the larger one."""
    for g in range(len(areas)):
        if overlap * 0.999 * areas[g, 0] <= most and overlap * 0.999 * least <= areas[g, 1]:
            return True
    return False


@kernel
@no_type_check
def _draw_crop(stream, boxes, crop):
    """Fills `crop` (x1 y1 x2 y2 in [0, 1] of the canvas) and returns the sampler it came from, 0 to 6.

    A trial takes four draws, also where its crop's area alone rules it out.
    """
    crops = np.zeros((7, 4), np.float32)
    crops[0, 2], crops[0, 3] = 1, 1
    satisfied = np.zeros(7, np.bool_)
    satisfied[0], count = True, 1
    areas = _areas(boxes)
    for sampler in range(1, 7):
        overlap = MIN_OVERLAP[sampler]
        if not _in_reach(areas, MIN_SCALE**2, MAX_SCALE**2, overlap):
            skip(stream, 4 * MAX_TRIALS)
            continue
        for _ in range(MAX_TRIALS):
            scale = MIN_SCALE + (MAX_SCALE - MIN_SCALE) * uniform(stream)
            if not _in_reach(areas, scale * scale, scale * scale, overlap):
                skip(stream, 3)
                continue
            narrowest, widest = max(MIN_ASPECT, scale * scale), min(MAX_ASPECT, 1 / (scale * scale))
            aspect = narrowest + (widest - narrowest) * uniform(stream)
            width, height = scale * np.sqrt(aspect), scale / np.sqrt(aspect)
            left, top = (1 - width) * uniform(stream), (1 - height) * uniform(stream)
            crops[sampler, 0], crops[sampler, 1] = left, top
            crops[sampler, 2], crops[sampler, 3] = left + width, top + height
            for g in range(len(boxes)):
                if mean_iou(crops[sampler], boxes[g]) >= overlap:
                    satisfied[sampler] = True
                    break
            if satisfied[sampler]:
                count += 1
                break
    chosen = np.int64(uniform(stream) * count)
    for sampler in range(7):
        if satisfied[sampler]:
            if chosen == 0:
                for side in range(4):
                    crop[side] = crops[sampler, side]
                return sampler
            chosen -= 1
    return 0


@kernel
@no_type_check
def _draw_rectangle(stream, boxes, width, height, rectangle):
    """Steps 1 and 2: fills `rectangle` (x0 y0 x1 y1, native pixels) and returns the sampler."""
    ratio = 1.0
    if uniform(stream) < 0.5:
        ratio = 1 + (MAX_EXPANSION - 1) * uniform(stream)
    canvas_x, canvas_y = ratio * width, ratio * height
    left, top = (canvas_x - width) * uniform(stream), (canvas_y - height) * uniform(stream)
    on_canvas = np.empty_like(boxes)
    for g in range(boxes.shape[0]):
        for k in range(boxes.shape[1]):
            on_canvas[g, k, 0] = (boxes[g, k, 0] + left) / canvas_x
            on_canvas[g, k, 1] = (boxes[g, k, 1] + top) / canvas_y
            on_canvas[g, k, 2] = (boxes[g, k, 2] + left) / canvas_x
            on_canvas[g, k, 3] = (boxes[g, k, 3] + top) / canvas_y
    crop = np.empty(4, np.float32)
    sampler = _draw_crop(stream, on_canvas, crop)
    rectangle[0] = np.rint(crop[0] * canvas_x - left)
    rectangle[1] = np.rint(crop[1] * canvas_y - top)
    rectangle[2] = max(np.rint(crop[2] * canvas_x - left), rectangle[0] + 1)
    rectangle[3] = max(np.rint(crop[3] * canvas_y - top), rectangle[1] + 1)
    return sampler


@kernel
@no_type_check
def project(boxes, rectangle, mirrored, projected):
    """The tubes that a view keeps, and their boxes in [0, 1] of it.

    A tube is kept if its centre lies inside the view in all K frames (SSD's rule); its boxes are clipped to the view.
    Fills `projected` (as many rows as tubes are kept) and returns the kept tubes as bits.
    """
    left, top = np.float32(rectangle[0]), np.float32(rectangle[1])
    width, height = np.float32(rectangle[2] - rectangle[0]), np.float32(rectangle[3] - rectangle[1])
    zero, one, two = np.float32(0), np.float32(1), np.float32(2)
    kept, count = np.uint64(0), 0
    for g in range(boxes.shape[0]):
        inside = True
        for k in range(boxes.shape[1]):
            x1, y1, x2, y2 = boxes[g, k, 0] - left, boxes[g, k, 1] - top, boxes[g, k, 2] - left, boxes[g, k, 3] - top
            if not (zero <= (x1 + x2) / two <= width and zero <= (y1 + y2) / two <= height):
                inside = False
                break
            x1, x2, y1, y2 = x1 / width, x2 / width, y1 / height, y2 / height
            x1, x2 = max(x1, zero), min(x2, one)
            projected[count, k, 0] = one - x2 if mirrored else x1
            projected[count, k, 1] = max(y1, zero)
            projected[count, k, 2] = one - x1 if mirrored else x2
            projected[count, k, 3] = min(y2, one)
        if inside:
            kept |= np.uint64(1) << np.uint64(g)
            count += 1
    return kept


@kernel
@no_type_check
def draw_view(stream, key0, key1, first_frame, view, boxes, width, height, rectangle, projected):
    """View `view` (from 1 on) of the clip at `first_frame`: returns (mirrored, sampler, kept tubes as bits).

    A view that keeps no tube is drawn again, up to `MAX_REDRAWS` times; then it is the whole frame.

    Args:
        stream: a uint64 array of 9 that the draw may use (`pipeline.philox`).
        key0, key1: of the video and seed.
        boxes: the clip's tubes (G, K, 4), pixels.
        width, height: of the frame, pixels.
        rectangle: int64 (4,), filled.
        projected: float32 (G, K, 4), filled with the kept tubes' boxes in [0, 1] of the view.
    """
    open_stream(stream, key0, key1, first_frame, view)
    for _ in range(MAX_REDRAWS):
        sampler = _draw_rectangle(stream, boxes, width, height, rectangle)
        mirrored = uniform(stream) < 0.5
        kept = project(boxes, rectangle, mirrored, projected)
        if kept != 0:
            return mirrored, sampler, kept
    whole_frame(width, height, rectangle)
    mirrored = uniform(stream) < 0.5
    return mirrored, WHOLE_FRAME, project(boxes, rectangle, mirrored, projected)


@kernel
@no_type_check
def whole_frame(width, height, rectangle):
    """Fills the rectangle of view 0."""
    rectangle[0], rectangle[1], rectangle[2], rectangle[3] = 0, 0, width, height
