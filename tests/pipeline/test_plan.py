"""What a build will make, from annotations and lists."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_manifests.card import load_card
from data_manifests.errors import InputError
from data_manifests.manifest import Manifest
from pipeline import plan as plan_module
from pipeline.plan import Plan, make_plan
from tests.oracles.ucf101_annotations import plain_counts
from tests.pipeline.own_data import plain_settings, tube_rows, write_own

ROWS = "".join(tube_rows(f"Run/v{n}", 1 + n % 3, 10 + n) + tube_rows(f"Run/v{n}", 5, 3 + n, tube=1) for n in range(9))


def plan_own(
    root: Path, test: str = "Run/v8\n", *, K: int = 6, stride: int = 1, rows: str = ROWS, **options: Any
) -> Plan:
    card = write_own(root, rows, test)
    return make_plan(card, root, plain_settings(card, K=K, stride=stride), **{"missing": None, **options})


def places(plan: Plan) -> dict[str, tuple[str, ...]]:
    return {name: record.videos for name, record in plan.shards.items()}


@pytest.mark.parametrize(("K", "stride"), [(6, 1), (1, 1), (6, 4), (16, 1)])
def test_counts_are_those_of_plain_counting(K: int, stride: int, tmp_path: Path) -> None:
    counts = plan_own(tmp_path, test="", K=K, stride=stride).counts("train")
    plain = [plain_counts(max(n % 3 + 10 + n, 4 + 3 + n), [(n % 3, 10 + n), (4, 3 + n)], K, stride) for n in range(9)]
    keys = ("windows", "clips", "pairs", "clips_with_2_or_more_gt")
    assert [counts[key] for key in keys] == [sum(column) for column in zip(*plain, strict=True)]
    assert counts["videos"] == 9
    assert counts["tubes_shorter_than_K"] == sum((10 + n < K) + (3 + n < K) for n in range(9))
    assert counts["clips"] + counts["rejected_half_covered"] == counts["clips_without_in_out_rule"]
    assert counts["pairs"] + counts["pairs_in_rejected"] == counts["every_window_of_every_tube"]
    assert counts["per_class"]["Run"]["clips"] == counts["clips"]
    assert counts["per_class"]["Jump"] == {"videos": 0, "tubes": 0, "clips": 0, "pairs": 0, "clips_ge2": 0}


def test_a_video_of_two_classes_counts_for_both(tmp_path: Path) -> None:
    spans = {"Run": [(0, 30), (10, 12)], "Jump": [(0, 30), (40, 9)]}
    rows = "".join(
        tube_rows("a", first + 1, length, tube=10 * label + i, action=name)
        for label, name in enumerate(spans)
        for i, (first, length) in enumerate(spans[name])
    )
    counts = plan_own(tmp_path, test="", rows=rows + tube_rows("b", 1, 8)).counts("train")
    everything = spans["Run"] + spans["Jump"]
    windows = [range(start, start + 6) for start in range(49 - 6 + 1)]
    covering = {span: [all(span[0] <= f < sum(span) for f in window) for window in windows] for span in everything}
    half = [any(0 < sum(a <= f < a + n for f in window) < 6 for a, n in everything) for window in windows]
    for name, of_class in spans.items():
        clips = [i for i, no in enumerate(half) if not no and any(covering[span][i] for span in of_class)]
        b = name == "Run"  # three clips of one tube
        assert counts["per_class"][name] == {
            "videos": 1 + b,
            "tubes": 2 + b,
            "clips": len(clips) + 3 * b,
            "pairs": sum(covering[span][i] for span in of_class for i in clips) + 3 * b,
            "clips_ge2": sum(sum(covering[span][i] for span in everything) >= 2 for i in clips),
        }
        assert clips
    assert counts["videos"] == 2


@pytest.mark.parametrize(
    ("tubes", "apart", "message"), [(65, 0, "Run/v: the clip at frame 0 has 65 tubes"), (256, 6, "Run/v has 256 tubes")]
)
def test_more_tubes_than_a_target_can_name_are_refused_before_the_build(
    tubes: int, apart: int, message: str, tmp_path: Path
) -> None:
    rows = "".join(tube_rows("Run/v", 1 + apart * tube, 6, tube=tube) for tube in range(tubes))
    with pytest.raises(InputError, match=message):
        plan_own(tmp_path, test="", rows=rows)


def test_a_plan_is_a_function_of_its_inputs(tmp_path: Path) -> None:
    first, again = plan_own(tmp_path / "a"), plan_own(tmp_path / "b")
    assert places(first) == places(again)
    assert first.settings.digest == again.settings.digest
    assert json.dumps(first.to_json(2)) == json.dumps(again.to_json(2))


def test_shards_hold_whole_videos_of_one_split_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "FRAMES_PER_SHARD", 30)
    plan = plan_own(tmp_path, test="Run/v2\nRun/v5\n")
    for split in ("train", "test"):
        of_split = [v for name, record in sorted(plan.shards.items()) if record.split == split for v in record.videos]
        listed = [row["video_id"] for row in plan.videos.to_pylist() if row["split"] == split]
        assert of_split == listed
    frames = {row["video_id"]: row["frames"] for row in plan.videos.to_pylist()}
    for name, record in plan.shards.items():
        assert name.startswith(record.split)
        assert sum(frames[video] for video in record.videos[:-1]) < 30


def test_videos_that_a_store_has_are_not_planned_again(tmp_path: Path) -> None:
    only_test = plan_own(tmp_path, test="Run/v2\n", split="test")
    assert places(only_test) == {"test-00000": ("Run/v2",)}
    manifest = replace(Manifest(only_test.settings.digest), shards=only_test.shards)
    rest = plan_own(tmp_path, test="Run/v2\n", present=manifest)
    assert places(rest) == {"train-00000": tuple(f"Run/v{n}" for n in range(9) if n != 2)}
    nothing = plan_own(tmp_path, test="Run/v2\n", present=replace(manifest, shards={**manifest.shards, **rest.shards}))
    assert places(nothing) == {}


def test_a_train_list_restricts_the_training_split_only(tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("Run/v3.avi 1\nRun/v1\n")
    plan = plan_own(tmp_path, train_list=tmp_path / "some.txt")
    assert plan.videos["video_id"].to_pylist() == ["Run/v1", "Run/v3", "Run/v8"]
    assert plan.to_json(1)["train_videos"]["videos"] == 2


def test_a_train_list_with_test_videos_or_strangers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("Run/v1\nRun/v8\n")
    with pytest.raises(InputError, match=r"some\.txt lists test videos[\s\S]*Run/v8"):
        plan_own(tmp_path, train_list=tmp_path / "some.txt")
    (tmp_path / "some.txt").write_text("Run/v1\nRun/w8\n")
    with pytest.raises(InputError, match=r"some\.txt, line 2: unknown video Run/w8[\s\S]*did you mean Run/v8"):
        plan_own(tmp_path, train_list=tmp_path / "some.txt")
    with pytest.raises(InputError, match=r"none\.txt is not there"):
        plan_own(tmp_path, train_list=tmp_path / "none.txt")
    (tmp_path / "some.txt").write_text("\n")
    with pytest.raises(InputError, match=r"some\.txt lists no video"):
        plan_own(tmp_path, train_list=tmp_path / "some.txt")


def test_missing_videos_are_named_or_skipped(tmp_path: Path) -> None:
    (tmp_path / "videos/Run").mkdir(parents=True)
    (tmp_path / "videos/Run/v0.avi").touch()
    (tmp_path / "frames/Run/v4").mkdir(parents=True)
    with pytest.raises(
        InputError,
        match=r"video Run/v1 is not below[\s\S]*: 7 of 9 videos[\s\S]*videos/Run/v1\.avi, frames/Run/v1[\s\S]*skip",
    ):
        plan_own(tmp_path, missing="error")
    (tmp_path / "videos/Run/V1.MP4").touch()
    with pytest.raises(InputError, match=r"7 of 9 videos are not there; videos/Run/V1\.MP4 is"):
        plan_own(tmp_path, missing="error")
    (tmp_path / "videos/Run/V1.MP4").rename(tmp_path / "videos/Run/vv1.avi")
    with pytest.raises(InputError, match=r"video Run/v1 is not below[\s\S]*--missing skip; did you mean vv1\?"):
        plan_own(tmp_path, missing="error")
    (tmp_path / "videos/Run/vv1.avi").rename(tmp_path / "videos/Run/v8.avi")  # of the test split
    with pytest.raises(InputError, match=r"video Run/v1 is not below[\s\S]*--missing skip$"):
        plan_own(tmp_path, missing="error", split="train")
    (tmp_path / "videos/Run/v8.avi").unlink()
    plan = plan_own(tmp_path, missing="skip")
    assert plan.videos["path"].to_pylist() == ["videos/Run/v0.avi", "frames/Run/v4"]
    assert list(plan.skipped) == [f"Run/v{n}" for n in (1, 2, 3, 5, 6, 7, 8)]
    assert plan.to_json(1)["skipped"] == plan.skipped
    for name in ("videos", "frames"):
        (tmp_path / name).rename(tmp_path / f"no_{name}")
    with pytest.raises(InputError, match=r"no video of own to build from[\s\S]*9 listed, none of them there"):
        plan_own(tmp_path, missing="skip")


def test_nothing_to_build(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no video of own to build from[\s\S]*none listed in that split"):
        plan_own(tmp_path, test="", split="test")
    with pytest.raises(InputError, match=r"boxes\.csv has no box"):
        plan_own(tmp_path, test="", rows="")


def test_a_plan_of_real_annotations_takes_no_video_and_little_time(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = load_card("ucf101")
    found = make_plan(card, real / "ucf101", plain_settings(card), missing="skip", split="train")
    assert (found.videos.num_rows, len(found.skipped)) == (65, 2284 - 65)
    assert all((real / "ucf101" / path).is_file() for path in found.videos["path"].to_pylist())
    monkeypatch.setattr("pipeline.plan.read_annotations", lambda *_: found.annotations)
    shorter = make_plan(
        card,
        real / "ucf101",
        plain_settings(card),
        missing=None,
        train_list=real / "ucf101/two-class-train.txt",
        split="train",
    )
    assert shorter.videos.num_rows == 40


def test_the_estimate_grows_with_what_is_built(tmp_path: Path) -> None:
    card = write_own(tmp_path, ROWS)
    small, large = (make_plan(card, tmp_path, plain_settings(card, views=views), missing=None) for views in (0, 8))
    raw = make_plan(card, tmp_path, plain_settings(card, frames="raw"), missing=None)
    assert small.bytes < large.bytes < raw.bytes
    assert large.seconds(1) == pytest.approx(2 * large.seconds(2))
    pixels = 64 * 48 * sum(large.videos["frames"].to_pylist())
    assert raw.bytes - large.bytes == pytest.approx(pixels * (3 - 0.245), rel=0.01)
    halved = replace(raw, settings=replace(raw.settings, max_side=32))
    assert raw.bytes - halved.bytes == pytest.approx(pixels * 3 * 3 / 4, rel=0.01)


def test_settings_that_decide_content_are_in_the_digest(tmp_path: Path) -> None:
    card = write_own(tmp_path, ROWS)
    changes: list[dict[str, object]] = [
        {}, {"K": 5}, {"stride": 2}, {"views": 7}, {"seed": 1}, {"positive_overlap": 0.6}, {"negative_overlap": 0.4},
        {"frames": "raw"}, {"frames": "jpeg:94"}, {"max_side": 200}, {"mirrored": (1, 0)}, {"classes": ("Run", "Hop")},
        {"variances": (0.1, 0.1, 0.2, 0.1)}, {"priors": replace(card.priors, image_size=301)},
    ]  # fmt: skip
    digests = {plain_settings(card, **change).digest for change in changes}
    assert len(digests) == len(changes)
