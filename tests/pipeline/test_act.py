"""The pickles of ACT's authors: their structure as ACT's and MOC's code describe it, written here as Python 2 wrote it."""

from __future__ import annotations

import json
import os
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_manifests.card import Card, load_card
from data_manifests.errors import InputError
from data_manifests.tables import boxes_of
from pipeline.__main__ import cli
from pipeline.annotations import Annotations, read_annotations
from pipeline.build import build
from pipeline.inspect import find_clip
from pipeline.plan import make_plan
from tests.oracles.act_annotations import plain_videos
from tests.pipeline import python2_pickle
from tests.pipeline.own_data import moving_square, plain_settings
from tests.pipeline.small_store import Here, refusal

WRITTEN_BY_PYTHON2 = Path(__file__).with_name("written_by_python2.pkl")
JHMDB = load_card("jhmdb21")
WAVE, CATCH, RUN = "wave/21_wave_u_nm_np1_fr_goo_5", "catch/caf\xe9__#1_catch", "run/r_1"
Content = dict[str, Any]


def tube(first: int, frames: int, kind: str = "f4") -> np.ndarray:
    """Around the square of `moving_square`; `first` counts from 1."""
    k = np.arange(frames)
    return np.stack([first + k, first + 1 + k, 8 + 0 * k, first + 17 + k, 24 + 0 * k], 1).astype(kind)


def content(classes: tuple[str, ...] = JHMDB.classes, videos: tuple[str, ...] = (WAVE, CATCH, RUN)) -> Content:
    """Three videos of 12, 11 and 10 frames; in split 2 the last is in neither list."""
    a, b, c = videos
    labels = list(reversed(classes))  # another order than the card's
    first, second = (labels.index(classes[label]) for label in (-1, 1))
    return {
        "labels": labels,
        "gttubes": {
            a: {first: [tube(1, 12)]},
            b: {second: [tube(3, 8, "f8"), np.asfortranarray(tube(1, 7))], np.int64(first): [tube(2, 9, "i8")]},
            c: {second: [tube(2, 9)]},
        },
        "nframes": {a: 12, b: np.int64(11), c: 10},
        "train_videos": [[a, b], [b]],
        "test_videos": [[c], [a]],
        "resolution": {a: (48, 64), b: (48, 64), c: (np.int32(48), 64)},
    }


def read(root: Path, raw: object, card: Card = JHMDB) -> Annotations:
    (root / card.annotation_files[0]).write_bytes(raw if isinstance(raw, bytes) else python2_pickle.dumps(raw))
    return read_annotations(card, root)


def named(pickled: bytes, opcode: str) -> set[object]:
    """The arguments of all opcodes of that name."""
    return {argument for code, argument, _ in pickletools.genops(pickled) if code.name == opcode}


def assert_equals_the_oracle(annotations: Annotations, path: Path, card: Card) -> None:
    expected = plain_videos(path, card.split)
    assert annotations.lengths_are_known
    videos = annotations.videos.to_pylist()
    assert {v["video_id"]: (v["split"], v["frames"], (v["width"], v["height"])) for v in videos} == {
        video: (part, frames, size) for video, (part, frames, size, _) in expected.items()
    }
    rows = annotations.tubes.drop_columns(["boxes"]).to_pylist()
    assert [(r["video_id"], r["tube"], card.classes[r["label"]], r["first_frame"]) for r in rows] == [
        (video, index, name, first)
        for video in sorted(expected)
        for index, (name, first, _) in enumerate(expected[video][3])
    ]
    for row, told in enumerate(rows):
        np.testing.assert_array_equal(
            boxes_of(annotations.tubes, row), np.float32(expected[told["video_id"]][3][told["tube"]][2])
        )


@pytest.mark.parametrize("split", [1, 2])
def test_the_tables_are_what_the_file_says(split: int, tmp_path: Path) -> None:
    card = replace(JHMDB, split=split)
    annotations = read(tmp_path, content(), card)
    assert_equals_the_oracle(annotations, tmp_path / "JHMDB-GT.pkl", card)
    assert annotations.tubes.num_rows == {1: 5, 2: 4}[split]
    found = {oddity.rule: (oddity.count, oddity.examples) for oddity in annotations.oddities}
    assert found == {1: {}, 2: {"outside-the-split": (1, (RUN,))}}[split]


