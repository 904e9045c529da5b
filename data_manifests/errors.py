"""The one error a user is meant to see, and how a command line ends with it."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import click

BAD_INPUT = 2
INTERRUPTED = 128 + signal.SIGINT
_INTERRUPTED = (
    "interrupted: nothing half-written was left; given again, build and evaluate go on from here, "
    "trainer.run does with --resume, others begin anew"
)


class InputError(Exception):
    """Something the user gave, or the machine lacks, is wrong; the message says how to go on.

    Args:
        what: what is wrong, naming the file, video, frame, shard or setting.
        found: what was there.
        wanted: what should have been there.
        todo: the next thing to do.
    """

    def __init__(self, what: str, *, found: str = "", wanted: str = "", todo: str = "") -> None:
        super().__init__(what)
        self.what, self.found, self.wanted, self.todo = what, found, wanted, todo

    def __str__(self) -> str:
        lines = [self.what]
        lines += [
            f"  {name}: {text}"
            for name, text in (("found", self.found), ("wanted", self.wanted), ("do", self.todo))
            if text
        ]
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Callable[..., InputError], tuple[type[InputError], str, str, str, str]]:
        return _rebuild, (type(self), self.what, self.found, self.wanted, self.todo)


class InputErrors(InputError):
    """Any number of them in one message, by the order of their texts, which are those of the first `MOST`."""

    MOST = 30

    def __init__(self, errors: Sequence[InputError]) -> None:
        self.errors = tuple(sorted(errors, key=str))
        texts = list(map(str, self.errors[: self.MOST]))
        if len(errors) > 1:
            texts.insert(0, f"{len(errors)} things are wrong")
        if len(errors) > self.MOST:
            texts.append(f"and {len(errors) - self.MOST} more")
        super().__init__("\n".join(texts))

    def __reduce__(self) -> tuple[type[InputErrors], tuple[tuple[InputError, ...]]]:  # type: ignore[override]
        return InputErrors, (self.errors,)


def _rebuild(kind: type[InputError], what: str, found: str, wanted: str, todo: str) -> InputError:
    return kind(what, found=found, wanted=wanted, todo=todo)


_MACHINE_FAULTS = {
    errno.ENOSPC: "free some space on that disk, then run the same command again",
    errno.EDQUOT: "free some of your quota on that disk, then run the same command again",
    errno.EFBIG: "raise the file size limit (ulimit -f), then run the same command again",
    errno.ENOMEM: "free some memory, or let a process map more files (sysctl vm.max_map_count)",
    errno.EACCES: "give yourself permission on that path, or choose another place",
    errno.EPERM: "give yourself permission on that path, or choose another place",
    errno.EROFS: "choose a place that is not mounted read-only",
    errno.ENOENT: "see whether that path, or the folder that it is to be in, is there",
    errno.EISDIR: "name a file: that is a folder",
    errno.ENOTDIR: "choose another place: a part of that path is a file, not a folder",
    errno.EEXIST: "choose another place, or move away what is there",
}


def machine_fault(error: OSError) -> InputError | None:
    """The user's version of a full disk, a missing permission and the like; None for any other error."""
    todo = _MACHINE_FAULTS.get(error.errno or 0)
    if todo is None:
        return None
    return InputError(
        f"cannot write or read {error.filename or 'a file'}", found=os.strerror(error.errno or 0), todo=todo
    )


def fail(error: InputError) -> NoReturn:
    """Prints the error and ends the process with exit code 2; torchrun repeats it as the last thing it says."""
    print(f"error: {error}", file=sys.stderr)
    if place := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        told = {"message": str(error), "extraInfo": {"py_callstack": str(error), "timestamp": str(int(time.time()))}}
        Path(place).write_text(json.dumps({"message": told}))
    raise SystemExit(BAD_INPUT)


@contextmanager
def quickly_interrupted() -> Iterator[None]:
    """Ctrl-C ends the process at once, with its message. For imports: some of them lose a KeyboardInterrupt, or
    answer it with errors of their own.
    """

    def end(*_: object) -> NoReturn:
        print(_INTERRUPTED, file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, or somebody else's
        yield
        return
    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def run_command_line(main: Callable[[], object]) -> NoReturn:
    """Runs `main` and ends the process: 0, 2 with one clear message for bad input, 130 for Ctrl-C.

    Any other exception is a bug of ours and keeps its traceback.
    """
    try:
        main()
    except InputError as error:
        fail(error)
    except OSError as error:
        fault = machine_fault(error)
        if fault is None:
            raise
        fail(fault)
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except (KeyboardInterrupt, click.Abort):
        print(_INTERRUPTED, file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    raise SystemExit(0)
