"""Annotations against what was decoded."""

from dataclasses import replace

import numpy as np
import pytest

from data_manifests.errors import InputError
from pipeline.reconcile import RULES, Decoded, Tube, reconcile

SIZE = (320, 240)


def tube(first_frame: int, frames: int, index: int = 0) -> Tube:
    """Frame f of the video has the box f, 0, f + 10, 20."""
    x = np.arange(first_frame, first_frame + frames, dtype=np.float32)
    return Tube(index, 3, first_frame, np.stack([x, 0 * x, x + 10, 0 * x + 20], 1))


def test_equal_counts_and_sizes_change_nothing() -> None:
    tubes = [tube(0, 10), tube(5, 5, 1)]
    assert reconcile("a/b", tubes, Decoded(10, *SIZE, "pyav"), annotated_frames=10, box_size=SIZE) == (tubes, ())


def test_packed_b_frames_move_annotations_one_frame_down() -> None:
    """Annotation frame i is decoded frame i - 1; what was annotated at frame 0 has no frame any more."""
    tubes = [tube(0, 11), tube(4, 3, 1), tube(0, 1, 2), tube(1, 10, 3)]
    packed = Decoded(10, *SIZE, "pyav", packed=True)
    moved, rules = reconcile("a/b", tubes, packed, annotated_frames=11, box_size=SIZE)
    assert rules == ("packed-b-frames",)
    assert [(t.index, t.first_frame, len(t.boxes)) for t in moved] == [(0, 0, 10), (1, 3, 3), (3, 0, 10)]
    for t in moved:
        np.testing.assert_array_equal(t.boxes[:, 0], np.arange(len(t.boxes)) + t.first_frame + 1)


def test_another_size_scales_boxes() -> None:
    (scaled,), rules = reconcile(
        "a/b", [tube(0, 10)], Decoded(10, 340, 256, "pyav"), annotated_frames=10, box_size=SIZE
    )
    assert rules == ("scaled-boxes",)
    np.testing.assert_allclose(scaled.boxes, tube(0, 10).boxes * np.tile([340 / 320, 256 / 240], 2), rtol=1e-6)


@pytest.mark.parametrize(
    ("decoded", "annotated", "decoder", "packed"),
    [
        (9, 11, "pyav", True), (12, 11, "pyav", True), (10, 11, "pyav", False), (10, 11, "images", False),
        (0, 11, "pyav", False), (1, 11, "images", False),
    ],
)  # fmt: skip
def test_other_counts_are_refused_by_name(decoded: int, annotated: int, decoder: str, packed: bool) -> None:
    came = Decoded(decoded, *SIZE, decoder, packed=packed)
    with pytest.raises(InputError, match=rf"video a/b has another number[\s\S]*{decoded} decoded[\s\S]*{annotated}"):
        reconcile("a/b", [tube(0, 1)], came, annotated_frames=annotated, box_size=SIZE)


def test_formats_that_count_no_frames_are_held_to_their_tubes() -> None:
    tubes = [tube(3, 7)]
    assert reconcile("a/b", tubes, Decoded(25, *SIZE, "pyav"), annotated_frames=None, box_size=SIZE) == (tubes, ())
    with pytest.raises(InputError, match=r"video a/b ends before its tube 0[\s\S]*9 decoded[\s\S]*at least 10"):
        reconcile("a/b", tubes, Decoded(9, *SIZE, "pyav"), annotated_frames=None, box_size=SIZE)


def test_a_tube_is_told_by_its_name_and_numbers_in_the_file() -> None:
    named = replace(tube(3, 7), called="tube left")
    given = {"annotated_frames": None, "box_size": SIZE, "counted_from": 1}
    with pytest.raises(
        InputError, match=r"before its tube left[\s\S]*last frame is number 10, counted from 1\n"
    ) as error:
        reconcile("a/b", [named], Decoded(9, *SIZE, "pyav"), **given)
    assert "first_frame" not in error.value.todo
    outside = replace(named, boxes=named.boxes + np.float32([1000, 0, 1000, 0]))
    with pytest.raises(InputError, match=r"a/b tube left, frame 4: the box is empty or outside"):
        reconcile("a/b", [outside], Decoded(25, *SIZE, "pyav"), **given)


def test_every_rule_is_explained() -> None:
    assert RULES.keys() == {
        "kept-before-damage", "packed-b-frames", "clipped-boxes", "scaled-boxes", "jpegs-as-found",
    }  # fmt: skip
