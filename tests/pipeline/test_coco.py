"""COCO with videos, as CocoVID and TAO have it: written by hand, after the fields of their own documentation. (CVAT's
and datumaro's COCO exporters write no videos.)
"""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_manifests.errors import InputError
from data_manifests.tables import boxes_of
from pipeline.annotations import Annotations, read_annotations
from tests.pipeline.own_data import write_own

COCO = """
name = "own"
classes = ["Run", "Jump"]
[annotations]
format = "coco"
files = ["boxes.json"]
first_frame = 1
first_pixel = 0
[videos]
places = ["videos/{video_id}"]
"""
FRAMES = 6
CONTENT: dict[str, Any] = {
    "info": {"description": "own"},
    "categories": [{"id": 3, "name": "Jump"}, {"id": 8, "name": "Run"}],
    "videos": [{"id": 11, "name": "a.mp4"}, {"id": 12, "file_name": "empty.mp4"}],
    "images": [
        {"id": 100 + i, "video_id": 11, "frame_id": 1 + i, "width": 64, "height": 48, "file_name": f"a/{i}.jpg"}
        for i in range(FRAMES)
    ],
    "annotations": [
        {"id": i, "image_id": 100 + i, "category_id": 8, "track_id": 5, "bbox": [10 + i, 8, 20, 30.5], "iscrowd": 0}
        for i in range(FRAMES)
    ],
}


def read(root: Path, content: object, card: str = COCO) -> Annotations:
    """The tables of that content."""
    loaded = write_own(root, "", card=card)
    (root / "boxes.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return read_annotations(loaded, root)


def test_tracks_become_tubes(tmp_path: Path) -> None:
    annotations = read(tmp_path, CONTENT)
    videos = [(row["video_id"], row["frames"], row["width"]) for row in annotations.videos.to_pylist()]
    assert videos == [("a.mp4", FRAMES, 64), ("empty.mp4", 0, None)]
    assert not annotations.lengths_are_known
    assert annotations.tubes.drop_columns(["boxes"]).to_pylist() == [
        {"video_id": "a.mp4", "tube": 0, "label": 0, "first_frame": 0}
    ]
    np.testing.assert_array_equal(boxes_of(annotations.tubes, 0), [[10 + i, 8, 30 + i, 38.5] for i in range(FRAMES)])


def test_other_names_for_frame_and_track_give_the_same(tmp_path: Path) -> None:
    content = copy.deepcopy(CONTENT)
    for image in content["images"]:
        image["frame_index"] = image.pop("frame_id")
    for annotation in content["annotations"]:
        annotation["attributes"] = {"track_id": annotation.pop("track_id"), "occluded": False}
    assert read(tmp_path / "1", content).tubes.equals(read(tmp_path / "2", CONTENT).tubes)


def test_a_track_that_the_annotation_leaves_to_its_attributes_and_a_bom(tmp_path: Path) -> None:
    content = copy.deepcopy(CONTENT)
    for annotation in content["annotations"]:
        annotation |= {"attributes": {"track_id": annotation["track_id"]}, "track_id": None}
    assert read(tmp_path, "\ufeff" + json.dumps(content)).tubes.equals(read(tmp_path, CONTENT).tubes)


def test_pixels_counted_from_1(tmp_path: Path) -> None:
    one_based = read(tmp_path, CONTENT, COCO.replace("first_pixel = 0", "first_pixel = 1"))
    np.testing.assert_array_equal(boxes_of(one_based.tubes, 0)[0], [9, 7, 29, 37.5])


@pytest.mark.parametrize(
    ("place", "entry", "message"),
    [
        (("categories", 1), {"name": "Rnu"}, r"annotation 0: unknown class 'Rnu'[\s\S]*did you mean Run"),
        (("annotations", 2), {"image_id": 7}, "annotation 2: image 7 is not in the file"),
        (("annotations", 2), {"category_id": 7}, "annotation 2: category 7 is not in the file"),
        (("images", 2), {"video_id": 7}, "image 102: video 7 is not in the file"),
        (("images", 2), {"width": 65}, r"image 102 of video a\.mp4 has another size[\s\S]*65 x 48"),
        (("images", 2), {"frame_id": None}, "not COCO with videos"),
        (("annotations", 2), {"track_id": 6}, r"a\.mp4 tube 5 has no box after its frame 2"),
        (("annotations", 2), {"image_id": 101}, "a second box of tube 5 at frame 2"),
        (("annotations", 2), {"category_id": 3}, r"a\.mp4 tube 5 has several classes"),
        (("annotations", 2), {"bbox": [1, 2, 3]}, r"not COCO with videos[\s\S]*not enough values"),
        (("annotations", 2), {"bbox": [1, 2, 0, 4]}, r"frame 3: the box is empty"),
        (("annotations", 2), {"track_id": None}, "annotation 2 lacks track_id"),
        (("videos", 1), {"id": 11}, "has two videos of id 11"),
        (("videos", 1), {"file_name": "a.mp4"}, r"has 2 videos called a\.mp4"),
        (("images", 2), {"id": 101}, "has two images of id 101"),
        (("categories", 1), {"id": 3}, "has two categories of id 3"),
        (("images", 2), {"frame_id": 2.5}, r"image 102: its frame_id is no whole number[\s\S]*2\.5"),
        (("images", 2), {"frame_id": float("inf")}, r"not COCO with videos[\s\S]*infinity"),
        (("images", 2), {"width": 64.9}, "image 102: its width is no whole number"),
        (("videos", 0), {"name": "../a"}, r"video id '\.\./a' is refused"),
    ],
)
def test_a_wrong_entry_is_told_by_its_id(
    place: tuple[str, int], entry: dict[str, object], message: str, tmp_path: Path
) -> None:
    content = copy.deepcopy(CONTENT)
    content[place[0]][place[1]].update(entry)
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path, content)
    assert "boxes.json" in str(error.value)
    assert error.value.todo


@pytest.mark.parametrize(("width", "height"), [(0, 48), (64, -48), (64, 40_000)])
def test_a_size_that_no_video_has(width: int, height: int, tmp_path: Path) -> None:
    content = copy.deepcopy(CONTENT)
    for image in content["images"]:
        image.update(width=width, height=height)
    with pytest.raises(InputError, match=rf"a\.mp4 has no sensible length or size[\s\S]*{width} x {height}"):
        read(tmp_path, content)


def test_what_is_not_coco_with_videos(tmp_path: Path) -> None:
    without = {name: value for name, value in CONTENT.items() if name != "videos"}
    for content in (without, [], "{", "[" * 100_000):
        with pytest.raises(InputError, match=r"boxes\.json is not COCO with videos"):
            read(tmp_path, content)
    content = copy.deepcopy(CONTENT)
    del content["images"][3]["frame_id"]
    with pytest.raises(InputError, match=r"image 103 lacks frame_id[\s\S]*frame_index"):
        read(tmp_path, content)
