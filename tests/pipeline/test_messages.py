"""Messages of the pipeline that no other test reads: each says what is wrong, and what to do."""

import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from data_manifests.errors import _MACHINE_FAULTS, InputError, run_command_line
from pipeline import shards
from pipeline.__main__ import main
from pipeline.build import BuildReport
from pipeline.clips import MAX_TUBES_OF_CLIP, MAX_TUBES_OF_VIDEO
from pipeline.inspect import find_clip
from pipeline.matching import MatchRule, prior_grid
from pipeline.summary import print_build, print_store
from pipeline.targets import MAX_SIDE, video_targets
from tests.pipeline.own_data import HEADER, moving_square, tube_rows, write_own, write_video
from tests.pipeline.small_store import build_small, refusal


@pytest.mark.parametrize("number", _MACHINE_FAULTS)
def test_a_fault_of_the_machine_names_the_file_and_the_way_on(number: int, capsys) -> None:
    def failing() -> None:
        raise OSError(number, os.strerror(number), "/some/file")

    with pytest.raises(SystemExit) as ended:
        run_command_line(failing)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("error: cannot write or read /some/file")
    assert os.strerror(number) in told
    assert f"do: {_MACHINE_FAULTS[number]}" in told


def test_a_bug_of_ours_keeps_its_traceback() -> None:
    def failing() -> None:
        raise OSError(errno.EBADF, "of ours")

    with pytest.raises(OSError, match="of ours"):
        run_command_line(failing)


def test_what_to_draw_is_misnamed(small_store: Path) -> None:
    for clip in ("Run/v_0", "Run/v_0:x", ":3"):
        assert "wanted: VIDEO_ID:FIRST_FRAME, like Surfing" in refusal(find_clip, small_store, clip, 0)
    message = refusal(find_clip, small_store, "Run/v_0:3", 9)
    assert "--view 9" in message
    assert "wanted: 0 to 2" in message


def test_a_variance_of_nothing() -> None:
    assert "a variance is not above 0" in refusal(MatchRule, variances=(0.1, 0.1, 0.0, 0.2))


def test_a_video_without_a_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_own(tmp_path / "d", tube_rows("Run/a", 1, 6))
    write_video(tmp_path / "d" / "videos" / "Run" / "a.avi", moving_square(6))
    monkeypatch.setattr(shards, "stored_frames", lambda request, limit: iter(()))
    assert "video Run/a has no frames" in refusal(build_small, tmp_path / "d", tmp_path / "s")


@pytest.mark.parametrize(
    ("tubes", "width", "told"),
    [
        (MAX_TUBES_OF_VIDEO + 1, 64, f"a has {MAX_TUBES_OF_VIDEO + 1} tubes"),
        (MAX_TUBES_OF_CLIP + 1, 64, f"the clip at frame 0 has {MAX_TUBES_OF_CLIP + 1} tubes"),
        (1, MAX_SIDE + 1, f"a has frames of {MAX_SIDE + 1} x 48"),
    ],
)
def test_more_than_a_target_can_name(tubes: int, width: int, told: str, tmp_path: Path) -> None:
    card = write_own(tmp_path, "")
    message = refusal(
        video_targets,
        "a",
        [np.array([[1, 1, 9, 9]] * 6, np.float32)] * tubes,
        np.zeros(tubes, np.int64),
        np.zeros(tubes, np.int64),
        np.zeros(1, np.int32),
        width=width,
        height=48,
        K=6,
        views=0,
        seed=0,
        mirrored_label=(0, 1),
        grid=prior_grid(card.priors),
        rule=MatchRule(),
    )
    assert told in message
    assert "do: " in message


def test_a_drafted_card_that_does_not_read_yet(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "boxes.csv").write_text(HEADER + tube_rows("a", 0, 3) + tube_rows("a", 4, 3))
    monkeypatch.setattr(sys, "argv", ["pipeline", "card", "--from", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "the annotations do not read by that card yet" in told
    assert "a tube 0 has no box after its frame 2" in told
    assert (tmp_path / "card.toml").is_file(), "to be mended"


def test_an_error_says_what_was_found_wanted_and_to_do() -> None:
    error = InputError("a thing is wrong", found="this", wanted="that", todo="mend it")
    assert str(error) == "a thing is wrong\n  found: this\n  wanted: that\n  do: mend it"


def test_a_build_names_some_of_many_skipped_videos_and_where_all_are(capsys) -> None:
    skipped = {f"Run/v{number:03}": "not there" for number in range(1, 201)}
    rules = {"clipped-boxes": [f"Run/v{number}" for number in range(7)]}
    print_build(BuildReport(1, 9, 1.0, 0, skipped, [], [], rules, ["Run/v3"]), Path("store"))
    told = capsys.readouterr().out
    assert "1 videos are in the store up to their damage only (an earlier --damaged keep):\n  Run/v3\n" in told
    assert "rule clipped-boxes applied to 7 videos: boxes that reach past the decoded frame are clipped" in told
    assert "\n  Run/v0, Run/v1, Run/v2, Run/v3, Run/v4 ...\n" in told
    assert "skipped 200 videos" in told
    assert "Run/v010\n  and 190 more: store/manifest.json names them" in told


def test_class_names_are_never_cut(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    counts = dict.fromkeys(("videos", "tubes", "boxes", "clips"), 123_456)
    shares = {"priors_a_tube": 6.8, "without_fitting_prior": 0.1, "dropped_by_views": 0.1}
    row = {"split": "train", "class": "TrampolineJumping", **counts, **shares}
    print_store(
        {"title": "t", "settings": {}, "splits": {}, "classes": [row], "rules": {}, "unfinished": [], "health": []}
    )
    assert "TrampolineJumping" in capsys.readouterr().out
