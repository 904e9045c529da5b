"""What a parquet file claims to hold, told by the headers of its pages, before pyarrow sees it.

pyarrow reads a page to its end, whatever the footer tells of it, shows no page's header, and ends the process for some footers.
Footer and headers are structs of Thrift's compact protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)
_MAGIC = b"PAR1"
_PAGES = {0: 5, 2: 7}
"""Field of a page's own header, by its type: data, dictionary. Builds write no others."""
_DICTIONARY = 2
_ENCODINGS = {0: "PLAIN", 2: "PLAIN_DICTIONARY", 3: "RLE", 8: "RLE_DICTIONARY"}
_CODECS = {0: "UNCOMPRESSED", 1: "SNAPPY"}


class Page(NamedTuple):
    """One page: its type, its values, and its bytes when decompressed."""

    kind: int
    values: int
    size: int


def claimed(content: bytes) -> tuple[int, int]:
    """How many values the pages of a parquet file hold, dictionaries' too, and how many bytes they are when decompressed.

    Raises:
        ValueError: it is no parquet file, a page is not of those that builds write, or the pages are not those that the
            footer tells of.
    """
    size = int.from_bytes(content[-8:-4], "little")
    if content[-4:] != _MAGIC or size > len(content) - 12:
        raise ValueError("no parquet file")
    try:
        footer, _ = _struct(content, len(content) - 8 - size)
        chunks = [column[3] for group in footer[4] for column in group[1]]
        columns = [_column(content, chunk) for chunk in chunks if chunk[5] != 0]  # of an empty one no page is read
    except (TypeError, KeyError, IndexError, RecursionError) as error:
        raise ValueError(f"a footer or page header that no build makes: {type(error).__name__} {error}") from error
    last = 0
    for begin, end, _ in columns:
        if begin < last:
            raise ValueError("columns that share their bytes")
        last = end
    pages = [page for _, _, of_column in columns for page in of_column]
    return sum(page.values for page in pages), sum(page.size for page in pages)


def _column(content: bytes, chunk: dict[int, Any]) -> tuple[int, int, list[Page]]:
    """Where a column's bytes are, and their pages."""
    codec, told, stored, begin, dictionary = chunk[4], chunk[5], chunk[7], chunk[9], chunk.get(11, 0)
    if codec not in _CODECS:
        raise ValueError(f"codec {codec}")
    begin = dictionary if 0 < dictionary < begin else begin
    if not 0 <= begin <= begin + stored <= len(content):
        raise ValueError(f"a column in bytes {begin} to {begin + stored}")
    pages = list(_pages(content, begin, begin + stored))
    held = sum(page.values for page in pages if page.kind != _DICTIONARY)
    if held != told:
        raise ValueError(f"{held} values in a column's pages, {told} in the footer")
    return begin, begin + stored, pages


def _pages(content: bytes, begin: int, end: int) -> Iterator[Page]:
    while begin < end:
        header, begin = _struct(content, begin)
        kind, size, stored = header[1], header[2], header[3]
        of_kind = header[_PAGES[kind]]
        values, encoding = of_kind[1], of_kind[2]
        if min(values, size, stored) < 0 or encoding not in _ENCODINGS:
            raise ValueError(f"a page of {values} values, {size} bytes, encoding {encoding}")
        begin += stored
        yield Page(kind, values, size)
    if begin > end:
        raise ValueError("a page that is longer than its column")


def _struct(content: bytes, at: int) -> tuple[dict[int, Any], int]:
    """The fields of a struct by their numbers, and where it ends. Each is there once, so that all readers see the same."""
    fields: dict[int, Any] = {}
    number = 0
    while (head := content[at]) != _STOP:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _integer(content, at)
        if number in fields or not 0 < number < 1 << 15:
            raise ValueError(f"field {number} twice, or none of Thrift's")
        kind = head & 15
        fields[number], at = (kind == _TRUE, at) if kind in (_TRUE, _FALSE) else _value(content, at, kind)
    return fields, at + 1


def _value(content: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in _INTEGERS:
        return _integer(content, at)
    if kind in (_BYTE, _TRUE, _FALSE):
        return content[at], at + 1
    if kind == _DOUBLE:
        return None, at + 8
    if kind == _BINARY:
        length, at = _varint(content, at)
        return None, at + length
    if kind == _STRUCT:
        return _struct(content, at)
    if kind in (_LIST, _SET):
        head, at = content[at], at + 1
        length, at = _varint(content, at) if head >> 4 == 15 else (head >> 4, at)
        values = []
        for _ in range(length):
            value, at = _value(content, at, head & 15)
            values.append(value)
        return values, at
    raise ValueError(f"a field of type {kind}")


def _integer(content: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(content, at)
    return value >> 1 ^ -(value & 1), at


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("an integer of more than 64 bits")
