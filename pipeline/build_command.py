"""`python -m pipeline build`: builds a store in a folder, and uploads it if it has a URL."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from data_manifests.errors import InputError
from data_manifests.object_store import ObjectStore
from data_manifests.place import is_url
from pipeline.alignment import measure_alignment
from pipeline.build import build, present_manifest
from pipeline.cluster import dask_cluster
from pipeline.decoding import Decoding
from pipeline.plan_command import plan_of
from pipeline.stored import built_shards
from pipeline.summary import build_progress, measuring, print_build, print_motion, print_oddities
from pipeline.upload import check_same_store, upload


def build_at(
    place: str,
    scratch: Path | None,
    options: dict[str, Any],
    *,
    workers: int,
    scheduler: str | None,
    quiet: bool,
    decoding: Decoding,
) -> None:
    """Builds what a store lacks, says what was built, and whether its boxes lie where its frames move.

    Args:
        place: its folder or URL.
        scratch: folder that a store at a URL is built in.
        options: of `pipeline.options.what_to_build`.
        workers: processes, where there is no `scheduler` of a Dask cluster.
        quiet: shows no progress.

    Raises:
        InputError: a URL without a scratch folder; as `plan_of`, `build`, `dask_cluster` and `upload`.
    """
    store, remote = _folder_and_remote(place, scratch)
    present = present_manifest(store)
    if remote is not None:
        check_same_store(present, remote)  # before the work, not after it
    plan, card, root = plan_of(options, look_for_videos=True, present=present)
    with dask_cluster(scheduler) if scheduler else nullcontext() as executor:
        if executor is not None:  # the workers have folders of their own
            root, store = root.absolute(), store.absolute()
        with build_progress(quiet or not sys.stderr.isatty()) as progress:
            built = build(
                plan, card, root, store, workers=workers, executor=executor, progress=progress, decoding=decoding
            )
    print_build(built, store)
    if built.shards:
        print_oddities(plan)
        with measuring():
            alignment = measure_alignment(list(built_shards(store)))
        print_motion(alignment.summary, alignment.warnings)
    if remote is not None:
        shards = upload(store, remote, lambda name, size: click.echo(f"uploaded {name}, {size / 1e6:,.1f} MB"))
        told = f"uploaded {shards} shard{'s' * (shards > 1)}" if shards else "nothing to upload"
        click.echo(f"{told}: {remote.url}")


def _folder_and_remote(place: str, scratch: Path | None) -> tuple[Path, ObjectStore | None]:
    if not place:
        raise InputError(
            "--store is empty",
            wanted="a folder, or s3://BUCKET/PREFIX",
            todo="see whether the variable it comes from is set",
        )
    if not is_url(place):
        return Path(place), None
    if scratch is None:
        raise InputError(
            f"a store at {place} is built in a folder first", wanted="--scratch DIR, with room for all of it",
            todo="add it",
        )  # fmt: skip
    return scratch, ObjectStore(place)
