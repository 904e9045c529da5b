"""Training from a URL gives what training from the folder gives; the command lines take URLs."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from data_manifests.errors import InputError
from data_manifests.object_store import ObjectStore
from pipeline.upload import upload
from trainer import evaluate, run
from trainer.data.cached import open_place
from trainer.data.loader import Loader
from trainer.evaluation import open_store
from trainer.place import Remote, place_of


def test_a_run_streams_the_same_batches_from_a_url(s3: str, tiny_store: Path, tmp_path: Path) -> None:
    upload(tiny_store, ObjectStore(f"{s3}/tiny"))
    place = place_of(f"{s3}/tiny/", tmp_path / "cache", 1.5)
    assert place == Remote(f"{s3}/tiny", tmp_path / "cache", 1_500_000_000)
    here, there = (
        itertools.islice(Loader(open_place(store, "train"), seed=1, global_batch=4, workers=workers), 4)
        for store, workers in ((tiny_store, 0), (place, 1))
    )
    for ours, theirs in zip(here, there, strict=True):
        assert ours.clips == theirs.clips
        assert torch.equal(ours.frames, theirs.frames)
        assert torch.equal(ours.loc, theirs.loc)
    store, split = open_store(place, None)
    assert (store.videos.num_rows, split) == (2, "train")


@pytest.mark.parametrize("command", [run.cli, evaluate.cli])
def test_a_url_needs_a_cache(command: object, tmp_path: Path) -> None:
    options = ["--preset", "demo", "--out"] if command is run.cli else ["--checkpoint"]
    result = CliRunner().invoke(command, ["--store", "s3://bucket/store", *options, str(tmp_path / "x")])
    assert isinstance(result.exception, InputError)
    assert "--cache DIR" in str(result.exception)
