"""A shard's arrays against the videos and the targets they come from; and that it opens without this project."""

import importlib.metadata
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import simplejpeg
import zarr
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from data_manifests.layout import ARRAYS
from data_manifests.manifest import load_manifest
from pipeline import shards
from pipeline.decoding import encode_frame
from pipeline.frames import FrameSource, open_frames
from pipeline.images import Picture
from tests.pipeline.own_data import moving_square, tube_rows, write_own, write_video
from tests.pipeline.small_store import FRAMES_PER_SHARD, SHARDS, VIDEOS, VIEWS, K, build_small, refusal, tree


def test_small_store_has_what_the_tests_need(small_store: Path) -> None:
    manifest = load_manifest(small_store)
    assert sorted(manifest.shards) == SHARDS
    assert sum(record.frames for record in manifest.shards.values()) == sum(VIDEOS.values())
    assert all(record.clips for record in manifest.shards.values())
    assert manifest.shards["train-00000"].frames >= FRAMES_PER_SHARD


def test_every_frame_is_the_source_frame_encoded(small_root: Path, small_store: Path) -> None:
    for name in SHARDS:
        shard = zarr.open_group(small_store / "shards" / name, mode="r")
        stream, offsets = shard["frames/bytes"][:].tobytes(), shard["frames/offsets"][:]
        row = 0
        for video in pq.read_table(small_store / "shards" / name / "videos.parquet").to_pylist():
            for frame in open_frames(small_root / video["path"]):
                assert stream[offsets[row] : offsets[row + 1]] == encode_frame(frame, "jpeg:95")
                row += 1
        assert row == len(offsets) - 1 == shard["frames/crc32c"].shape[0]


