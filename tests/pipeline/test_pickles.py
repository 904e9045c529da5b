"""Annotation pickles: numpy arrays of numbers and text and plain containers come through, nothing else does."""

import os
import pickle
import pickletools
import random
import resource
from pathlib import Path

import numpy as np
import pytest

from data_manifests.errors import InputError
from pipeline.annotations.pickles import load_plain_pickle

PLAIN = {
    "A/v": {
        "numf": np.uint8(10),
        "label": np.str_("Run"),
        "annotations": [{"boxes": np.arange(20, dtype=">i2").reshape(5, 4), "sf": 0, "ef": 5}],
        "more": (None, True, 2.5, b"\xff", b"", np.zeros((0, 4), np.float32), np.asfortranarray(np.eye(3))),
    }
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_content_comes_back_equal(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "plain.pkl"
    path.write_bytes(pickle.dumps(PLAIN, protocol))
    video = load_plain_pickle(path)["A/v"]
    assert video["numf"] == 10
    assert isinstance(video["numf"], np.uint8)
    assert video["label"] == "Run"
    np.testing.assert_array_equal(video["annotations"][0]["boxes"], np.arange(20).reshape(5, 4))
    assert video["more"][:5] == PLAIN["A/v"]["more"][:5]
    assert video["more"][5].shape == (0, 4)
    np.testing.assert_array_equal(video["more"][6], np.eye(3))
    assert all(type(array) is np.ndarray for array in video["more"][5:])


class _Runs:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


NDARRAY = b"cnumpy\nndarray\n"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n" + NDARRAY + b"K\x00\x85C\x01b\x87R"
DOUBLED = b")q\x000" + b"".join(b"(h%ch%ctq%c0" % (level - 1, level - 1, level) for level in range(1, 60))
"""Memo 59 is a tuple of memo 58 twice, and so on: 2^59 leaves."""
HOSTILE = {
    "a shell command": (pickle.dumps(_Runs(os.system, "touch {mark}")), r"posix\.system"),
    "an evaluation": (pickle.dumps(_Runs(eval, "open('{mark}', 'w')")), r"builtins\.eval"),
    "an attribute path": (b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.fill\x93.", r"numpy\.ndarray\.fill"),
    "an object array": (pickle.dumps(np.array([object], dtype=object)), r"array of 'O8'"),
    "a wild pointer": (b"\x80\x03" + NDARRAY + b"(K\x01\x85X\x01\x00\x00\x00OC\x08AAAAAAAAtR.", "NoneType"),
    "a wild pointer, set": (
        b"\x80\x03"
        + RECONSTRUCT
        + b"(K\x01K\x01\x85cnumpy\ndtype\nX\x02\x00\x00\x00O8K\x00K\x01\x87R\x89C\x08AAAAAAAAtb.",
        r"array of 'O8'",
    ),
    "8 GB of zeros": (b"\x80\x02" + NDARRAY + b"(J\x00\x00\x00\x40tR.", "NoneType"),
    "a table of 17 GB": (b"\x80\x02]r\xff\xff\xff\x3f0" + NDARRAY + b"(tR.", "NoneType"),
    "an array of 4 GB": (b"\x80\x05\x96\x00\x00\x00\x00\x01\x00\x00\x00abc0" + NDARRAY + b"(tR.", "whole pickle"),
    "state set on a function": (
        b"\x80\x02cnumpy.core.multiarray\nscalar\n}X\x01\x00\x00\x00aK\x01sb.",
        "sets the state",
    ),
    "a key that is hashed for ever": (b"\x80\x02" + DOUBLED + b"}h\x3bK\x01s.", "a tuple as a key"),
    "keys that are hashed for ever": (b"\x80\x02" + DOUBLED + b"}(h\x3bK\x01h\x3bK\x01u.", "a tuple as a key"),
    "a set that is hashed for ever": (b"\x80\x04" + DOUBLED + b"\x8f(h\x3b\x90.", "a tuple as a key"),
    "an old dict": (b"\x80\x02" + DOUBLED + b"(h\x3bK\x01d.", "a tuple as a key"),
    "an encoding that is hashed for ever": (
        b"\x80\x02" + DOUBLED + b"c_codecs\nencode\nX\x01\x00\x00\x00ah\x3b\x86R.",
        "another encoding",
    ),
    "a byte order that is printed for ever": (
        b"\x80\x02" + DOUBLED + b"cnumpy\ndtype\nX\x02\x00\x00\x00u1\x85R(K\x03h\x3btb.",
        "another byte order",
    ),
    "a buffer in many arrays": (
        b"\x80\x04B\x00\x00\x08\x00"
        + bytes(1 << 19)
        + b"q\x000cnumpy\ndtype\n(X\x02\x00\x00\x00u1tRq\x010("
        + (RECONSTRUCT + b"(K\x01J\x00\x00\x08\x00\x85h\x01\x89h\x00tb") * 2000
        + b"t.",
        "more bytes than it has",
    ),
    "a text encoded many times": (
        b"\x80\x02X\x00\x00\x08\x00"
        + b"a" * (1 << 19)
        + b"q\x000("
        + b"c_codecs\nencode\nh\x00U\x06latin1\x86R" * 2000
        + b"t.",
        "more bytes than it has",
    ),
    "arrays made by another opcode": (b"(S'a'\nS'latin1'\ni_codecs\nencode\n.", "an instance"),
    "a structured type": (pickle.dumps(np.zeros(2, [("a", "i4")])), "array of 'V4'"),
    "a persistent id": (b"\x80\x02X\x01\x00\x00\x00aQ.", "persistent"),
    "an extension code": (b"\x80\x02\x82\x07.", "extension"),
    "its head only": (pickle.dumps(PLAIN)[:60], "Ran out of input|truncated|exhausted|expected"),
    "no pickle": (b"video,tube,class\n", "whole pickle"),
    "nothing": (b"", "whole pickle"),
    "a very deep list": (b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", "recursion"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_or_damaged_files_are_refused_before_anything_runs(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, why = HOSTILE[kind]
    mark = tmp_path / "mark"
    path = tmp_path / "hostile.pkl"
    path.write_bytes(content.replace(b"{mark}", b"./mark"))  # of equal length, as the pickle's own counts want
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=why) as error:
        load_plain_pickle(path)
    assert "hostile.pkl is refused" in str(error.value)
    assert not mark.exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, "kB"


def test_shared_lists_are_not_multiplied(tmp_path: Path) -> None:
    """60 levels of a list that holds the one below twice: 2^60 leaves, 120 references."""
    nested: list[object] = []
    for _ in range(60):
        nested = [nested, nested]
    path = tmp_path / "shared.pkl"
    path.write_bytes(pickle.dumps(nested, 2))
    loaded = load_plain_pickle(path)
    assert loaded[0] is loaded[1]


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_flipped_bytes_are_refused_or_harmless(protocol: int, tmp_path: Path) -> None:
    whole = pickle.dumps(PLAIN, protocol)
    path = tmp_path / "flipped.pkl"
    draw = random.Random(protocol)
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(draw.choice([1, 1, 2, 5])):
            content[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(content)
        try:
            load_plain_pickle(path)
        except InputError:
            continue


def test_the_samples_are_what_they_say() -> None:
    """Each hand-written pickle is one that pickletools can read to its end."""
    for kind in ("a wild pointer", "a wild pointer, set", "8 GB of zeros", "a table of 17 GB"):
        assert [opcode.name for opcode, _, _ in pickletools.genops(HOSTILE[kind][0])][-1] == "STOP"
