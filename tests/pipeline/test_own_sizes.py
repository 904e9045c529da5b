"""Own videos of several sizes: a card without a size means each video's own pixels."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_manifests.errors import InputError
from data_manifests.layout import digest
from data_manifests.tables import boxes_of
from pipeline.annotations import read_annotations
from pipeline.build import build
from pipeline.plan import ASSUMED_SIZE, Plan, make_plan
from pipeline.shards import ShardJob, VideoJob
from tests.pipeline.own_data import CARD, moving_square, plain_settings, tube_rows, write_own, write_video
from tests.pipeline.small_store import Here

OWN = CARD.replace("box_width = 64\nbox_height = 48\n", "")
SIZES = {"small": (64, 48), "large": (128, 96)}


def planned(root: Path, box: str, **settings: object) -> Plan:
    """A plan of two videos, 64 x 48 and 128 x 96, with the same box in both."""
    rows = "".join(tube_rows(name, 1, 6, box=box) for name in SIZES)
    card = write_own(root, rows, card=OWN)
    for name, (width, height) in SIZES.items():
        write_video(root / "videos" / f"{name}.avi", moving_square(6, width, height))
    return make_plan(card, root, plain_settings(card, views=0, **settings))


def built(root: Path, store: Path, box: str, **settings: object) -> tuple[dict[str, list[float]], dict[str, list[str]]]:
    """By video, the first stored box and the rules applied."""
    plan = planned(root, box, **settings)
    card = write_own(root, (root / "boxes.csv").read_text().partition("\n")[2], card=OWN)
    build(plan, card, root, store, workers=1, executor=Here())
    tubes = pq.read_table(store / "tables" / "tubes.parquet")
    boxes = {name: boxes_of(tubes, row)[0].tolist() for row, name in enumerate(tubes["video_id"].to_pylist())}
    notes = json.loads((store / "shards" / "train-00000" / "zarr.json").read_text())["attributes"]["videos"]
    return boxes, {note["video_id"]: note["rules"] for note in notes}


def test_boxes_are_in_each_videos_own_pixels(tmp_path: Path) -> None:
    boxes, rules = built(tmp_path / "d", tmp_path / "s", "10,8,40,40")
    assert boxes == {"small": [10, 8, 40, 40], "large": [10, 8, 40, 40]}
    assert rules == {"small": [], "large": []}


def test_shrunk_videos_take_their_boxes_along(tmp_path: Path) -> None:
    boxes, rules = built(tmp_path / "d", tmp_path / "s", "10,8,40,40", max_side=64)
    assert boxes == {"small": [10, 8, 40, 40], "large": [5, 4, 20, 20]}
    assert rules == {"small": [], "large": ["scaled-boxes"]}


def test_boxes_are_clipped_to_each_videos_own_frame(tmp_path: Path) -> None:
    boxes, rules = built(tmp_path / "d", tmp_path / "s", "-3,8,100,60")
    assert boxes == {"small": [0, 8, 64, 48], "large": [0, 8, 100, 60]}
    assert rules == {"small": ["clipped-boxes"], "large": []}


def test_a_box_outside_its_own_frame_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"small tube 0, frame 1: the box is empty or outside[\s\S]*within 64 x 48"):
        built(tmp_path / "d", tmp_path / "s", "70,8,100,60")


def test_a_plan_says_which_sizes_it_assumed(tmp_path: Path) -> None:
    plan = planned(tmp_path, "10,8,40,40")
    assert plan.videos["width"].to_pylist() == [None, None]
    assert plan.to_json(1)["estimate"]["videos_of_unknown_size"] == 2
    assert plan.bytes > 12 * ASSUMED_SIZE[0] * ASSUMED_SIZE[1] * 0.2


@pytest.mark.parametrize(
    ("units", "columns", "box"),
    [
        ("first_pixel = 0", "x1,y1,x2,y2", "10,8,40,40"),
        ("first_pixel = 1", "x1,y1,x2,y2", "11,9,41,41"),
        ('boxes = "inclusive-corners"', "x1,y1,x2,y2", "10,8,39,39"),
        ('boxes = "inclusive-corners"\nfirst_pixel = 1', "x1,y1,x2,y2", "11,9,40,40"),
        ('boxes = "width-height"', "x,y,width,height", "10,8,30,32"),
        ('boxes = "width-height"\nfirst_pixel = 1', "x,y,width,height", "11,9,30,32"),
    ],
)
def test_the_card_declares_the_units(units: str, columns: str, box: str, tmp_path: Path) -> None:
    text = OWN
    for line in units.splitlines():
        text = re.sub(rf"^{line.split()[0]} = .*", line, text, flags=re.MULTILINE)
    card = write_own(tmp_path, "", card=text)
    (tmp_path / "boxes.csv").write_text(f"video,tube,class,frame,{columns}\n" + tube_rows("a", 1, 6, box=box))
    annotations = read_annotations(card, tmp_path)
    np.testing.assert_array_equal(boxes_of(annotations.tubes, 0), [[10, 8, 40, 40]] * 6)
    assert [oddity.rule for oddity in annotations.oddities] == ["one-based-boxes"] * ("first_pixel = 1" in units)


def test_columns_of_the_other_kind_are_told(tmp_path: Path) -> None:
    card = write_own(tmp_path, "", card=OWN)
    (tmp_path / "boxes.csv").write_text("video,tube,class,frame,x,y,width,height\n")
    with pytest.raises(InputError, match=r"lacks the columns x1, y1, x2, y2[\s\S]*boxes = \"width-height\""):
        read_annotations(card, tmp_path)


def test_one_size_for_all_keeps_the_digest_of_stores_built_before(tmp_path: Path) -> None:
    settings = plain_settings(write_own(tmp_path, ""))

    def digest_of(*sizes: tuple[int, int] | None) -> str:
        videos = tuple(VideoJob(name, f"{name}.avi", None, size, ()) for name, size in zip("ab", sizes, strict=True))
        return ShardJob("train-00000", "train", tmp_path, tmp_path, settings, videos).annotations_digest

    assert digest_of((64, 48), (64, 48)) == digest(["train", (64, 48), [("a", None, []), ("b", None, [])]])
    assert len({digest_of((64, 48), (64, 48)), digest_of((64, 48), (65, 48)), digest_of(None, None)}) == 3
