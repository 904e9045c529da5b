"""Whole or not at all: what `write_atomically` leaves, and what `remove_unfinished` takes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from data_manifests.manifest import is_unfinished, remove_unfinished, write_atomically


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder" / "file.json"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        write_atomically(path, b"new")
    assert [(one.name, one.read_bytes()) for one in path.parent.iterdir()] == [("file.json", b"old")]


def test_two_processes_never_share_a_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real, seen = tmp_path / "file", os.replace, []

    def replace(source: Path, target: Path) -> None:
        seen.append(source)
        if len(seen) == 1:
            monkeypatch.setattr(os, "getpid", lambda: 1)
            write_atomically(path, b"theirs")
            assert path.read_bytes() == b"theirs"
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    write_atomically(path, b"ours")
    assert path.read_bytes() == b"ours"
    assert len(set(seen)) == 2
    assert all(is_unfinished(source) for source in seen)
    assert list(tmp_path.iterdir()) == [path]


def test_only_what_a_kill_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    strangers = [tmp_path / name for name in (".mine.new", "a.1.new", "deep/.hidden", "deep/whole")]
    for path in [*strangers, tmp_path / ".manifest.json.12.new", tmp_path / "deep/.v_01.npz.7.new"]:
        path.write_bytes(b"")
    remove_unfinished(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(strangers)
