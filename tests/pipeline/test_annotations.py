"""From annotation files to tables: the named rules, on files that the tests write."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from data_manifests.card import load_card
from data_manifests.errors import InputError
from data_manifests.tables import boxes_of
from pipeline.annotations import Annotations, read_annotations, read_ids

VIDEO = "Biking/v_Biking_g01_c01"


def tube(boxes: Any, label: int = 2, sf: int = 0, dtype: Any = np.uint8) -> dict[str, Any]:
    boxes = np.array(boxes, dtype)
    return {"label": label, "sf": sf, "ef": sf + len(boxes), "boxes": boxes}


def write_ucf(root: Path, *tubes: dict[str, Any], numf: int = 10, video_id: str = VIDEO, test: str = "") -> Path:
    root.mkdir(exist_ok=True)
    videos = {video_id: {"numf": numf, "label": 2, "annotations": list(tubes)}}
    (root / "pyannot.pkl").write_bytes(pickle.dumps(videos, 2))
    (root / "testlist01.txt").write_text(test)
    return root


def read(root: Path) -> Annotations:
    return read_annotations(load_card("ucf101"), root)


def rules(annotations: Annotations) -> dict[str, int]:
    return {oddity.rule: oddity.count for oddity in annotations.oddities}


def test_uint8_boxes_are_widened_and_one_based_boxes_moved(tmp_path: Path) -> None:
    annotations = read(write_ucf(tmp_path, tube([[200, 100, 100, 101]] * 6), tube([[1, 1, 9, 9]] * 6, sf=2)))
    np.testing.assert_array_equal(boxes_of(annotations.tubes, 0), [[199, 99, 299, 200]] * 6)
    np.testing.assert_array_equal(boxes_of(annotations.tubes, 1), [[0, 0, 9, 9]] * 6)
    assert annotations.tubes["first_frame"].to_pylist() == [0, 2]
    assert annotations.lengths_are_known
    assert annotations.tubes["label"].to_pylist() == [2, 2]
    assert rules(annotations) == {"widened-boxes": 1, "one-based-boxes": 2}
    assert all(oddity.meaning for oddity in annotations.oddities)


def test_an_infinite_number_of_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a corrected UCF101-24 annotation file"):
        read(write_ucf(tmp_path, tube([[5, 5, 20, 30]] * 6), numf=float("inf")))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("numf", "of_tube", "message"),
    [
        (10.5, {}, rf"pyannot\.pkl: {VIDEO}: its numf is no whole number[\s\S]*10\.5"),
        (10, {"sf": 0.5}, rf"{VIDEO} tube 0: its sf is no whole number[\s\S]*0\.5"),
        (10, {"label": 2.5}, rf"{VIDEO} tube 0: its label is no whole number[\s\S]*2\.5"),
        (1e12, {}, rf"pyannot\.pkl: {VIDEO} has no sensible length[\s\S]*1000000000000 frames"),
        (0, {}, "has no sensible length"),
    ],
)
def test_numbers_that_count_nothing(numf: float, of_tube: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read(write_ucf(tmp_path, tube([[5, 5, 20, 30]] * 6) | of_tube, numf=numf))  # type: ignore[arg-type]
    assert read(write_ucf(tmp_path, tube([[5, 5, 20, 30]] * 6) | {"sf": 0.0}, numf=10.0)).tubes.num_rows == 1  # type: ignore[arg-type]


def test_identical_tubes_are_kept_and_counted(tmp_path: Path) -> None:
    same = [[5, 5, 20, 30]] * 6
    annotations = read(write_ucf(tmp_path, tube(same), tube(same), tube(same, sf=1)))
    assert annotations.tubes.num_rows == 3
    assert rules(annotations)["identical-tubes"] == 1


def test_boxes_that_reach_out_are_clipped(tmp_path: Path) -> None:
    annotations = read(write_ucf(tmp_path, tube([[0, 200, 330, 60]] * 6, dtype=np.uint16)))
    np.testing.assert_array_equal(boxes_of(annotations.tubes, 0), [[0, 199, 320, 240]] * 6)
    assert rules(annotations)["clipped-boxes"] == 1


def test_boxes_past_the_last_frame_are_dropped(tmp_path: Path) -> None:
    annotations = read(write_ucf(tmp_path, tube([[5, 5, 20, 30]] * 8, sf=6), numf=10))
    assert len(boxes_of(annotations.tubes, 0)) == 4
    assert rules(annotations)["dropped-past-the-end"] == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (tube([[5, 5, 20, 30]] * 6, sf=10), f"{VIDEO} tube 0 lies outside its video"),
        (tube([[5, 5, 20, 30]] * 6, sf=-1), f"{VIDEO} tube 0 lies outside its video"),
        (tube(np.zeros((0, 4))), f"{VIDEO} tube 0 lies outside its video"),
        (tube([[5, 5, 20, 30], [5, 5, 0, 30]]), f"{VIDEO} tube 0, frame 1: the box is empty"),
        (tube([[400, 5, 20, 30]], dtype=np.uint16), f"{VIDEO} tube 0, frame 0: the box is empty or outside"),
        (tube([[5, np.nan, 20, 30]], dtype=float), f"{VIDEO} tube 0, frame 0: the box is not finite"),
        (tube([[5, 5, 20, 30]], label=24), f"{VIDEO} tube 0 has class 24"),
        (tube([[5, 5, 20, 30]], label=-1), f"{VIDEO} tube 0 has class -1"),
        ({**tube([[5, 5, 20, 30]] * 3), "ef": 5}, "another number of boxes than of frames"),
        (tube([[5, 5, 20]] * 3), r"boxes of shape \(3, 3\)"),
        (tube([[5, 5, 20, 30, 1]] * 3), r"boxes of shape \(3, 5\)"),
        (tube([["a", "b", "c", "d"]], dtype=str), "type <U1"),
        ({"label": 2, "sf": 0, "ef": 1}, "'boxes'"),
    ],
)
def test_what_no_rule_repairs_is_refused_by_name(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as error:
        read(write_ucf(tmp_path, wrong))
    assert "pyannot.pkl" in str(error.value)
    assert error.value.todo


@pytest.mark.parametrize(
    "video_id", ["/etc/passwd", "../up", "a/../../b", "a/./b", "a//b", "a\\b", "", "a/b\n", "a/\x1b[2Jb"]
)
def test_ids_that_leave_the_root_are_refused(video_id: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is refused"):
        read(write_ucf(tmp_path, tube([[5, 5, 20, 30]]), video_id=video_id))


def test_a_matlab_file_gives_the_same(tmp_path: Path) -> None:
    content = np.zeros(1, [(name, object) for name in ("name", "num_imgs", "tubes")])
    tubes = np.zeros(2, [(name, object) for name in ("class", "sf", "ef", "boxes")])
    tubes[0] = 3, 1, 2, np.array([[200, 100, 100, 101]] * 2, np.uint8)
    tubes[1] = 3, 10, 10, np.array([[5, 5, 20, 30]], np.uint8)  # scipy reads one row as a vector
    content[0] = VIDEO, 10, tubes
    (tmp_path / "mat").mkdir()
    scipy.io.savemat(tmp_path / "mat/finalAnnots.mat", {"annot": content})
    (tmp_path / "mat/testlist01.txt").touch()
    from_pickle = read(write_ucf(tmp_path / "pkl", tube([[200, 100, 100, 101]] * 2), tube([[5, 5, 20, 30]], sf=9)))
    assert read(tmp_path / "mat").tubes.equals(from_pickle.tubes)


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file" + bytes(300), b"x" * 5000])
def test_a_damaged_matlab_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "finalAnnots.mat").write_bytes(content)
    with pytest.raises(InputError, match=r"finalAnnots\.mat cannot be read"):
        read(tmp_path)


def test_a_matlab_file_that_crashes_its_reader_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "finalAnnots.mat").write_bytes(b"any")
    crash = tmp_path / "crash.sh"
    crash.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crash.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(crash))
    with pytest.raises(InputError, match=r"its reader crashed \(signal 11\)"):
        read(tmp_path)


def test_missing_parts_are_told_with_the_places_looked_at(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dataset root .*none is not there"):
        read(tmp_path / "none")
    with pytest.raises(InputError, match=r"no annotation file of ucf101[\s\S]*pyannot\.pkl, .*finalAnnots\.mat"):
        read(tmp_path)
    write_ucf(tmp_path, tube([[5, 5, 20, 30]]))
    (tmp_path / "testlist01.txt").unlink()
    with pytest.raises(InputError, match="no list of test videos of ucf101"):
        read(tmp_path)


def test_videos_of_the_test_list_are_the_test_split(tmp_path: Path) -> None:
    root = write_ucf(tmp_path, tube([[5, 5, 20, 30]]), test=f"{VIDEO}.avi 3\n\n")
    assert read(root).videos["split"].to_pylist() == ["test"]


def test_a_list_with_an_unknown_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"testlist01\.txt, line 2: unknown video \S+c02[\s\S]*did you mean {VIDEO}"):
        read(write_ucf(tmp_path, tube([[5, 5, 20, 30]]), test=f"{VIDEO}\nBiking/v_Biking_g01_c02\n"))


@pytest.mark.parametrize(
    ("line", "video_id"),
    [
        ("a/b", "a/b"), ("a/b.avi 3", "a/b"), ("  a/b\t1  ", "a/b"), ("My videos/b c", "My videos/b c"), ("c/d.avi", "c/d.avi"),
    ],
)  # fmt: skip
def test_lines_of_a_list(line: str, video_id: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf" + line.encode() + b"\r\n\r\n")
    assert read_ids(tmp_path / "list.txt", {"a/b", "My videos/b c", "c/d.avi"}) == [video_id]


def test_a_list_that_is_no_text_or_leaves_the_root(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match="not text in UTF-8"):
        read_ids(tmp_path / "list.txt", {"a/b"})
    (tmp_path / "list.txt").write_text("/etc/passwd\n")
    with pytest.raises(InputError, match="line 1: video id '/etc/passwd' is refused"):
        read_ids(tmp_path / "list.txt", {"a/b"})