def test_what_python_2_wrote(tmp_path: Path) -> None:
    """The file is of Python 2.7.18 (cPickle, protocol 2) and numpy 1.16.6; the tests' own pickles are like it."""
    written = WRITTEN_BY_PYTHON2.read_bytes()
    card = replace(JHMDB, classes=("catch", "wave"))
    annotations = read(tmp_path, written, card)
    assert_equals_the_oracle(annotations, WRITTEN_BY_PYTHON2, card)
    assert annotations.tubes["label"].to_pylist() == [1, 0, 1, 1]
    assert sorted(annotations.videos["video_id"].to_pylist())[0] == "catch/E!__caf\xe9_#1"
    own = python2_pickle.dumps(pickle.loads(written, encoding="latin1"))
    assert named(own, "GLOBAL") == named(written, "GLOBAL") != set()
    assert named(own, "SHORT_BINSTRING") == named(written, "SHORT_BINSTRING")
    assert not named(own, "BINUNICODE") | named(written, "BINUNICODE")


def test_a_card_may_say_what_the_boxes_mean(tmp_path: Path) -> None:
    annotations = read(tmp_path, content(), replace(JHMDB, boxes="inclusive-corners", first_pixel=1))
    plain = read(tmp_path, content())
    np.testing.assert_array_equal(boxes_of(annotations.tubes, 0), boxes_of(plain.tubes, 0) + np.float32([-1, -1, 0, 0]))
    assert [oddity.rule for oddity in annotations.oddities] == ["one-based-boxes"]


def test_boxes_past_the_end_and_out_of_the_frame_meet_the_rules_of_all_formats(tmp_path: Path) -> None:
    raw = content()
    raw["nframes"][WAVE] = 10
    raw["gttubes"][WAVE][0][0][:, 1] = -3
    found = {oddity.rule: oddity.count for oddity in read(tmp_path, raw).oddities}
    assert found == {"clipped-boxes": 1, "dropped-past-the-end": 1}


def changed(change: Callable[[Content], object]) -> Content:
    raw = content()
    change(raw)
    return raw


def with_tube(rows: object) -> Content:
    return changed(lambda raw: raw["gttubes"].update({WAVE: {0: [rows]}}))


GAP = np.delete(tube(1, 12), 4, 0)
NESTED: list[object] = ["a"]
for _ in range(60):
    NESTED = [NESTED, NESTED]
