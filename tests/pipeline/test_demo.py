"""The demo dataset is honest (a frame tells no class, six frames do), deterministic, and written all or nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ks_2samp

from data_manifests.card import load_card
from pipeline import demo
from pipeline.annotations import read_annotations
from pipeline.demo import FRAMES, HEIGHT, SWEEPS, WIDTH, Actor, Scene, make_demo, make_scenes, render
from pipeline.frames import open_frames

CLASSES = tuple(SWEEPS)
SEEDS = 1


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """Several datasets, so that distributions can be compared."""
    return [scene for seed in range(SEEDS) for scene in make_scenes(seed)]


@pytest.fixture
def few_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "VIDEOS", {"train": 3, "test": 2})


def look(actor: Actor, age: int) -> np.ndarray:
    """What one frame shows of an actor: centre, size, aspect, orientation, colour, shape."""
    x1, y1, x2, y2 = actor.boxes()[age]
    corners = actor.outlines()[age]
    dx, dy = corners[0] - corners.mean(0)
    turn = np.arctan2(dy, dx) % (2 * np.pi / actor.corners)
    return np.array(
        [(x1 + x2) / 2, (y1 + y2) / 2, np.log(x2 - x1), np.log((y2 - y1) / (x2 - x1)), turn * actor.corners]
        + [*actor.colour, actor.corners]
    )


def moments(scenes: list[Scene], K: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each actor: its label, its look at a random frame of its life, and its look K - 1 frames later."""
    random = np.random.default_rng(0)
    labels, now, later = [], [], []
    for scene in scenes:
        for actor in scene.actors:
            age = int(random.integers(0, actor.frames - K + 1))
            labels.append(CLASSES.index(actor.action))
            now.append(look(actor, age))
            later.append(look(actor, age + K - 1))
    return np.array(labels), np.array(now), np.array(later)


def neighbours_accuracy(labels: np.ndarray, features: np.ndarray) -> float:
    """How often the majority of 15 nearest neighbours in the first half has the second half's class."""
    scaled = (features - features.mean(0)) / features.std(0)
    half = len(labels) // 2
    distances = np.linalg.norm(scaled[half:, None] - scaled[None, :half], axis=2)
    votes = labels[:half][np.argsort(distances, axis=1)[:, :15]]
    counts = (votes[:, :, None] == np.arange(len(CLASSES))).sum(1)
    return float((counts.argmax(1) == labels[half:]).mean())


def test_every_look_is_distributed_alike_in_every_class(scenes: list[Scene]) -> None:
    """A video's first actor is drawn without conditions: no difference at all; the least of 54 p values is about 0.02."""
    firsts = [Scene(scene.video_id, scene.split, scene.actors[:1], scene.seed) for scene in scenes]
    labels, looks, _ = moments(firsts)
    for label in range(len(CLASSES)):
        for column in range(looks.shape[1]):
            result = ks_2samp(looks[labels == label, column], looks[labels != label, column])
            assert result.pvalue > 1e-3, (CLASSES[label], column, result)


def test_actors_that_keep_apart_look_alike_in_every_class(scenes: list[Scene]) -> None:
    """The later actors must keep clear of the earlier ones, which depends on their motion too: a preference of places
    or sizes that this makes must be too slight to be seen in so many actors (54 comparisons: 0.5 % of honest draws fail)."""
    labels, looks, _ = moments(scenes)
    for label in range(len(CLASSES)):
        for column in range(looks.shape[1]):
            result = ks_2samp(looks[labels == label, column], looks[labels != label, column])
            assert result.pvalue > 1e-4, (CLASSES[label], column, result)


def test_one_frame_tells_no_class(scenes: list[Scene]) -> None:
    labels, looks, _ = moments(scenes)
    assert neighbours_accuracy(labels, looks) < 1 / len(CLASSES) + 0.06


def test_six_frames_tell_the_class(scenes: list[Scene]) -> None:
    labels, now, later = moments(scenes, K=6)
    assert neighbours_accuracy(labels, (later - now)[:, :3]) > 0.97


def test_scenes_hold_what_is_promised(scenes: list[Scene]) -> None:
    assert len(CLASSES) >= 5
    assert sum(scene.split == "train" for scene in scenes) == SEEDS * 120
    assert sum(scene.split == "test" for scene in scenes) == SEEDS * 20
    assert len({scene.video_id for scene in scenes}) == 140
    assert {len(scene.actors) for scene in scenes} == {1, 2, 3}
    begins = ends = together = 0
    for scene in scenes:
        assert scene.video_id.split("/")[0] == scene.actors[0].action
        assert len({actor.action for actor in scene.actors}) == len(scene.actors)
        spans = [(actor.first_frame, actor.end) for actor in scene.actors]
        begins += any(first > 0 for first, _ in spans)
        ends += any(last < FRAMES for _, last in spans)
        together += len(spans) > 1 and max(first for first, _ in spans) < min(last for _, last in spans)
        for actor, (first, last) in zip(scene.actors, spans, strict=True):
            assert 0 <= first < last <= FRAMES
            boxes = actor.boxes()
            assert boxes.min() >= 0
            assert (boxes[:, 2] <= WIDTH).all()
            assert (boxes[:, 3] <= HEIGHT).all()
    assert min(begins, ends) > len(scenes) / 2
    assert together > len(scenes) / 4


