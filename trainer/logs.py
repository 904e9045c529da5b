"""What a run tells: a line an interval on the console, JSON lines, TensorBoard; and the watch over the loss.

Values are read two steps late, through copies that nobody waits for, so that the device never waits for the host.
"""

from __future__ import annotations

import json
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from data_manifests.errors import InputError
from trainer.config import Config

LAG = 2
Clips = tuple[tuple[str, int, int], ...]


class Reading(NamedTuple):
    """The losses of a step over all ranks, and whether a rank was asked to stop."""

    step: int
    loss: float
    loc: float
    conf: float
    positives: float
    stop: bool


class Watch:
    """Follows the device at a distance of `LAG` steps."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._waiting: deque[tuple[int, Tensor, torch.cuda.Event | None, Clips]] = deque()

    def push(self, step: int, values: Tensor, clips: Clips) -> None:
        """Begins to copy a step's (loss, loc, conf, positives, stop) to the host."""
        if self.device.type != "cuda":
            self._waiting.append((step, values.clone(), None, clips))
            return
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._waiting.append((step, host, event, clips))

    def take(self, lag: int = LAG) -> list[Reading]:
        """The readings of all steps but the last `lag`.

        Raises:
            InputError: a loss is not finite.
        """
        readings = []
        while len(self._waiting) > lag:
            step, host, event, clips = self._waiting.popleft()
            if event is not None:
                event.synchronize()
            loss, loc, conf, positives, stop = host.tolist()
            if loss != loss or abs(loss) == float("inf"):
                shown = ", ".join(f"{video}:{frame} view {view}" for video, frame, view in clips[:8])
                raise InputError(
                    f"the loss is {loss} at step {step}",
                    found=f"this process' clips were {shown}",
                    todo="go on from the last checkpoint (--resume) with a smaller --base-lr or with --clip-norm",
                )
            readings.append(Reading(step, loss, loc, conf, positives, stop > 0))
        return readings


class Log:
    """Writes the files of a run; only the first rank has one."""

    def __init__(self, out: Path, config: Config, start: int) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._config, self._started, self._start = config, time.monotonic(), start
        path = out / "metrics.jsonl"
        if path.exists():  # a resumed run writes the steps after its checkpoint anew
            lines = [line for line in path.read_text().splitlines() if json.loads(line)["step"] <= start]
            path.write_text("".join(line + "\n" for line in lines))
        self._file = open(path, "a")  # noqa: SIM115  (closed by close)
        self._board = SummaryWriter(str(out / "tensorboard"), purge_step=start)
        self._gathered: list[Reading] = []

    def read(self, readings: list[Reading], rate: float) -> None:
        """Gathers readings, and writes a line when an interval is full."""
        for reading in readings:
            self._gathered.append(reading)
            done = reading.step + 1
            if done % self._config.log_every == 0 or done == self._config.iterations:
                self._write(done, rate)
                self._gathered = []

    def _write(self, done: int, rate: float) -> None:
        count = len(self._gathered)
        means = {
            name: sum(getattr(reading, name) for reading in self._gathered) / count
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
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes both."""
        self._file.close()
        self._board.close()
