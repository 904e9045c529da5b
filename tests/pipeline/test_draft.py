"""Cards drafted by looking at a folder."""

import json
import sys
from pathlib import Path

import pytest

from data_manifests.card import load_card
from data_manifests.errors import InputError
from pipeline.__main__ import main
from pipeline.annotations import read_annotations
from pipeline.draft import draft_card
from tests.pipeline.own_data import HEADER, moving_square, tube_rows, write_video
from tests.pipeline.test_coco import CONTENT
from tests.pipeline.test_cvat import HEAD, shape, track


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes, three videos in two places, a test list; numbers from 1 on."""
    folder = tmp_path / "my data"
    write_video(folder / "clips" / "Run" / "a.avi", moving_square(6))
    write_video(folder / "clips" / "Run" / "b.avi", moving_square(6))
    write_video(folder / "more" / "c.mp4", moving_square(6, 128, 96))
    rows = tube_rows("Run/a", 1, 6) + tube_rows("Run/b", 1, 6) + tube_rows("c", 1, 6, action="Jump", box="1,2,90,60")
    (folder / "labels.csv").write_text(HEADER + rows)
    (folder / "testlist.txt").write_text("c\n")
    (folder / "notes.txt").write_text("to do\n")
    return folder


def test_a_csv_is_drafted_and_reads_at_once(root: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["pipeline", "card", "--from", str(root)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "look at 3 CHECK" in told
    assert "annotations of 3 videos, 3 tubes: look at what it marks CHECK" in told
    card = load_card(str(root / "card.toml"))
    assert card.name == "my-data"
    assert card.classes == ("Jump", "Run")
    assert card.video_places == ("clips/{video_id}.avi", "more/{video_id}.mp4")
    assert card.test_lists == ("testlist.txt",)
    assert (card.box_size, card.first_frame, card.first_pixel) == (None, 1, 1)
    text = (root / "card.toml").read_text()
    assert "64 x 48 (2), 128 x 96 (1); boxes reach to x = 90, y = 60" in text
    assert "The smallest frame in the file is 1" in text
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "card.toml is there already" in capsys.readouterr().err


def test_what_is_certain_asks_for_no_check(root: Path) -> None:
    rows = "".join(f"Run/a,0,Run,{frame},0,8,20,30\n" for frame in range(6))
    (root / "labels.csv").write_text("video,tube,class,frame,x,y,width,height\n" + rows)
    text = draft_card(root)
    assert "CHECK:" not in text
    assert 'boxes = "width-height"' in text
    assert "boxes reach to x = 20, y = 38" in text


def test_boxes_of_another_size_and_videos_not_found(root: Path) -> None:
    (root / "labels.csv").write_text(HEADER + tube_rows("Run/a", 0, 6, box="0,2,600,400") + tube_rows("d", 0, 6))
    text = draft_card(root)
    assert "# CHECK: that is past the frames. Say box_width and box_height" in text
    assert '# CHECK: not found: "d"' in text


def test_cvat_and_coco(root: Path) -> None:
    (root / "labels.csv").unlink()
    (root / "xml" / "Run").mkdir(parents=True)
    for name in "ab":
        (root / "xml" / "Run" / f"{name}.xml").write_text(f"{HEAD}{track(shape(0))}</annotations>")
    (root / "xml" / "c.xml").write_text(f"{HEAD}{track(shape(0), 'Jump')}</annotations>")
    (root / "card.toml").write_text(draft_card(root))
    card = load_card(str(root / "card.toml"))
    assert (card.annotation_format, card.annotation_files, card.classes) == ("cvat", ("xml",), ("Jump", "Run"))
    assert card.video_places == ("clips/{video_id}.avi", "more/{video_id}.mp4")
    assert read_annotations(card, root).tubes.num_rows == 3
    (root / "a.json").write_text("\ufeff" + json.dumps(CONTENT))
    (root / "other.json").write_text("[1, 2]")
    with pytest.raises(InputError, match=r"several annotations below[\s\S]*a\.json, xml[\s\S]*--annotations"):
        draft_card(root)
    (root / "card.toml").write_text(draft_card(root, root / "a.json"))
    card = load_card(str(root / "card.toml"))
    assert (card.annotation_format, card.annotation_files, card.classes) == ("coco", ("a.json",), ("Jump", "Run"))
    assert (card.first_frame, card.first_pixel) == (1, 0)
    assert read_annotations(card, root).tubes.num_rows == 1


def test_videos_on_another_disk_are_found(root: Path, tmp_path: Path) -> None:
    expected = draft_card(root)
    (root / "clips").rename(tmp_path / "disk")
    (root / "clips").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "round").symlink_to(root)  # a ring
    assert draft_card(root) == expected


def test_suffixes_in_capitals(root: Path) -> None:
    (root / "labels.csv").rename(root / "LABELS.CSV")
    assert 'files = ["LABELS.CSV"]' in draft_card(root)
    (root / "LABELS.CSV").unlink()
    (root / "A.JSON").write_text(json.dumps(CONTENT))
    assert 'files = ["A.JSON"]' in draft_card(root)
    (root / "A.JSON").unlink()
    (root / "xml").mkdir()
    (root / "xml" / "A.XML").write_text(f"{HEAD}{track(shape(0))}</annotations>")
    (root / "card.toml").write_text(draft_card(root))
    assert read_annotations(load_card(str(root / "card.toml")), root).videos["video_id"].to_pylist() == ["A"]


def test_what_cannot_be_drafted(root: Path, tmp_path: Path) -> None:
    (root / "labels.csv").write_text(HEADER + "a,0,Run,1,1,1,x,5\n")
    with pytest.raises(InputError, match=r"labels\.csv, line 2: a number is wanted"):
        draft_card(root)
    (root / "labels.csv").write_text(HEADER)
    with pytest.raises(InputError, match=r"labels\.csv has no box"):
        draft_card(root)
    (root / "labels.csv").write_text("name,value\n")
    with pytest.raises(InputError, match=r"no annotations below[\s\S]*--dataset ucf101"):
        draft_card(root)
    for content, told in (
        (HEADER.replace(",", ";").encode(), "labels.csv begins 'video;tube;class;frame;x1;y1;x2;y2'"),
        ((HEADER + tube_rows("Run/a", 1, 6)).encode("utf-16"), "labels.csv is not text in UTF-8"),
    ):
        (root / "labels.csv").write_bytes(content)
        with pytest.raises(InputError, match=rf"no annotations below .*\n  found: {told}\n"):
            draft_card(root)
    with pytest.raises(InputError, match=r"nowhere is not there[\s\S]*check --from"):
        draft_card(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"none\.csv is not there[\s\S]*check --annotations"):
        draft_card(root, root / "none.csv")
    (tmp_path / "far.csv").write_text(HEADER)
    with pytest.raises(InputError, match=r"far\.csv is not below"):
        draft_card(root, tmp_path / "far.csv")


def test_a_card_named_like_the_demo_is_not_the_demo(root: Path, monkeypatch, capsys) -> None:
    folder = root.rename(root.with_name("demo"))
    assert 'name = "my-demo"' in draft_card(folder)
    (folder / "card.toml").write_text(draft_card(folder).replace("my-demo", "demo"))
    there = sorted(folder.rglob("*"))
    monkeypatch.setattr(
        sys, "argv", ["pipeline", "plan", "--dataset", str(folder / "card.toml"), "--root", str(folder), "--json"]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["train_videos"]["videos"] == 2
    assert sorted(folder.rglob("*")) == there
