"""The checksum of a whole checkpoint: the comment of the zip archive that torch.save writes, so that torch reads it still.

The archive's own checksums cover the tensors' bytes, but neither its headers nor its directory.
"""

from __future__ import annotations

import errno
import io
import zipfile
import zlib
from pathlib import Path

import google_crc32c

END, END_SIZE = b"PK\x05\x06", 22
"""How an archive's last record begins, and its size without a comment."""
NOTE = b"crc32c "
NOTE_SIZE = len(NOTE) + 8


def seal(memory: io.BytesIO) -> None:
    """Adds the checksum to what torch.save wrote."""
    memory.seek(-END_SIZE, io.SEEK_END)
    assert memory.read(len(END)) == END
    memory.seek(-2, io.SEEK_END)
    memory.write(NOTE_SIZE.to_bytes(2, "little"))
    memory.write(NOTE + b"%08x" % _crc32c(memory, memory.tell()))


def check_seal(path: Path) -> None:
    """Checks the checksum; of a file that has none, written before there were any, the archive's own.

    Raises:
        ValueError: the file is damaged, or not one of torch.save; its text says how that was seen.
        OSError: it is not there, or may not be read.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(max(0, size - NOTE_SIZE))
            note = file.read()
            if note.startswith(NOTE):
                if note != NOTE + b"%08x" % _crc32c(file, size - NOTE_SIZE):
                    raise ValueError("its checksum does not fit")
                return
            file.seek(max(0, size - END_SIZE))
            if not file.read().startswith(END):
                raise ValueError("its end is not that of a checkpoint")
            with zipfile.ZipFile(file) as archive:
                broken = archive.testzip()
            if broken is not None:
                raise ValueError(f"the checksum of {broken} does not fit")
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EINVAL):  # EINVAL: the archive's directory points to before its begin
            raise
        raise ValueError(str(error)) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _crc32c(file: io.BufferedIOBase, size: int) -> int:
    """Of the first `size` bytes, behind which the file then stands."""
    crc = 0
    file.seek(0)
    while size and (block := file.read(min(size, 1 << 20))):
        crc = google_crc32c.extend(crc, block)
        size -= len(block)
    return crc
