"""CVAT for video 1.1. CVAT itself is a server and was not at hand: the files here are written after its documentation
(https://docs.cvat.ai/docs/other/xml_format), with the fields and number formats of its exporter.

`written_by_datumaro.xml` is what datumaro 1.13.12, which CVAT uses for its exports, wrote by
`dataset.export(folder, "cvat", use_track=True)` of ten frames of 64 x 48 pixels.
"""

from pathlib import Path

import numpy as np
import pytest

from data_manifests.errors import InputError
from data_manifests.tables import boxes_of
from pipeline.annotations import Annotations, read_annotations
from tests.pipeline.own_data import CARD, write_own

CVAT = """
name = "own"
classes = ["Run", "Jump"]
[annotations]
format = "cvat"
files = ["annotations"]
[videos]
places = ["videos/{video_id}.avi"]
"""
HEAD = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <id>7</id>
      <name>first</name>
      <size>20</size>
      <mode>interpolation</mode>
      <overlap>5</overlap>
      <start_frame>0</start_frame>
      <stop_frame>19</stop_frame>
      <frame_filter></frame_filter>
      <labels><label><name>Run</name><type>any</type><attributes></attributes></label></labels>
      <original_size>
        <width>64</width>
        <height>48</height>
      </original_size>
    </task>
    <dumped>2026-11-24 12:00:00.000000+00:00</dumped>
    <source>first.avi</source>
  </meta>
