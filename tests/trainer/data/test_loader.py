"""Batches hold what the store has of their clips; errors name the clip and end the run."""

import itertools
import pickle
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from data_manifests.layout import IGNORED
from tests.oracles.order import samples
from tests.pipeline.own_data import moving_square, tube_rows, write_own, write_video
from tests.pipeline.small_store import VIEWS, K, build_small, refusal
from trainer.data.batch import Batch
from trainer.data.cached import open_place
from trainer.data.loader import Loader
from trainer.data.reader import Store
from trainer.data.resample import resample
from trainer.data.share import Share, Views

BATCH = 12
SHARE = Share(2, rank=0, ranks=1, start=0, parts=1)


def take(store: Path, steps: int, **options: int) -> list[Batch]:
    """The first batches of a rank."""
    return list(itertools.islice(Loader(open_place(store, "train"), seed=3, global_batch=BATCH, **options), steps))


def test_batches_are_the_oracles(small_store: Path) -> None:
    store = Store.open(small_store, "train")
    expected = samples(3, store.clips, VIEWS)
    for batch in take(small_store, store.clips // BATCH + 2):
        for place in range(BATCH):
            clip, view, _ = next(expected)
            sample = store.sample(clip, view)
            assert batch.clips[place] == (sample.video_id, sample.first_frame, view)
            picture = resample(sample.frames, sample.rectangle, sample.mirrored, store.meta.image_size)
            assert np.array_equal(batch.frames[place].numpy(), picture)
            positive = sample.targets.label != IGNORED
            here, ignored = batch.sample == place, batch.ignored_sample == place
            assert batch.positives[place] == positive.sum() == here.sum()
            for name in ("prior", "label", "loc"):
                assert np.array_equal(getattr(batch, name)[here].numpy(), getattr(sample.targets, name)[positive])
            assert np.array_equal(batch.ignored_prior[ignored].numpy(), sample.targets.prior[~positive])
        rows = torch.stack([batch.sample, batch.prior], 1).tolist()
        assert rows == sorted(rows)
        assert batch.frames.shape == (BATCH, K, 300, 300, 3)


def test_parts_of_a_share(small_store: Path) -> None:
    whole, parts = take(small_store, 2, ranks=2, rank=1), take(small_store, 6, ranks=2, rank=1, parts=3)
    for step in range(2):
        assert whole[step].clips == sum((part.clips for part in parts[3 * step : 3 * step + 3]), ())


def test_a_batch_that_does_not_divide(small_store: Path) -> None:
    assert "a batch of 12 clips on 5 ranks" in refusal(take, small_store, 1, ranks=5)


def test_a_store_without_clips(tmp_path: Path) -> None:
    write_own(tmp_path / "d", tube_rows("Run/a", 1, K - 1))
    write_video(tmp_path / "d" / "videos" / "Run" / "a.avi", moving_square(K))
    build_small(tmp_path / "d", tmp_path / "s")
    assert "have no clip" in refusal(take, tmp_path / "s", 1)


def test_the_runs_random_state_is_left_alone(small_store: Path) -> None:
    before = torch.get_rng_state()
    take(small_store, 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_pinned_batch_outlives_the_memory_that_its_pixels_came_in(
    small_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy to a GPU may be under way long after the batch was asked for; a worker writes to its slot again by then."""
    loader = Loader(Store.open(small_store, "train"), seed=3, global_batch=BATCH, pin=True)
    slot = torch.empty(loader._shape, dtype=torch.uint8)

    def from_one_slot():  # type: ignore[no-untyped-def]
        for number in itertools.count():
            yield slot, loader._views.read(number, slot.numpy())

    pinned: list[int] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:  # what `pin_memory` does where there is page-locked memory
        pinned.append(tensor.data_ptr())
        return tensor.clone()

    monkeypatch.setattr(loader, "_read_here", from_one_slot)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    batches = list(itertools.islice(loader, 3))
    assert pinned.count(slot.data_ptr()) == 3
    for batch, plain in zip(batches, take(small_store, 3), strict=True):
        assert torch.equal(batch.frames, plain.frames)
    tensors = [value for value in vars(batches[0]).values() if isinstance(value, torch.Tensor)]
    assert len(pinned) == 3 * len(tensors), "all that is copied"


def test_a_worker_gets_the_place_of_the_store_and_no_more(small_store: Path) -> None:
    views = Views(Store.open(small_store, "train"), 0, SHARE)
    assert len(pickle.dumps(views)) < 2000


@pytest.mark.parametrize("workers", [0, 1])
def test_damage_ends_the_run_with_the_clips_name(small_store: Path, tmp_path: Path, workers: int) -> None:
    store = tmp_path / "s"
    shutil.copytree(small_store, store)
    path = store / "shards/train-00000/frames/bytes/c/0"
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    message = refusal(take, store, 30, workers=workers)
    assert "shards/train-00000/frames, row" in message
    assert "of video Run/v_0" in message


def test_a_worker_needs_no_torch(small_store: Path) -> None:
    """It would take three times as long to start, and three times the memory. tests/test_help.py keeps torch out of the commands' mains."""
    done = """
        import sys
        from pathlib import Path
        import numpy as np
        from trainer.data import worker
        from trainer.data.reader import Store
        from trainer.data.share import Share, Views
        views = Views(Store.open(Path(sys.argv[1]), "train"), 0, Share(1, 0, 1, 0, 1))
        views.read(0, np.empty((1, int(sys.argv[2]), 300, 300, 3), np.uint8))
        print("torch" in sys.modules)
    """
    command = [sys.executable, "-c", textwrap.dedent(done), str(small_store), str(K)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_store_that_changed_since_the_run_began(small_store: Path) -> None:
    views = Views(Store.open(small_store, "train"), 0, SHARE)
    pixels = np.empty((SHARE.size, K, 300, 300, 3), np.uint8)
    there = pickle.loads(pickle.dumps(views))
    assert there.read(0, pixels).clips == views.read(0, pixels).clips
    there = pickle.loads(pickle.dumps(views))
    there.digest = "of the store as it was"
    assert "changed while it was opened" in refusal(there.read, 0, pixels)
