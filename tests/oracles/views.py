"""ACT's augmentation step by step: the original's, with its errors, and SSD's sampler, which the rule follows."""

from __future__ import annotations

import numpy as np


def mirror(boxes: np.ndarray, width: int) -> np.ndarray:
    """The original's mirror of pixel boxes (..., 4)."""
    return np.stack([width - boxes[..., 2], boxes[..., 1], width - boxes[..., 0], boxes[..., 3]], -1)


def expand(boxes: np.ndarray, frame_hw: tuple[int, int], canvas_hw: np.ndarray) -> np.ndarray:
    """The original's expansion: the frame always lies at the bottom right of the canvas."""
    dy, dx = canvas_hw[0] - frame_hw[0], canvas_hw[1] - frame_hw[1]
    return boxes + np.array([dx, dy, dx, dy], np.float32)


def crop(boxes: np.ndarray, cuboid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The original's crop (x1 y1 x2 y2 before int()): the rows kept, and their boxes in pixels of the crop."""
    x1, y1, x2, y2 = (int(edge) for edge in cuboid)
    shifted = boxes - np.array([x1, y1, x1, y1], np.float32)
    x, y = (shifted[..., 0] + shifted[..., 2]) / 2, (shifted[..., 1] + shifted[..., 3]) / 2
    kept = np.flatnonzero(~((x < 0) | (y < 0) | (x > x2 - x1) | (y > y2 - y1)).any(-1))
    limit = np.array([x2 - x1, y2 - y1] * 2, np.float32)
    return kept, np.clip(shifted[kept], 0, limit)


def sliced_hw(cuboid: np.ndarray, canvas_hw: np.ndarray) -> tuple[int, int]:
    """Size of the original's slice [y1:y2 + 1, x1:x2 + 1], in which a negative start wraps round."""
    x1, y1, x2, y2 = (int(edge) for edge in cuboid)
    return len(range(canvas_hw[0])[y1 : y2 + 1]), len(range(canvas_hw[1])[x1 : x2 + 1])


def mean_iou(crop: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Of one crop (4,) and tubes (G, K, 4)."""
    low, high = np.maximum(crop[:2], boxes[..., :2]), np.minimum(crop[2:], boxes[..., 2:])
    inter = np.prod(np.maximum(high - low, 0), -1)
    area = np.prod(boxes[..., 2:] - boxes[..., :2], -1) + np.prod(crop[2:] - crop[:2])
    return (inter / (area - inter)).mean(-1)


def draw_crop(random: np.random.Generator, boxes: np.ndarray, original: bool) -> tuple[np.ndarray, int]:
    """A crop of the unit canvas and its sampler. `original` has ACT's two errors: no bound on the aspect ratio that
    makes a crop fit, and a seventh sampler that never accepts.
    """
    found = [(np.array([0.0, 0.0, 1.0, 1.0]), 0)]
    for sampler, least in enumerate((0.1, 0.3, 0.5, 0.7, 0.9, 0.0), start=1):
        if original and sampler == 6:
            continue
        for _ in range(50):
            scale = random.uniform(0.3, 1.0)
            low, high = (0.5, 2.0) if original else (max(0.5, scale**2), min(2.0, scale**-2))
            aspect = random.uniform(low, high)
            width, height = scale * aspect**0.5, scale / aspect**0.5
            x, y = (1 - width) * random.uniform(), (1 - height) * random.uniform()
            tried = np.array([x, y, x + width, y + height])
            if mean_iou(tried, boxes).max() >= least:
                found.append((tried, sampler))
                break
    return found[random.integers(len(found))]


def draw_canvas(random: np.random.Generator) -> tuple[float, float, float]:
    """Expansion ratio, and the frame's place on the canvas as fractions of the room there is."""
    ratio = random.uniform(1, 4) if random.uniform() < 0.5 else 1.0
    return ratio, random.uniform(), random.uniform()