"""


def shape(frame: int, x: float = 10, *, outside: int = 0, keyframe: int = 0) -> str:
    """One box of a track."""
    corners = f'xtl="{x:.2f}" ytl="8.00" xbr="{x + 20:.2f}" ybr="40.50"'
    return (
        f'    <box frame="{frame}" keyframe="{keyframe}" outside="{outside}" occluded="0" {corners} z_order="0">\n'
        f'      <attribute name="sure">yes</attribute>\n    </box>\n'
    )


def track(shapes: str, label: str = "Run", number: int = 0) -> str:
    """One track."""
    return f'  <track id="{number}" label="{label}" source="manual">\n{shapes}  </track>\n'


def read(root: Path, tracks: str, head: str = HEAD, name: str = "Run/a") -> Annotations:
    """The tables of one task."""
    file = root / "annotations" / f"{name}.xml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{head}{tracks}</annotations>\n")
    return read_annotations(write_own(root, "", card=CVAT), root)


def test_a_track_is_a_tube_until_it_goes_outside(tmp_path: Path) -> None:
    shapes = "".join(shape(frame, 10 + frame, keyframe=frame % 5 == 0) for frame in range(3, 9))
    shapes += shape(9, outside=1, keyframe=1) + shape(14, 30, keyframe=1) + shape(15, 31)
    annotations = read(tmp_path, track(shapes) + track(shape(0), "Jump", 1))
    videos = annotations.videos.to_pylist()
    assert [(row["video_id"], row["width"], row["height"], row["split"]) for row in videos] == [
        ("Run/a", 64, 48, "train")
    ]
    heads = annotations.tubes.drop_columns(["boxes"]).to_pylist()
    assert [(row["label"], row["first_frame"]) for row in heads] == [(0, 3), (0, 14), (1, 0)]
    np.testing.assert_allclose(
        boxes_of(annotations.tubes, 0), [[10 + frame, 8, 30 + frame, 40.5] for frame in range(3, 9)]
    )
    assert len(boxes_of(annotations.tubes, 1)) == 2
    assert annotations.called == {("Run/a", 0): "track 0", ("Run/a", 1): "track 0", ("Run/a", 2): "track 1"}


def test_what_datumaro_wrote(tmp_path: Path) -> None:
    text = Path(__file__).with_name("written_by_datumaro.xml").read_text()
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "a.xml").write_text(text)
    annotations = read_annotations(write_own(tmp_path, "", card=CVAT), tmp_path)
    assert annotations.videos.select(["video_id", "width", "height"]).to_pylist() == [
        {"video_id": "a", "width": 64, "height": 48}
    ]
    heads = annotations.tubes.drop_columns(["boxes"]).to_pylist()
    assert [(row["label"], row["first_frame"]) for row in heads] == [(0, 2), (1, 3)]
    np.testing.assert_array_equal(boxes_of(annotations.tubes, 0), [[10 + f, 8, 30 + f, 40.5] for f in range(2, 6)])
    assert not annotations.lengths_are_known
    np.testing.assert_array_equal(boxes_of(annotations.tubes, 1), [[30.25, 4, 42.25, 24 - f] for f in range(3, 10)])


def test_a_file_a_video_or_one_file(tmp_path: Path) -> None:
    read(tmp_path, track(shape(0)), name="Run/a")
    head = HEAD.replace("<width>64</width>", "<width>640</width>")
    annotations = read(tmp_path, track(shape(0)), head, name="b")
    assert annotations.videos["video_id"].to_pylist() == ["Run/a", "b"]
    assert annotations.videos["width"].to_pylist() == [64, 640], "each in its own pixels"
    card = write_own(tmp_path, "", card=CVAT.replace('["annotations"]', '["annotations/b.xml"]'))
    assert read_annotations(card, tmp_path).videos["video_id"].to_pylist() == ["b"]
    (tmp_path / "annotations/b.XML").write_bytes((tmp_path / "annotations/b.xml").read_bytes())
    with pytest.raises(InputError, match="has video b twice"):
        read_annotations(write_own(tmp_path, "", card=CVAT), tmp_path)


def test_links_are_followed_and_hidden_files_passed_over(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    read(root, track(shape(0)), name="Run/a")
    read(elsewhere, track(shape(0)), name="b")
    (root / "annotations/Jump").symlink_to(elsewhere / "annotations")
    (root / "annotations/Jump/round").symlink_to(root / "annotations")
    (root / "annotations/Alias").symlink_to(root / "annotations/Run")
    (root / "annotations/Run/._a.xml").write_bytes(b"what macOS leaves beside a file")
    card = write_own(root, "", card=CVAT)
    assert read_annotations(card, root).videos["video_id"].to_pylist() == ["Alias/a", "Jump/b", "Run/a"]


@pytest.mark.parametrize(("outside", "tubes"), [("0", 2), ("false", 2), ("1", 1), ("true", 1)])
def test_outside_is_a_number_or_a_word(outside: str, tubes: int, tmp_path: Path) -> None:
    left = shape(1).replace('outside="0"', f'outside="{outside}"')
    annotations = read(tmp_path, track(shape(0) + left))
    assert len(boxes_of(annotations.tubes, 0)) == tubes


@pytest.mark.parametrize(
    ("tracks", "change", "message"),
    [
        (track(shape(0) + shape(0)), ("", ""), "track 0 has two boxes at frame 0"),
        (track(shape(0).replace('outside="0"', 'outside="no"')), ("", ""), r"track 0: a box does not read[\s\S]*'no'"),
        (track(shape(0) + shape(2)), ("", ""), r"track 0 has no box after its frame 0[\s\S]*frame 2"),
        (track(shape(0), "Rnu"), ("", ""), r"track 0: unknown class 'Rnu'[\s\S]*did you mean Run"),
        (track('<polygon frame="0" points="1,2;3,4"/>'), ("", ""), "track 0 is not a box"),
        (track(shape(0).replace('xtl="10.00"', 'xtl="left"')), ("", ""), "track 0: a box does not read"),
        (track(shape(0).replace('xtl="10.00"', "")), ("", ""), "track 0: a box does not read"),
        (track(shape(0).replace("<box ", '<box rotation="30.0" ')), ("", ""), "frame 0: the box is rotated"),
        (track(shape(0)), ("<frame_filter>", "<frame_filter>step=5"), r"leaves frames out[\s\S]*step=5"),
        (track(shape(0)), ("<width>64</width>", ""), "does not say its video's size"),
        (track(shape(0)), ("<task>", "<project/><task>"), r"not the task of one video[\s\S]*a whole project"),
        ('<image id="0" name="a.png"/>', ("", ""), r"not the task of one video[\s\S]*CVAT for images"),
        ("<track>", ("", ""), "does not read as XML"),
        ("", ("<annotations>", '<!DOCTYPE a [<!ENTITY b "c">]><annotations>'), "declares entities"),
    ],
)
def test_a_wrong_task_is_told_by_its_track(tracks: str, change: tuple[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path, tracks, HEAD.replace(*change, 1))
    assert "a.xml" in str(error.value)
    assert error.value.todo


def test_a_folder_without_a_task(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    with pytest.raises(InputError, match=r"annotations has no \.xml"):
        read_annotations(write_own(tmp_path, "", card=CVAT), tmp_path)


def test_a_card_does_not_say_what_the_format_fixes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"annotations\.first_frame is not for the card to say: the format cvat"):
        write_own(tmp_path, "", card=CVAT.replace("[videos]", "first_frame = 1\n[videos]"))
    with pytest.raises(InputError, match="box_width and box_height go together"):
        write_own(tmp_path, "", card=CARD.replace("box_height = 48", ""))
    for said, wrong in (('boxes = "corners"', 'boxes = "corner"'), ("first_pixel = 0", "first_pixel = 2")):
        with pytest.raises(InputError, match=rf"annotations\.{said.split()[0]} must be"):
            write_own(tmp_path, "", card=CARD.replace(said, wrong))
