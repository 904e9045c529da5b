"""The tables' box column, there and back; and files that claim more than they can hold."""

import resource
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_manifests.errors import InputError
from data_manifests.parquet_pages import pages_of
from data_manifests.tables import TUBES, VIDEOS, box_column, boxes_of, read_table
from tests.data_manifests.parquet_bombs import BOMBS, one_tube, one_video_again_and_again, parquet

VIDEO = one_video_again_and_again()[:9]


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


@pytest.mark.parametrize(
    "options", [{}, {"data_page_version": "2.0"}, {"data_page_size": 2000, "use_dictionary": False}]
)
def test_pages_are_counted_as_the_footer_counts_them(options: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "tubes.parquet"
    path.write_bytes(parquet(one_tube(20_000), write_page_checksum=True, **options))
    footer = pq.read_metadata(path)
    columns = [footer.row_group(0).column(index) for index in range(footer.num_columns)]
    pages = pages_of(path, footer)
    dictionaries = sum(column.has_dictionary_page for column in columns)
    assert len(pages) - dictionaries >= len(columns)
    assert 0 <= sum(page.values for page in pages) - sum(column.num_values for column in columns) <= 3 * dictionaries
    heads = sum(column.total_uncompressed_size for column in columns) - sum(page.plain for page in pages)
    assert 0 < heads < 200 * len(pages)


def zigzag(number: int, length: int) -> bytes:
    """As Thrift writes it, in as many bytes."""
    digits = [number * 2 >> 7 * place & 127 for place in range(length)]
    return bytes(digit | 128 * (place < length - 1) for place, digit in enumerate(digits))


def with_footer_that_tells(content: bytes, told: int, less: int) -> bytes:
    """A parquet file whose footer has another number in the place of one."""
    length, size = int.from_bytes(content[-8:-4], "little") + 8, (told * 2).bit_length() // 7 + 1
    assert zigzag(told, size) in content[-length:]
    return content[:-length] + content[-length:].replace(zigzag(told, size), zigzag(less, size))


def test_a_footer_that_tells_of_less_than_the_pages_hold(tmp_path: Path) -> None:
    path = tmp_path / "videos.parquet"
    path.write_bytes(with_footer_that_tells(parquet(one_video_again_and_again()), 300_000, 9))
    with pytest.raises(InputError, match=r"1,800,006 values"):
        read_table(path, VIDEOS)
    long = VIDEO[:1].set_column(0, VIDEOS.field(0), pa.array(["a" * 20_000_000]))
    content = parquet(long, compression="zstd", use_dictionary=False, write_statistics=False)
    path.write_bytes(content)
    plain = pq.read_metadata(path).row_group(0)
    for told in (plain.column(0).total_uncompressed_size, plain.total_byte_size):
        content = with_footer_that_tells(content, told, 100)
    path.write_bytes(content)
    assert pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size == 100
    with pytest.raises(InputError, match=r"20,000,\d+ bytes in a file of [\d,]+ bytes"):
        read_table(path, VIDEOS)


def test_flipped_bits_of_pages_give_a_table_or_a_refusal(tmp_path: Path) -> None:
    """Of the footer they can end the process: Arrow 26 throws where nothing catches."""
    path, content, draw = tmp_path / "videos.parquet", parquet(VIDEO), np.random.default_rng(0)
    footer = len(content) - int.from_bytes(content[-8:-4], "little") - 8
    for _ in range(200):
        flipped = bytearray(content)
        flipped[draw.integers(footer)] ^= 1 << int(draw.integers(8))
        path.write_bytes(flipped)
        try:
            read_table(path, VIDEOS)
        except InputError:
            continue


def test_a_table_that_compresses_well_is_read(tmp_path: Path) -> None:
    path, table = tmp_path / "tubes.parquet", one_tube(100_000)
    path.write_bytes(parquet(table))
    assert table.nbytes > 100 * path.stat().st_size
    assert read_table(path, TUBES).equals(table)
    path.write_bytes(parquet(TUBES.empty_table()))
    assert read_table(path, TUBES).equals(TUBES.empty_table())


DELTAS = {"use_dictionary": False, "column_encoding": {"video_id": "DELTA_BYTE_ARRAY"}}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (parquet(VIDEO, **DELTAS), r"encodings \[7\]"),
        (b"", "Parquet"),
        (b"PAR1" * 20, "Parquet|parquet|Thrift"),
        (parquet(one_tube(9)), "the columns video_id, tube"),
        (parquet(one_video_again_and_again(width=None)[:9]), "nothing in rows of width"),
    ],
    ids=["repeats without end", "empty", "no parquet", "another table", "nulls"],
)
def test_what_is_not_the_table(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "videos.parquet").write_bytes(content)
    with pytest.raises(InputError, match=told):
        read_table(tmp_path / "videos.parquet", VIDEOS)
