"""What the pages of a parquet file say of themselves: its footer, which is what is shown of a file, may say otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _STRUCT = 1, 2, 3, 7, 8, 12
_INTEGERS = (4, 5, 6)


class Page(NamedTuple):
    """Values, bytes in memory (before they are decoded), and the number that the format has for how they are written."""

    values: int
    plain: int
    encoding: int


def pages_of(path: Path, footer: pq.FileMetaData) -> list[Page]:
    """Every page of every column, where Arrow would read it.

    Raises:
        ValueError: there is no page where one should begin, or columns take more bytes than there are.
    """
    pages: list[Page] = []
    left = path.stat().st_size
    with open(path, "rb") as file:
        for group in (footer.row_group(index) for index in range(footer.num_row_groups)):
            for column in (group.column(index) for index in range(group.num_columns)):
                offsets = column.data_page_offset, column.dictionary_page_offset if column.has_dictionary_page else 0
                start = min((offset for offset in offsets if offset), default=-1)  # without rows there is no data page
                left -= column.total_compressed_size
                if min(left, column.total_compressed_size, start) < 0:
                    raise ValueError("columns of more bytes than there are")
                file.seek(start)
                pages += _pages(file.read(column.total_compressed_size))
    return pages


def _pages(chunk: bytes) -> list[Page]:
    pages, at = [], 0
    while at < len(chunk):
        try:
            head, at = _structure(chunk, at)
            of = head.get(5) or head.get(7) or head[8]  # of a data page, a dictionary, a data page of version 2
            numbers = of[1], head[2], of[4] if 8 in head else of[2], head[3]
        except (LookupError, TypeError, RecursionError) as error:
            raise ValueError("a page without a head") from error
        if not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise ValueError("a page without a size")
        pages.append(Page(*numbers[:3]))
        at += numbers[3]
    return pages


def _structure(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """A struct in Thrift's compact protocol, its fields by number, and where it ends. Lists are not in a page's head."""
    fields: dict[int, Any] = {}
    number = 0
    while data[at]:
        step, kind = data[at] >> 4, data[at] & 15
        at += 1
        if step:
            number += step
        else:
            number, at = _integer(data, at)
        if kind in (_TRUE, _FALSE):
            fields[number] = kind == _TRUE
        elif kind in _INTEGERS:
            fields[number], at = _integer(data, at)
        elif kind == _BINARY:
            length, at = _varint(data, at)
            at += length
        elif kind == _STRUCT:
            fields[number], at = _structure(data, at)
        elif kind in (_BYTE, _DOUBLE):
            at += 1 if kind == _BYTE else 8
        else:
            raise LookupError(kind)
    return fields, at + 1


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """Zigzag: 0, -1, 1, -2 ..."""
    value, at = _varint(data, at)
    return value >> 1 ^ -(value & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if shift > 63:
            raise LookupError("a number of more than 64 bits")
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at
