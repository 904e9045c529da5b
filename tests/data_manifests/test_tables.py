"""The tables' box column, there and back; and files that claim more than they can hold."""

import resource
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_manifests.errors import InputError
from data_manifests.tables import TUBES, VIDEOS, box_column, boxes_of, read_table
from tests.data_manifests.parquet_bombs import BOMBS, one_tube, one_video_again_and_again, parquet


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


def peak_memory() -> int:
    """Bytes, of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_table_that_claims_more_than_it_can_hold(bomb: str, tmp_path: Path) -> None:
    schema, content, told = BOMBS[bomb]
    assert len(content) < 60_000
    path = tmp_path / "table.parquet"
    path.write_bytes(content)
    before = peak_memory()
    with pytest.raises(InputError, match=told) as refused:
        read_table(path, schema)
    assert str(refused.value).startswith(f"{path} is not a table that a build makes")
    assert peak_memory() - before < 50e6


def test_a_table_that_compresses_well_is_read(tmp_path: Path) -> None:
    path, table = tmp_path / "tubes.parquet", one_tube(100_000)
    path.write_bytes(parquet(table))
    assert table.nbytes > 100 * path.stat().st_size
    assert read_table(path, TUBES).equals(table)
    path.write_bytes(parquet(TUBES.empty_table()))
    assert read_table(path, TUBES).equals(TUBES.empty_table())


VIDEO = one_video_again_and_again()[:9]
DELTAS = {"use_dictionary": False, "column_encoding": {"video_id": "DELTA_BYTE_ARRAY"}}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (parquet(VIDEO, compression="zstd"), "columns in ZSTD"),
        (parquet(VIDEO, **DELTAS), "columns in DELTA_BYTE_ARRAY"),
        (b"", "Parquet"),
        (b"PAR1" * 20, "Parquet|parquet|Thrift"),
        (parquet(one_tube(9)), "the columns video_id, tube"),
        (parquet(one_video_again_and_again(width=None)[:9]), "nothing in rows of width"),
    ],
    ids=["compresses without end", "repeats without end", "empty", "no parquet", "another table", "nulls"],
)
def test_what_is_not_the_table(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "videos.parquet").write_bytes(content)
    with pytest.raises(InputError, match=told):
        read_table(tmp_path / "videos.parquet", VIDEOS)