def test_a_scene_is_a_function_of_seed_split_and_index() -> None:
    first, again = next(iter(make_scenes(7))), next(iter(make_scenes(7)))
    assert [actor.boxes().tolist() for actor in first.actors] == [actor.boxes().tolist() for actor in again.actors]
    other = next(iter(make_scenes(8)))
    assert first.actors[0].base.tolist() != other.actors[0].base.tolist()
    assert all((a == b).all() for a, b in zip(render(first), render(again), strict=True))


def test_boxes_fit_the_drawn_shapes() -> None:
    """The box of the pixels that an actor changes is its annotated box, to a pixel."""
    checked = 0
    for scene in list(make_scenes(0))[:4]:
        empty = Scene(scene.video_id, scene.split, (), scene.seed)
        alone = Scene(scene.video_id, scene.split, scene.actors[:1], scene.seed)
        actor = scene.actors[0]
        for frame, (bare, drawn) in enumerate(zip(render(empty), render(alone), strict=True)):
            changed = np.abs(bare.astype(int) - drawn).max(2) > 24
            if not actor.first_frame <= frame < actor.end:
                assert not changed.any()
                continue
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            box = actor.boxes()[frame - actor.first_frame]
            off = np.abs(found - box)
            checked += 1
            assert np.median(off) < 2, (scene.video_id, frame, found, box)
    assert checked > 80


def test_the_bar_passes_over_actors() -> None:
    hidden = 0
    for scene in list(make_scenes(0))[:5]:
        bare = render(Scene(scene.video_id, scene.split, (), scene.seed))
        for frame, (image, ground) in enumerate(zip(render(scene), bare, strict=True)):
            for actor in scene.actors:
                if actor.first_frame <= frame < actor.end:
                    x, y = actor.outlines()[frame - actor.first_frame].mean(0).astype(int)
                    hidden += bool((image[y, x] == ground[y, x]).all())
    assert hidden > 5


@pytest.mark.usefixtures("few_videos")
def test_the_written_dataset_reads_back_through_its_card(tmp_path: Path) -> None:
    root = tmp_path / "demo"
    make_demo(root)
    card = load_card("demo")
    assert card.classes == CLASSES
    annotations = read_annotations(card, root)
    expected = {scene.video_id: scene for scene in make_scenes(0)}
    videos = annotations.videos.to_pylist()
    assert {video["video_id"]: video["split"] for video in videos} == {k: s.split for k, s in expected.items()}
    assert annotations.tubes.num_rows == sum(len(scene.actors) for scene in expected.values())
    assert not annotations.oddities
    for tube in annotations.tubes.to_pylist():
        actor = expected[tube["video_id"]].actors[tube["tube"]]
        assert (tube["label"], tube["first_frame"]) == (CLASSES.index(actor.action), actor.first_frame)
        np.testing.assert_allclose(np.array(tube["boxes"]), actor.boxes(), atol=0.006)
    for video in videos:
        frames = list(open_frames(root / "videos" / f"{video['video_id']}.avi"))
        drawn = list(render(expected[video["video_id"]]))
        assert len(frames) == FRAMES
        errors = [np.abs(a.astype(int) - b).mean() for a, b in zip(frames, drawn, strict=True)]
        assert 0 < max(errors) < 6  # lossy, but the same picture


@pytest.mark.usefixtures("few_videos")
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    def digests(root: Path, seed: int) -> dict[str, str]:
        make_demo(root, seed)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    first = digests(tmp_path / "a", 3)
    assert len(first) == 5 + 2
    assert first == digests(tmp_path / "b", 3)
    assert first != digests(tmp_path / "c", 4)


@pytest.mark.usefixtures("few_videos")
def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, calls = demo._encode, []

    def failing(scene: Scene, path: Path) -> None:
        calls.append(scene)
        if len(calls) == 3:
            raise OSError("no space left on device")
        encode(scene, path)

    monkeypatch.setattr(demo, "_encode", failing)
    with pytest.raises(OSError, match="no space"):
        make_demo(tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("few_videos")
def test_a_root_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "mine.txt").write_text("keep")
    make_demo(tmp_path / "demo")
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["mine.txt"]
