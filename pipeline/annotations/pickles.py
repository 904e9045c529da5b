"""Reads pickles that hold plain containers and numpy arrays of numbers or text, and refuses all others.

numpy's own unpickling functions are not called with what the file says: an object array over a buffer of the file's
bytes is a wild pointer, and a dtype's state can be set to nonsense. The pure Python unpickler is used because the one
in C fills a table as large as the largest number that a file names. What a file names again and again (a tuple of a
tuple twice, of a tuple twice ...) must not be hashed, printed or copied as often.
"""

from __future__ import annotations

import io
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from data_manifests.errors import InputError

MOST_COPIES = 4
"""Bytes that are made of the file's own, for each of them: an array's content is there once, and copied once or twice."""
_PLAIN_TYPES = re.compile(r"b1|[iu][1248]|f[248]|[US][0-9]{1,5}")


class _DType:
    """Stands for a numpy dtype until its byte order is known."""

    def __init__(self, name: str, align: object = False, copy: object = False) -> None:
        if not _PLAIN_TYPES.fullmatch(name):
            raise pickle.UnpicklingError(f"it asks for an array of {name!r}")
        self.numpy: np.dtype[Any] = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("it asks for another byte order than there are")
        self.numpy = self.numpy.newbyteorder(state[1])


class _Array:
    """Stands for a numpy array until its content is known."""

    def __init__(self, *_: object) -> None:
        self.numpy: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        self.numpy = _array(content, dtype, shape, "F" if fortran else "C")


def _array(
    content: bytes | bytearray | str, dtype: _DType, shape: tuple[int, ...], order: Literal["C", "F"]
) -> np.ndarray:
    if isinstance(content, str):  # of Python 2
        content = content.encode("latin1")
    flat = np.frombuffer(content, dtype.numpy) if content else np.zeros(0, dtype.numpy)
    return flat.reshape(shape, order=order).copy()


def _scalar(dtype: _DType, content: bytes | bytearray | str) -> Any:
    return _array(content, dtype, (1,), "C")[0]


def _encode(text: str, encoding: object) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError("it asks for another encoding than latin1")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


_ADMITTED: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _encode,  # how protocol 2 writes bytes
    ("__builtin__", "bytes"): _no_bytes,  # and no bytes
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): None,  # only named, as the first argument of _reconstruct
}
for _core in ("numpy.core", "numpy._core"):
    _ADMITTED[f"{_core}.multiarray", "_reconstruct"] = _Array
    _ADMITTED[f"{_core}.multiarray", "scalar"] = _scalar
    _ADMITTED[f"{_core}.numeric", "_frombuffer"] = _array  # how protocol 5 writes arrays


_Unpickler: Any = pickle._Unpickler


def _with_plain_keys(load: Callable[[Any], None], keys: slice) -> Callable[[Any], None]:
    """An opcode's function that looks at the keys, which are so far on the stack, before they are hashed."""

    def checked(self: Any) -> None:
        for key in self.stack[keys]:
            if not isinstance(key, str | bytes | int | np.generic):
                raise pickle.UnpicklingError(f"it has a {type(key).__name__} as a key")
        load(self)

    return checked


class _PlainUnpickler(_Unpickler):
    dispatch: ClassVar[Any] = dict(_Unpickler.dispatch)

    def __init__(self, content: bytes) -> None:
        # of a BytesIO it reads no more than there is, whatever lengths the file names
        super().__init__(io.BytesIO(content), encoding="latin1")
        self._left = MOST_COPIES * len(content)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ADMITTED[module, name]

    def load_build(self) -> None:
        if not isinstance(self.stack[-2], _Array | _DType):
            raise pickle.UnpicklingError("it sets the state of something else than an array")
        super().load_build()
        self._spend()

    def load_reduce(self) -> None:
        super().load_reduce()
        self._spend()

    def _spend(self) -> None:
        """What was made last takes memory."""
        made = self.stack[-1].numpy if isinstance(self.stack[-1], _Array) else self.stack[-1]
        self._left -= len(made) if isinstance(made, bytes) else getattr(made, "nbytes", 0)
        if self._left < 0:
            raise pickle.UnpicklingError("its arrays take more bytes than it has")

    def load_instance(self) -> None:
        """No plain content is written so."""
        raise pickle.UnpicklingError("it asks for an instance of a class")

    def load_bytearray8(self) -> None:
        """The original makes an array as long as the file says before it reads."""
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(length)))

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8
    for _opcode in (pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX):
        dispatch[_opcode[0]] = load_instance
    for _opcode, _keys in (
        (pickle.SETITEM, slice(-2, -1)), (pickle.SETITEMS, slice(0, None, 2)), (pickle.DICT, slice(0, None, 2)),
        (pickle.ADDITEMS, slice(None)), (pickle.FROZENSET, slice(None)),
    ):  # fmt: skip
        dispatch[_opcode[0]] = _with_plain_keys(dispatch[_opcode[0]], _keys)


def _finished(value: Any, done: dict[int, Any]) -> Any:
    """The value with numpy arrays in the place of what stands for them; `done` has the containers by id."""
    if isinstance(value, _Array):
        return value.numpy
    if isinstance(value, dict | list | tuple) and id(value) not in done:
        if isinstance(value, dict):
            done[id(value)] = {key: _finished(item, done) for key, item in value.items()}
        else:
            done[id(value)] = type(value)(_finished(item, done) for item in value)
    return done.get(id(value), value)


def load_plain_pickle(path: Path) -> Any:
    """The pickle's object. Python 2 strings are read as latin-1, as numpy wants.

    Raises:
        InputError: it asks for anything but plain containers and numpy arrays of numbers or text, or is damaged.
    """
    try:
        return _finished(_PlainUnpickler(path.read_bytes()).load(), {})
    except (
        pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError,
        AssertionError, MemoryError, NameError, RecursionError, struct.error,
    ) as error:  # fmt: skip
        raise InputError(
            f"{path} is refused",
            found=str(error) or type(error).__name__,
            wanted="a whole pickle of plain containers and numpy arrays of numbers or text",
            todo="fetch the annotation file again from its source",
        ) from error