WRONG: dict[str, tuple[object, str]] = {
    "no dict": ([1, 2], "not an annotation file as ACT's"),
    "a part is missing": (changed(lambda raw: raw.pop("resolution")), r"KeyError: 'resolution'"),
    "another class": (
        changed(lambda raw: raw["labels"].__setitem__(0, "wvae")),
        r"other classes than card jhmdb21[\s\S]*only in the file: \['wvae'\]; only in the card: \['wave'\][\s\S]*classes = \[",
    ),
    "a class twice": (changed(lambda raw: raw["labels"].append("wave")), "other classes"),
    "a label of its own": (
        changed(lambda raw: raw["gttubes"][WAVE].update({21: [tube(1, 3)]})),
        rf"{WAVE} tube 1 has class 21[\s\S]*0 to 20",
    ),
    "a name of another kind": (
        changed(lambda raw: raw["labels"].__setitem__(0, NESTED)),
        "a name is wanted, not a list",
    ),
    "a label that is text": (
        changed(lambda raw: raw["gttubes"][WAVE].update(wave=[tube(1, 3)])),
        "not an annotation file",
    ),
    "one flat list": (changed(lambda raw: raw.update(train_videos=[WAVE, CATCH])), "not a list of videos a split"),
    "no such split": (changed(lambda raw: raw.update(test_videos=[])), "no split 1[\\s\\S]*0 of test videos"),
    "in both lists": (changed(lambda raw: raw["test_videos"][0].append(WAVE)), f"split 1 lists video {WAVE} twice"),
    "hostile id": (changed(lambda raw: raw["test_videos"][0].append("../a")), r"video id '\.\./a' is refused"),
    "a video without tubes": (changed(lambda raw: raw["gttubes"].pop(RUN)), f"gttubes lacks video {RUN}"),
    "a video without a size": (changed(lambda raw: raw["resolution"].pop(RUN)), f"resolution lacks video {RUN}"),
    "no frames": (changed(lambda raw: raw["nframes"].update({RUN: 0})), f"{RUN} has no sensible length"),
    "a half frame too many": (
        changed(lambda raw: raw["nframes"].update({RUN: 10.5})),
        f"{RUN}: its nframes is no whole number",
    ),
    "years of frames": (changed(lambda raw: raw["nframes"].update({RUN: 10**15})), f"{RUN} has no sensible length"),
    "a size of nothing": (changed(lambda raw: raw["resolution"].update({RUN: (0, 64)})), "10 frames of 64 x 0"),
    "a gap": (with_tube(GAP), rf"JHMDB-GT\.pkl: {WAVE} tube 0 has no box after its frame 4[\s\S]*next is at frame 6"),
    "a frame twice": (with_tube(np.repeat(tube(1, 3), 2, 0)), "no box after its frame 1"),
    "backwards": (with_tube(tube(1, 3)[::-1]), "no box after its frame 3"),
    "half a frame": (with_tube(tube(1, 3) + np.float32(0.5)), r"begins at frame 1\.5"),
    "no frame": (with_tube(tube(1, 3) * np.float32("nan")), "begins at frame nan"),
    "frame 0": (with_tube(tube(0, 3)), "tube 0 lies outside its video"),
    "after its video": (with_tube(tube(13, 3)), "tube 0 lies outside its video"),
    "a frame beyond all": (with_tube(np.float64([[1e300, 1, 1, 9, 9]])), "tube 0 lies outside its video"),
    "no rows": (with_tube(np.zeros((0, 5))), "tube 0 has no box"),
    "four columns": (with_tube(tube(1, 3)[:, 1:]), r"rows of shape \(3, 4\)"),
    "text": (with_tube(tube(1, 3).astype("S4")), "type \\|S4"),
    "no array": (with_tube([[1, 2, 3, 4, 5]]), "not an annotation file"),
    "an empty box": (with_tube(tube(1, 3) * np.float32([1, 1, 1, 0, 1])), "frame 1: the box is empty"),
    "no number": (with_tube(tube(1, 3) * np.float32([1, 1, np.nan, 1, 1])), "frame 1: the box is not finite"),
    "a shell command": (pickle.dumps({"labels": os.system}), r"posix\.system"),
    "half of it": (python2_pickle.dumps(content())[:900], "is refused"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_is_told_by_what_and_where(kind: str, tmp_path: Path) -> None:
    raw, message = WRONG[kind]
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path, raw)
    assert "JHMDB-GT.pkl" in str(error.value)
    assert error.value.todo


def write_images(folder: Path, frames: int, name: str) -> None:
    folder.mkdir(parents=True)
    for number, picture in enumerate(moving_square(frames), 1):
        Image.fromarray(picture).save(folder / name.format(number), quality=100)


DATASETS = {
    "jhmdb21": ("JHMDB-GT.pkl", (WAVE, CATCH, RUN), "{:05d}.png"),
    "ucfsports": ("UCFSports-GT.pkl", ("001", "002", "Walk/003"), "{:06d}.jpg"),
}


@pytest.mark.parametrize("name", DATASETS)
def test_from_pickle_and_images_to_a_clip_in_pixels(name: str, tmp_path: Path, capsys) -> None:
    file, videos, image = DATASETS[name]
    root, store = tmp_path / "root", tmp_path / "store"
    for video, frames in zip(videos, (12, 11, 10), strict=True):
        write_images(root / "Frames" / video, frames, image)
    (root / file).write_bytes(python2_pickle.dumps(content(load_card(name).classes, videos)))
    cli.main(["plan", "--dataset", name, "--root", str(root), "--json"], standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert [told[part]["videos"] for part in ("train_videos", "test_videos")] == [2, 1]
    card = load_card(name)
    plan = make_plan(card, root, plain_settings(card, views=0, frames="raw"))
    build(plan, card, root, store, workers=1, executor=Here())
    cli.main(
        ["inspect", str(store), "--clip", f"{videos[0]}:4", "--png", str(tmp_path / "clip.png")], standalone_mode=False
    )
    assert (tmp_path / "clip.png").stat().st_size > 1000
    picture = find_clip(store, f"{videos[0]}:4", 0)
    matched = picture.matched[0]
    assert picture.labels[matched] == card.classes[-1]
    for frame, box in zip(picture.frames, picture.boxes[matched], strict=True):
        x1, y1, x2, y2 = np.round(box * np.array(frame.size * 2)).astype(int)
        inside = np.asarray(frame)[y1 + 10 : y2 - 10, x1 + 10 : x2 - 10].reshape(-1, 3).astype(int)
        assert len(inside) > 1000
        assert (np.abs(inside - (200, 40, 30)) < 60).all(), "nothing but the square is in the box"
        around = [frame.getpixel(((x1 + x2) // 2, y)) for y in (y1 - 10, y2 + 10)]
        around += [frame.getpixel((x, (y1 + y2) // 2)) for x in (x1 - 10, x2 + 10)]
        assert all(red < 120 for red, _, _ in around), "and nothing of it outside"
    last = root / "Frames" / videos[2] / image.format(10)
    last.unlink()
    told_why = refusal(build, plan, card, root, tmp_path / "other", workers=1, executor=Here())
    assert f"video {videos[2]} has another number of frames" in told_why
    assert "9 decoded frames (images)" in told_why
