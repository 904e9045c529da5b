"""Pickles as Python 2's numpy wrote them: text is bytes of latin-1, so is an array's content, and numpy's core is `numpy.core`."""

import io
import pickle
import struct
from typing import Any, ClassVar

_Pickler: Any = pickle._Pickler


class _Python2Pickler(_Pickler):
    dispatch: ClassVar[Any] = dict(_Pickler.dispatch)

    def save_text(self, text: str | bytes) -> None:
        content = text if isinstance(text, bytes) else text.encode("latin1")
        if len(content) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(content)]) + content)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(text)

    def save_global(self, value: Any, name: str | None = None) -> None:
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(pickle.GLOBAL + f"{module}\n{name or value.__qualname__}\n".encode())
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_text


def dumps(value: object) -> bytes:
    """The pickle, protocol 2."""
    file = io.BytesIO()
    _Python2Pickler(file, 2).dump(value)
    return file.getvalue()
