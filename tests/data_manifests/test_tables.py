"""The tables' box column, there and back."""

import numpy as np
import pyarrow as pa

from data_manifests.tables import TUBES, box_column, boxes_of


def test_boxes_come_back_as_they_were_put_in() -> None:
    boxes = [np.arange(8, dtype=np.float32).reshape(2, 4), np.zeros((0, 4), np.float32), np.ones((3, 4), np.float32)]
    ids = pa.array(["a/b"] * 3, pa.string())
    numbers = pa.array([0, 1, 2], pa.int32())
    tubes = pa.Table.from_arrays([ids, numbers, numbers, numbers, box_column(boxes)], schema=TUBES)
    for row, wanted in enumerate(boxes):
        np.testing.assert_array_equal(boxes_of(tubes, row), wanted)
    np.testing.assert_array_equal(boxes_of(tubes.slice(2), 0), boxes[2])
    filtered = pa.concat_tables([tubes.slice(1), tubes.slice(0, 1)])
    np.testing.assert_array_equal(boxes_of(filtered, 2), boxes[0])


def test_no_tubes() -> None:
    assert box_column([]).type == TUBES.field("boxes").type
    assert len(box_column([])) == 0
