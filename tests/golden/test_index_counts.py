"""The real annotations against counts of the original implementation and of a plain reading."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_manifests.card import load_card
from data_manifests.tables import TUBES, VIDEOS, boxes_of
from pipeline.annotations import read_annotations
from pipeline.plan import Plan, make_plan
from tests.oracles.ucf101_annotations import plain_counts, plain_tubes
from tests.pipeline.own_data import plain_settings
from trainer.evaluation import longest_first


@pytest.fixture(scope="module")
def plan(real: Path) -> Plan:
    card = load_card("ucf101")
    return make_plan(card, real / "ucf101", plain_settings(card), missing=None)


@pytest.mark.parametrize("key", ["train_videos", "test_videos"])
def test_a_plan_counts_as_the_original(plan: Plan, golden: Path, key: str) -> None:
    theirs = json.loads((golden / "index_counts.json").read_text())[key]
    ours = plan.to_json(workers=1)[key]
    wanted = {name: count for name, count in theirs.items() if name in ours}
    assert wanted.keys() >= {"videos", "windows", "clips", "pairs", "clips_with_2_or_more_gt", "per_class"}
    assert {name: ours[name] for name in wanted} == wanted


def test_a_plan_agrees_with_its_card(plan: Plan) -> None:
    expected = load_card("ucf101").expected["train"]
    counts = plan.counts("train")
    assert {name: counts[name] for name in expected} == expected


def test_oddities_are_those_known_of_the_file(plan: Plan, golden: Path) -> None:
    known = json.loads((golden / "oddities.json").read_text())
    found = {oddity.rule: oddity for oddity in plan.annotations.oddities}
    assert found["widened-boxes"].count == known["uint8_tubes_where_x+w_overflows_uint8"]
    assert found["one-based-boxes"].count == known["tubes"] == plan.annotations.tubes.num_rows
    identical = {f"{video} tube {b}" for video, _, b, _, overlap, _ in known["pairs_mean_iou>0.5"] if overlap == 1.0}
    assert set(found["identical-tubes"].examples) == identical
    assert found.keys() == {"widened-boxes", "one-based-boxes", "identical-tubes"}, "no box is empty or outside"
    short = known["tubes_shorter_than_K6"]
    for split, is_test in (("train", False), ("test", True)):
        in_split = {row["video_id"] for row in plan.videos.to_pylist() if row["split"] == split}
        assert plan.counts(split)["tubes_shorter_than_K"] == sum(video in in_split for video, *_ in short), is_test


def test_tables_equal_a_plain_reading(plan: Plan, real: Path) -> None:
    tubes = plan.annotations.tubes
    assert tubes.schema == TUBES
    assert plan.annotations.videos.schema == VIDEOS
    plain = plain_tubes(real / "ucf101/annotations/pyannot.pkl")
    for row, head in enumerate(tubes.drop_columns(["boxes"]).to_pylist()):
        label, first, boxes = plain[head["video_id"]][head["tube"]]
        assert (head["label"], head["first_frame"]) == (label, first)
        if row % 7 == 0:
            assert boxes_of(tubes, row).tolist() == [list(map(float, box)) for box in boxes]
    assert sum(len(of_video) for of_video in plain.values()) == tubes.num_rows


def test_counts_of_other_clip_lengths_equal_plain_counting(
    plan: Plan, real: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = load_card("ucf101")
    monkeypatch.setattr("pipeline.plan.read_annotations", lambda *_: plan.annotations)
    spans: dict[str, list[tuple[int, int]]] = {}
    tubes = plan.annotations.tubes
    for row, head in enumerate(tubes.drop_columns(["boxes"]).to_pylist()):
        spans.setdefault(head["video_id"], []).append((head["first_frame"], len(tubes["boxes"][row])))
    listed = sorted(spans)[::40]
    for K, stride in ((1, 1), (8, 3)):
        other = make_plan(card, real / "ucf101", plain_settings(card, K=K, stride=stride), missing=None)
        rows = {row["video_id"]: index for index, row in enumerate(other.videos.to_pylist())}
        frames = other.videos["frames"].to_pylist()
        for video_id in listed:
            _, clips, pairs, crowded = plain_counts(frames[rows[video_id]], spans[video_id], K, stride)
            here = other.clips.tubes[other.clips.video == rows[video_id]]
            assert (len(here), int(here.sum()), int((here > 1).sum())) == (clips, pairs, crowded), video_id


def test_both_annotation_files_give_equal_tables(plan: Plan, real: Path, tmp_path: Path) -> None:
    (tmp_path / "UCF101_v2").mkdir()
    for name in ("finalAnnots.mat", "testlist01.txt"):
        shutil.copy(real / "ucf101/annotations" / name, tmp_path / "UCF101_v2" / name)
    from_mat = read_annotations(load_card("ucf101"), tmp_path)
    assert from_mat.videos.equals(plan.annotations.videos)
    assert from_mat.tubes.equals(plan.annotations.tubes)
    assert from_mat.oddities == plan.annotations.oddities


def test_the_test_split_is_the_official_list(plan: Plan, real: Path) -> None:
    listed = (real / "ucf101/annotations/testlist01.txt").read_text().split()
    of_test = {row["video_id"] for row in plan.annotations.videos.to_pylist() if row["split"] == "test"}
    assert of_test == {video_id.removesuffix(".avi") for video_id in listed if "/" in video_id}
    assert len(of_test) == 910


def test_ranks_that_take_the_longest_test_video_first_end_together(plan: Plan) -> None:
    """Simulated: 8 ranks, the next video to whoever is free; within 3 % of the bound."""
    lengths = np.array([row["frames"] for row in plan.annotations.videos.to_pylist() if row["split"] == "test"])
    assert len(lengths) == 910

    def makespan(order: list[int]) -> int:
        busy = np.zeros(8, int)
        for place in order:
            busy[busy.argmin()] += lengths[place]
        return int(busy.max())

    bound = max(lengths.sum() / 8, lengths.max())
    assert makespan(longest_first(lengths)) <= 1.03 * bound
    assert makespan(longest_first(lengths)) < makespan(longest_first(-lengths)), "the order matters"