def test_a_shard_records_how_each_video_was_decoded(small_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "d"
    images = root / "frames" / "Run" / "b"
    images.mkdir(parents=True)
    for number, picture in enumerate(moving_square(K)):
        Image.fromarray(picture).save(images / f"{number}.png")
    write_video(root / "videos" / "Run" / "a.avi", moving_square(K))
    write_own(root, tube_rows("Run/a", 1, K) + tube_rows("Run/b", 1, K))
    build_small(root, tmp_path / "s")
    notes = zarr.open_group(tmp_path / "s" / "shards" / "train-00000", mode="r").attrs["videos"]
    assert {note["video_id"]: note["decoder"] for note in notes} == {"Run/a": "pyav", "Run/b": "images"}


def test_raw_frames_are_lossless(small_root: Path, tmp_path: Path) -> None:
    build_small(small_root, tmp_path / "raw", split="test", frames="raw")
    shard = zarr.open_group(tmp_path / "raw" / "shards" / "test-00000", mode="r")
    offsets, stream = shard["frames/offsets"][:], shard["frames/bytes"][:]
    frames = [f for v in ("t_0", "t_1") for f in open_frames(small_root / "videos" / "Jump" / f"{v}.avi")]
    assert all(np.array_equal(stream[a:b], f.ravel()) for f, a, b in zip(frames, offsets, offsets[1:], strict=False))


def test_max_side_shrinks_frames_and_boxes(small_root: Path, small_store: Path, tmp_path: Path) -> None:
    build_small(small_root, tmp_path / "s", split="test", max_side=32)
    folder = tmp_path / "s" / "shards" / "test-00000"
    videos = pq.read_table(folder / "videos.parquet").to_pylist()
    assert {(v["width"], v["height"]) for v in videos} == {(32, 24)}
    whole = pq.read_table(small_store / "shards" / "test-00000" / "tubes.parquet")["boxes"][0].as_py()
    half = pq.read_table(folder / "tubes.parquet")["boxes"][0].as_py()
    assert np.allclose(np.array(whole) / 2, np.array(half))


def test_targets_do_not_depend_on_how_many_clips_are_in_memory(
    small_root: Path, small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "CLIPS_AT_ONCE", 3)
    build_small(small_root, tmp_path / "s")
    assert tree(tmp_path / "s") == tree(small_store)


def test_clips_and_rows_fit_together(small_store: Path) -> None:
    for name in SHARDS:
        shard = zarr.open_group(small_store / "shards" / name, mode="r")
        clips = shard["clips/video"].shape[0]
        assert shard["views/rectangle"].shape == (clips, 1 + VIEWS, 4)
        offsets, prior, label = (shard[f"targets/{n}"][:] for n in ("offsets", "prior", "label"))
        assert offsets.shape == (clips * (1 + VIEWS) + 1,)
        assert offsets[0] == 0
        assert offsets[-1] == len(prior) == shard["targets/loc"].shape[0]
        assert (np.diff(offsets) >= 1).all()  # the first stage of the matching finds every tube a prior
        firsts = np.cumsum([0, *pq.read_table(small_store / "shards" / name / "videos.parquet")["frames"].to_pylist()])
        video, row, frame = (shard[f"clips/{n}"][:] for n in ("video", "first_row", "first_frame"))
        assert np.array_equal(row, firsts[video] + frame)
        assert (row + K <= firsts[video + 1]).all()
        assert set(label.tolist()) <= {1, 2, 255}


def test_types_are_those_of_the_layout(small_store: Path) -> None:
    shard = zarr.open_group(small_store / "shards" / "train-00000", mode="r")
    assert {name: str(shard[name].dtype) for name in ARRAYS} == {name: kind for name, (kind, _) in ARRAYS.items()}


def test_metadata_are_what_zarr_itself_writes(small_store: Path) -> None:
    for name, group in (("frames/bytes", "frames"), ("targets/loc", "targets"), ("views/kept", "views")):
        folder = small_store / "shards" / "train-00000"
        ours = zarr.open_array(folder / name, mode="r")
        memory = zarr.storage.MemoryStore()
        zarr.create_array(
            memory,
            shape=ours.shape,
            dtype=ours.dtype,
            chunks=ours.chunks,
            shards=ours.shards,
            compressors=None,
            fill_value=0,
        )
        theirs = zarr.open_array(memory, mode="r")
        assert ours.metadata == theirs.metadata
        assert zarr.open_group(folder / group, mode="r").metadata == zarr.create_group({}).metadata


def test_a_shard_without_clips(tmp_path: Path) -> None:
    write_own(tmp_path / "d", tube_rows("Run/a", 1, K - 1))
    write_video(tmp_path / "d" / "videos" / "Run" / "a.avi", moving_square(K))
    build_small(tmp_path / "d", tmp_path / "s")
    shard = zarr.open_group(tmp_path / "s" / "shards" / "train-00000", mode="r")
    assert shard["targets/loc"].shape == (0, K, 4)
    assert shard["clips/video"].shape == (0,)


def test_frames_that_change_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_own(tmp_path / "d", tube_rows("Run/a", 1, 6))
    write_video(tmp_path / "d" / "videos" / "Run" / "a.avi", moving_square(8))

    def changing(source: FrameSource) -> Iterator[Picture]:
        return map(Picture, [*moving_square(4), *moving_square(4, width=80)])

    monkeypatch.setattr(FrameSource, "pictures", changing)
    message = refusal(build_small, tmp_path / "d", tmp_path / "s")
    assert "Run/a changes its frame size at frame 4" in message
    assert "80 x 48" in message
    assert not list((tmp_path / "s").glob(".building/*"))


STRANGER = """
import importlib.util, io, sys
for name in ("data_manifests", "pipeline", "trainer", "torch", "av", "cv2", "simplejpeg"):
    assert importlib.util.find_spec(name) is None, name
import numpy as np, zarr, pyarrow.parquet as pq
from PIL import Image
store, video_id, frame = sys.argv[1], sys.argv[2], int(sys.argv[3])
root = zarr.open_group(store, mode="r")
assert root.attrs["format_version"] == 1
K = root.attrs["settings"]["K"]
shard = zarr.open_group(store + "/shards/train-00000", mode="r")
note = next(n for n in shard.attrs["videos"] if n["video_id"] == video_id)
row = note["first_row"] + frame
begin, end = shard["frames/offsets"][row : row + 2]
image = np.asarray(Image.open(io.BytesIO(shard["frames/bytes"][begin:end].tobytes())))
view = 0
clip = int(np.flatnonzero(shard["clips/first_row"][:] == row)[0])
r = clip * shard["views/mirrored"].shape[1] + view
begin, end = shard["targets/offsets"][r : r + 2]
best = begin + shard["targets/overlap"][begin:end].argmax()
prior = root["priors"][int(shard["targets/prior"][best])]
loc = shard["targets/loc"][int(best)]
v = root.attrs["settings"]["variances"]
centre, size = (prior[:2] + prior[2:]) / 2, prior[2:] - prior[:2]
middle, extent = centre + loc[:, :2] * v[:2] * size, size * np.exp(loc[:, 2:] * v[2:])
boxes = np.concatenate([middle - extent / 2, middle + extent / 2], 1) * np.tile(image.shape[1::-1], 2)
tubes = pq.read_table(store + "/tables/tubes.parquet").to_pylist()
tube = next(t for t in tubes if t["video_id"] == video_id and t["tube"] == int(shard["targets/tube"][int(best)]))
truth = np.array(tube["boxes"])[frame - tube["first_frame"] :][:K]
assert boxes.shape == (K, 4) and np.abs(boxes - truth).max() < 0.01, (boxes, truth)
print(image.shape, image.mean())
"""


def plain_environment(folder: Path, *wanted: str) -> Path:
    """The Python of a virtual environment that has these distributions, what they need, and nothing else."""
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    here = {canonicalize_name(d.metadata["Name"]): d for d in importlib.metadata.distributions()}
    needed, open_ones = set(), [canonicalize_name(name) for name in wanted]
    while open_ones:
        name = open_ones.pop()
        if name not in needed:
            needed.add(name)
            required = map(Requirement, here[name].requires or ())
            open_ones += [
                canonicalize_name(r.name) for r in required if not r.marker or r.marker.evaluate({"extra": ""})
            ]
    for name in needed:
        for top in {file.parts[0] for file in here[name].files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (packages / top).exists():
                (packages / top).symlink_to(here[name].locate_file(top))
    return folder / "bin" / "python"


def test_opens_with_zarr_and_pyarrow_alone(small_root: Path, small_store: Path, tmp_path: Path) -> None:
    python = plain_environment(tmp_path / "venv", "zarr", "pyarrow", "pillow")
    command = [python, "-I", "-c", STRANGER, str(small_store), "Run/v_0", "3"]
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    frames = list(open_frames(small_root / "videos" / "Run" / "v_0.avi"))
    shape, mean = out.stdout.rsplit(" ", 1)
    assert shape == "(48, 64, 3)"
    seen = simplejpeg.decode_jpeg(encode_frame(frames[3], "jpeg:95"), colorspace="RGB").mean()
    assert abs(float(mean) - seen) < 0.5
