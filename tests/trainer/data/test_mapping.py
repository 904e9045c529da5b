"""A mapped file: its bytes, held as long as the array is, never written, never read past its end."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from data_manifests.errors import InputError
from trainer.data.mapping import map_file


def _mapped(path: Path) -> int:
    return Path("/proc/self/maps").read_text().count(str(path))


@pytest.mark.parametrize("size", [1, 4096, 10_000])
def test_its_bytes(size: int, tmp_path: Path) -> None:
    content = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    (tmp_path / "file").write_bytes(content.tobytes() + b"more")
    mapped = map_file(tmp_path / "file", size)
    np.testing.assert_array_equal(mapped, content)
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 0
    with pytest.raises(ValueError, match="WRITEABLE"):
        mapped.flags.writeable = True


def test_it_is_mapped_while_a_view_is_held_and_without_a_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 64)
    before = len(os.listdir("/proc/self/fd"))
    view = map_file(path, 256 * 64).view("<u4").reshape(64, 64)[3:, 5]
    gc.collect()
    assert _mapped(path) == 1
    assert len(os.listdir("/proc/self/fd")) <= before
    path.unlink()
    assert view[0] == 0x17161514
    del view
    gc.collect()
    assert _mapped(path) == 0


def test_what_cannot_be_mapped(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"abc")
    with pytest.raises(InputError, match=r"short was cut off\n.*3 bytes"):
        map_file(tmp_path / "short", 4)
    with pytest.raises(FileNotFoundError):
        map_file(tmp_path / "none", 4)
    with pytest.raises(OSError, match="short"):
        map_file(tmp_path / "short", 0)
