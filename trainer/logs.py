"""What a run tells: a line an interval on the console, JSON lines, TensorBoard; and the watch over the loss.

Values of a GPU are read two steps late, through copies that nobody waits for, so that it never waits for the host.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from data_manifests.errors import InputError
from data_manifests.manifest import write_atomically
from trainer.config import Config
from trainer.optim import rate_at

LAG = 2
VALIDATED = "val_frame_map"
Clips = tuple[tuple[str, int, int], ...]


class Reading(NamedTuple):
    """The losses of a step over all ranks, and whether a rank was asked to stop."""

    step: int
    loss: float
    loc: float
    conf: float
    positives: float
    stop: bool

    @classmethod
    def of(cls, values: Sequence[float]) -> Reading:
        """From the plain values that a checkpoint keeps."""
        step, loss, loc, conf, positives, stop = values
        return cls(int(step), loss, loc, conf, positives, bool(stop))


class Diverged(InputError):
    """The loss of a step, or the weights after it, are not finite."""

    def __init__(self, step: int, what: str, found: str) -> None:
        super().__init__(what, found=found)
        self.step = step


class Watch:
    """Follows the device at the distance that its caller asks for: `LAG` steps spare a GPU any wait."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._waiting: deque[tuple[int, Tensor, torch.cuda.Event | None, Clips]] = deque()

    def push(self, step: int, values: Tensor, clips: Clips) -> None:
        """Begins to copy a step's `trainer.step.VALUES` to the host."""
        if self.device.type != "cuda":
            self._waiting.append((step, values.clone(), None, clips))
            return
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        event = torch.cuda.Event(blocking=True)  # who waits for it sleeps: the loader's workers need the core
        event.record()
        self._waiting.append((step, host, event, clips))

    def take(self, lag: int) -> list[Reading]:
        """The readings of all steps but the last `lag`.

        Raises:
            Diverged: a loss is not finite; on every rank, for all see the sum. It names the clips where they were.
        """
        readings = []
        while len(self._waiting) > lag:
            step, host, event, clips = self._waiting.popleft()
            if event is not None:
                event.synchronize()
            loss, loc, conf, positives, stops, own = host.tolist()
            if not math.isfinite(loss):
                shown = ", ".join(f"{video} from frame {frame}, view {view}" for video, frame, view in clips)
                found = "clips of another process" if math.isfinite(own) else f"clips {shown}"
                raise Diverged(step, f"the loss is {loss} at step {step}", found)
            readings.append(Reading(step, loss, loc, conf, positives, stops > 0))
        return readings


class Log:
    """Writes the files of a run; only the first rank has one.

    Attributes:
        gathered: readings since the last line; a checkpoint keeps them, so that a resumed run writes the same lines.
    """

    def __init__(
        self, out: Path, config: Config, start: int, gathered: Sequence[Reading] = (), *, unscored: bool = False
    ) -> None:
        """Goes on behind step `start`; `unscored`: whose validation is done again, should its line be there already."""
        out.mkdir(parents=True, exist_ok=True)
        self._config, self._started, self._start = config, time.monotonic(), start
        path = out / "metrics.jsonl"
        again = path.exists() and _keep_lines_until(start, path, unscored)
        self._on_board = {start} if again else set()
        self._file = open(path, "a")  # noqa: SIM115  (closed by close)
        self._board = SummaryWriter(str(out / "tensorboard"), purge_step=start + 1)  # the first that is hidden
        self.gathered = list(gathered)

    def read(self, readings: list[Reading]) -> None:
        """Gathers readings, and writes a line when an interval is full."""
        for reading in readings:
            self.gathered.append(reading)
            done = reading.step + 1
            if done % self._config.log_every == 0 or done == self._config.iterations:
                self._write(done)
                self.gathered = []

    def _write(self, done: int) -> None:
        count, rate = len(self.gathered), rate_at(self._config, done - 1)
        means = {
            name: sum(getattr(reading, name) for reading in self.gathered) / count
            for name in ("loss", "loc", "conf", "positives")
        }
        elapsed = time.monotonic() - self._started
        speed = (done - self._start) / elapsed
        left = (self._config.iterations - done) / speed
        clips = speed * self._config.batch
        self.add(done, {**means, "base_lr": rate, "clips_per_second": clips, "seconds": elapsed})
        print(
            f"step {done:>6}/{self._config.iterations}  loss {means['loss']:.4f} (loc {means['loc']:.4f}, conf "
            f"{means['conf']:.4f})  lr {rate:.2e}  {clips:.1f} clips/s  {left / 60:.1f} min left",
            flush=True,
        )

    def add(self, step: int, values: dict[str, float]) -> None:
        """One JSON line, and the same for TensorBoard."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        if VALIDATED in values and step in self._on_board:
            return  # a kill came between its line and its checkpoint
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes both."""
        self._file.close()
        self._board.close()


def _keep_lines_until(start: int, path: Path, unscored: bool) -> bool:
    """Drops the lines of steps past a checkpoint, which a resumed run writes anew, and one torn by a kill.

    A whole line that is broken, as a power failure leaves it, is named on stderr and dropped alone: nobody could read
    it, nor, because of it, the others.

    Args:
        unscored: drops a line of the validation of step `start` too. Returns whether there was one.
    """
    kept, validated = [], False
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            step = _step(line)
            again = unscored and step == start and VALIDATED.encode() in line
            if step is None:
                print(f"warning: {path}, line {number}, is damaged, and dropped: {line[:60]!r}", file=sys.stderr)
            elif again:
                validated = True
            elif step <= start:
                kept.append(line)
    write_atomically(path, b"".join(kept))
    return validated


def _step(line: bytes) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return None
