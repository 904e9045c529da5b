"""Anyone's own boxes, in csv."""

from pathlib import Path

import numpy as np
import pytest

from data_manifests.errors import InputError
from data_manifests.tables import boxes_of
from pipeline.annotations import Annotations, read_annotations
from tests.pipeline.own_data import CARD, HEADER, tube_rows, write_own


def read(root: Path, rows: str | bytes, test: str = "") -> Annotations:
    return read_annotations(write_own(root, rows, test), root)


def test_rows_become_tubes(tmp_path: Path) -> None:
    rows = (
        tube_rows("a/b", 3, 7)
        + tube_rows("a/b", 1, 2, tube=7, action="Jump", box="0.5,1,60,47.25")
        + tube_rows("c", 1, 6)
    )
    annotations = read(tmp_path, rows, test="c\n")
    assert [tuple(row.values())[:3] for row in annotations.videos.to_pylist()] == [
        ("a/b", "train", 9),
        ("c", "test", 6),
    ]
    heads = annotations.tubes.drop_columns(["boxes"]).to_pylist()
    assert [tuple(head.values()) for head in heads] == [("a/b", 0, 0, 2), ("a/b", 1, 1, 0), ("c", 0, 0, 0)]
    np.testing.assert_array_equal(boxes_of(annotations.tubes, 1), [[0.5, 1, 60, 47.25]] * 2)
    assert annotations.oddities == ()
    assert not annotations.lengths_are_known


def test_the_order_of_rows_and_a_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    rows = tube_rows("a/b", 1, 6).splitlines(keepends=True)
    straight = read(tmp_path / "straight", "".join(rows))
    (tmp_path / "turned").mkdir()
    card = write_own(tmp_path / "turned", "")
    text = "\ufeff" + HEADER.replace(",", ", ") + "".join(reversed(rows))
    (tmp_path / "turned/boxes.csv").write_text(text)
    assert read_annotations(card, tmp_path / "turned").tubes.equals(straight.tubes)


def test_boxes_are_clipped_to_the_declared_frame(tmp_path: Path) -> None:
    annotations = read(tmp_path, tube_rows("a", 1, 6, box="-4,2,70,48"))
    np.testing.assert_array_equal(boxes_of(annotations.tubes, 0), [[0, 2, 64, 48]] * 6)
    assert [oddity.rule for oddity in annotations.oddities] == ["clipped-boxes"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,0,Rnu,1,1,1,5,5\n", r"boxes\.csv, line 2: unknown class 'Rnu'[\s\S]*did you mean Run"),
        ("a,0,Run,1.5,1,1,5,5\n", r"line 2: a number is wanted[\s\S]*1\.5"),
        ("a,0,Run,1,1,x,5,5\n", r"line 2: a number is wanted[\s\S]*'x'"),
        ("a,0,RUN,1,1,1,5,5\n", r"a class of card own: Run, Jump[\s\S]*did you mean Run"),
        ("a,0,Run,1,.1,.1,.5,.6\n", r"a tube 0, frame 1: the box lies within the first pixel[\s\S]*fractions"),
        ("a,0,Run,1,1,1,5,5\na,0,Run,2,.1,.1,.5,.6\n", r"a tube 0, frame 2: the box lies within the first pixel"),
        ("a,0,Run,1,1,5,1,5,5\n", r"found: 9\n  wanted: 8[\s\S]*decimal comma"),
        ('"a",0,Run,1,1,1,5,5\n"b\nc",0,Run,1,1,1,5\n', r"line 4 has another number of columns"),
        ("\na,0,Run,1,1,1,5\n", r"line 3 has another number of columns"),
        ("a,0,Run,1,1,1\n", r"line 2 has another number of columns[\s\S]*found: 6\n  wanted: 8"),
        ("a\n", "line 2 has another number of columns"),
        ("a,0,Run,1,1,1,5,5,9\n", "line 2 has another number of columns"),
        ("", r"boxes\.csv has no box"),
        ("a,left,Run,1,nan,1,5,5\n", "a tube left, frame 1: the box is not finite"),
        ("a,0,Run,1,1,1,1e300,5\n", "a tube 0, frame 1: the box is not finite"),
        ("a,0,Run,1,1,1,inf,5\n", "a tube 0, frame 1: the box is not finite"),
        ("a,0,Run,1,5,1,5,5\n", "a tube 0, frame 1: the box is empty"),
        ("a,0,Run,0,1,1,5,5\n", r"a tube 0 lies outside its video\n  found: frames 0 to 0, counted from 1\n"),
        ("a,0,Run,99999999999,1,1,5,5\n", "a tube 0 lies outside its video"),
        ("a,0,Run,1,1,1,5,5\na,0,Run,1,1,1,5,5\n", "line 3: a second box of tube 0 at frame 1"),
        ("a,0,Run,1,1,1,5,5\na,0,Run,3,1,1,5,5\n", "tube 0 has no box after its frame 1"),
        ("a,0,Run,1,1,1,5,5\na,0,Jump,2,1,1,5,5\n", "tube 0 has several classes"),
        ("../a,0,Run,1,1,1,5,5\n", r"line 2: video id '\.\./a' is refused"),
        ("caf\xe9,0,Run,1,1,1,5,5\n".encode("latin1"), r"boxes\.csv does not read as csv"),
        ("a" * 200_000 + ",0,Run,1,1,1,5,5\n", r"boxes\.csv does not read as csv[\s\S]*field limit"),
    ],
)
def test_a_wrong_row_is_told_by_its_line(rows: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path, rows)
    assert error.value.todo


def test_columns_that_are_missing(tmp_path: Path) -> None:
    card = write_own(tmp_path, "")
    wrong = {
        "video,tube,class,frame,x,y,w,h\n": "x1, y1, x2, y2",
        "": "video, tube",
        HEADER.replace(",", ";"): "video, tube",
    }
    for text, missing in wrong.items():
        (tmp_path / "boxes.csv").write_text(text)
        with pytest.raises(InputError, match=f"lacks the columns {missing}"):
            read_annotations(card, tmp_path)


def test_a_column_that_is_there_twice(tmp_path: Path) -> None:
    card = write_own(tmp_path, "")
    (tmp_path / "boxes.csv").write_text(HEADER.replace("x1", "x1,x1") + "a,0,Run,1,1,1,1,5,5\n")
    with pytest.raises(InputError, match="has two columns x1"):
        read_annotations(card, tmp_path)
    (tmp_path / "boxes.csv").write_text(HEADER.replace("\n", ",note,note\n") + "a,0,Run,1,1,1,5,5,left,right\n")
    assert read_annotations(card, tmp_path).tubes.num_rows == 1


def test_an_unknown_format(tmp_path: Path) -> None:
    card = write_own(tmp_path, "", card=CARD.replace('"csv"', '"cvs"'))
    with pytest.raises(InputError, match=r"unknown annotation format 'cvs'[\s\S]*did you mean csv"):
        read_annotations(card, tmp_path)
