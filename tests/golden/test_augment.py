"""The original's augmentation replayed from its recorded draws, and what the rule here changes of it.

`tests.oracles.views` replays the original's steps, errors included. `pipeline.views.project` is the rule; on rows which
the errors do not touch the two agree.
"""

from pathlib import Path

import numpy as np
import pytest

from pipeline.views import project
from tests.oracles import views as plain

FRAME_HW = (240, 320)


class Row:
    """One row of augment.npz."""

    def __init__(self, data: dict[str, np.ndarray], index: int) -> None:
        def part(name: str) -> tuple[np.ndarray, np.ndarray]:
            rows = slice(data[f"{name}_ptr"][index], data[f"{name}_ptr"][index + 1])
            return data[name][rows], data[f"{name}_label"][rows]

        self.given, self.labels = part("boxes_in")
        self.expanded, _ = part("boxes_expand")
        self.cropped, self.kept_labels = part("boxes_crop")
        self.norm = data["norm"][data["boxes_crop_ptr"][index] : data["boxes_crop_ptr"][index + 1]]
        self.canvas_hw, self.cuboid, self.crop_hw = (
            data[name][index] for name in ("expand_hw", "crop_cuboid", "crop_hw")
        )
        self.video, self.frame, self.mirrored = data["video"][index], data["frame"][index], data["mirror"][index]

    @property
    def whole(self) -> bool:
        """No crop was taken."""
        return (self.crop_hw == self.canvas_hw).all() and (self.cuboid == [0, 0, *self.canvas_hw[::-1]]).all()

    @property
    def wraps(self) -> bool:
        """The crop starts before the canvas does."""
        return bool((self.cuboid.astype(int)[:2] < 0).any())

    @property
    def past_canvas(self) -> bool:
        """The crop is larger than the canvas, on either side."""
        return self.wraps or bool((self.cuboid < 0).any() or (self.cuboid[2:] >= self.canvas_hw[::-1] + 1).any())

    def ours(self) -> tuple[np.ndarray, np.ndarray]:
        """The same crop by the rule: tubes kept, boxes in [0, 1] of it."""
        dy, dx = self.canvas_hw - FRAME_HW
        rectangle = self.cuboid.astype(np.int64) - [dx, dy, dx, dy]
        projected = np.empty_like(self.given)
        kept = int(project(self.given, rectangle, False, projected))
        rows = np.array([g for g in range(len(self.given)) if kept >> g & 1], np.int64)
        return rows, projected[: len(rows)]


@pytest.fixture(scope="module")
def rows(golden: Path) -> list[Row]:
    data = dict(np.load(golden / "augment.npz", allow_pickle=False))
    return [Row(data, index) for index in range(len(data["video"]))]


def test_the_recorded_draws_give_every_step_exactly(rows: list[Row]) -> None:
    for row in rows:
        expanded = plain.expand(row.given, FRAME_HW, row.canvas_hw)
        np.testing.assert_array_equal(expanded, row.expanded)
        if row.whole:
            kept, cropped = np.arange(len(expanded)), expanded
        else:
            kept, cropped = plain.crop(expanded, row.cuboid)
            assert plain.sliced_hw(row.cuboid, row.canvas_hw) == tuple(row.crop_hw)
        np.testing.assert_array_equal(cropped, row.cropped)
        np.testing.assert_array_equal(row.labels[kept], row.kept_labels)
        np.testing.assert_array_equal(cropped / np.array([*row.crop_hw[::-1]] * 2).astype(np.float32), row.norm)


def test_the_boxes_are_those_of_the_annotations_mirrored(rows: list[Row], golden: Path) -> None:
    index = dict(np.load(golden / "annots_index.npz", allow_pickle=False))
    begin = np.cumsum(index["tube_len"]) - index["tube_len"]
    row_of = {video: row for row, video in enumerate(index["video"])}
    for row in rows:
        if row.video not in row_of:
            continue
        boxes = []
        for tube in np.flatnonzero(index["tube_video"] == row_of[row.video]):
            offset = row.frame - index["tube_start"][tube]
            if 0 <= offset <= index["tube_len"][tube] - 6:
                boxes.append(index["boxes"][begin[tube] + offset :][:6].astype(np.float32))
        given = np.array(boxes)
        np.testing.assert_array_equal(plain.mirror(given, FRAME_HW[1]) if row.mirrored else given, row.given)


def test_the_rule_keeps_the_originals_tubes(rows: list[Row]) -> None:
    for row in rows:
        if not row.whole:
            kept, _ = row.ours()
            np.testing.assert_array_equal(row.labels[kept], row.kept_labels)
            assert len(kept) == len(row.norm)


def test_the_rule_changes_only_rows_that_an_error_touches(rows: list[Row]) -> None:
    """Boxes are divided by w + 1 by the original unless its slice ends at the border; the rule divides them by w."""
    for row in rows:
        if row.whole or row.past_canvas:
            continue
        _, ours = row.ours()
        x1, y1, x2, y2 = row.cuboid.astype(int)
        true = np.array([x2 - x1, y2 - y1] * 2)
        theirs = np.array([*row.crop_hw[::-1]] * 2)
        exact = true == theirs
        np.testing.assert_array_equal(ours[..., exact], row.norm[..., exact])
        np.testing.assert_array_equal(theirs[~exact], true[~exact] + 1)
        np.testing.assert_allclose(ours, row.norm * (theirs / true), rtol=3e-7)


def test_boxes_outside_the_view_are_those_of_wrapped_crops(rows: list[Row]) -> None:
    outside = [row for row in rows if row.norm.size and row.norm.max() > 1 and not row.whole]
    assert all(row.wraps for row in outside)
    for row in rows:
        _, ours = row.ours()
        assert not ours.size or (ours.min() >= 0 and ours.max() <= 1)


def test_a_crop_that_wraps_is_one_that_ssds_sampler_cannot_draw(rows: list[Row]) -> None:
    for row in rows:
        if row.whole:
            continue
        width, height = (row.cuboid[2:] - row.cuboid[:2]) / row.canvas_hw[::-1]
        scale, aspect = np.sqrt(width * height), width / height
        bounded = scale**2 - 1e-4 <= aspect <= scale**-2 + 1e-4
        assert bounded or max(width, height) > 1
        assert not (row.wraps and bounded)


def test_the_expanded_frame_lies_at_the_bottom_right_in_every_row(rows: list[Row]) -> None:
    for row in rows:
        shift = row.expanded - row.given
        dy, dx = row.canvas_hw - FRAME_HW
        assert (shift == np.array([dx, dy, dx, dy], np.float32)).all()
