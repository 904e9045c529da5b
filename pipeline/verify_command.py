"""`python -m pipeline verify`: says what is wrong in a store, wherever it lies, and mends it if asked to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from data_manifests.card import load_card
from data_manifests.errors import InputError
from data_manifests.object_store import ObjectStore
from data_manifests.place import is_url
from pipeline.decoding import Decoding
from pipeline.summary import reading_progress
from pipeline.verify import FOREIGN, Finding, repair, verify
from pipeline.verify_remote import repair_remote, verify_remote

SHALLOW = " (sizes and small files; --deep reads every byte)"


def verify_place(
    place: str,
    *,
    deep: bool,
    mend: bool,
    dataset: str | None,
    root: Path | None,
    scratch: Path | None,
    workers: int,
    decoding: Decoding,
) -> None:
    """Prints what is wrong in a store.

    Args:
        place: its folder or URL.
        deep: reads every byte, as `mend` does.
        mend: builds damaged shards again from `dataset` and `root`, or puts what is damaged anew from `scratch` if the
            store has a URL.

    Raises:
        InputError: something is wrong, still; or what `mend` needs is not given.
    """
    if is_url(place):
        remote = ObjectStore(place)
        if mend and scratch is None:
            raise InputError("--repair puts a remote store's files anew", wanted="--scratch", todo="add it")
        _verify(
            place, lambda: verify_remote(remote, deep=deep or mend), "--scratch", deep or mend,
            (lambda findings: repair_remote(remote, scratch, findings)) if mend and scratch else None,
        )  # fmt: skip
        return
    if (dataset is None) != (root is None):
        raise InputError("one of --dataset and --root alone", wanted="both, or none", todo="add the other")
    store, source = Path(place), (load_card(dataset), root) if dataset and root else None

    def find() -> list[Finding]:
        with reading_progress() as progress:
            return verify(store, deep=deep or mend, progress=progress)

    _verify(
        place, find, "--dataset and --root", deep or mend,
        (lambda findings: repair(store, source, findings, workers=workers, decoding=decoding)) if mend else None,
    )  # fmt: skip


def _verify(
    place: str,
    find: Callable[[], list[Finding]],
    source: str,
    deep: bool,
    mend: Callable[[list[Finding]], list[str]] | None,
) -> None:
    findings = find()
    for finding in findings:
        click.echo(str(finding))
    if findings and mend is not None:
        for line in mend(findings):
            click.echo(line)
        findings = find()
    wrong = [finding for finding in findings if finding.what != FOREIGN]  # which harms nobody: a .DS_Store, notes
    if wrong and all(finding.planned for finding in wrong):
        raise InputError(
            f"the store at {place} is not finished", found="nothing wrong in what is there" + ("" if deep else SHALLOW),
            todo="run its build again: it goes on from there",
        )  # fmt: skip
    if wrong:
        needed = f" and {source}" if is_url(place) or any(finding.shard for finding in wrong) else ""
        raise InputError(
            f"the store at {place} is damaged", found=f"{len(wrong)} findings", wanted="none",
            todo=f"run verify with --repair{needed}" if mend is None else "build it again in another place",
        )  # fmt: skip
    click.echo(f"nothing wrong at {place}" + ("" if deep else SHALLOW))
