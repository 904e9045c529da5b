"""What a run's folder says of the run: `run.json`, written as it starts, and the log read back."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import math
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from data_manifests.errors import InputError
from data_manifests.manifest import write_atomically
from trainer.checkpoint import newest_checkpoint, read_checkpoint
from trainer.config import Config, from_json, known_presets, load_config

if TYPE_CHECKING:
    from trainer.data.reader import Store
    from trainer.distributed import Ranks
    from trainer.model import ActNet
    from trainer.prepare import Job

RECORD, LOG, PROFILE = "run.json", "metrics.jsonl", "profile.json"


def only_run(out: Path) -> IO[str]:
    """Sees that no other training is at work in a folder, for as long as the file that it returns is open.

    Raises:
        InputError: one is.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = open(out / ".lock", "w")  # noqa: SIM115  (the caller closes it)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise InputError(
            f"another training is at work in {out}", todo="choose another --out, or wait, then go on with --resume"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        print(f"note: {out} lies where nothing can be locked: see that no other training writes there", flush=True)
    return lock


def write_record(job: Job, config: Config, store: Store, model: ActNet, ranks: Ranks, parts: int) -> None:
    """Writes `run.json` into the run's folder: the preset's name, all settings, and what else decides the run.

    `parts` is of a step, over all processes.
    A run that is resumed without `--init` keeps the file that it began with.
    """
    place = job.out / RECORD
    before = _read_json(place) if job.resume and place.exists() else {}
    content = {
        "version": version("tubelets"), "preset": job.preset, "config": dataclasses.asdict(config), "K": model.K,
        "classes": model.classes, "store": str(job.store), "split": job.split, "store_digest": store.meta.digest,
        "clips": store.clips, "init": str(job.init or before.get("init", "random weights")),
        "weights": sum(parameter.numel() for parameter in model.parameters()),
        "processes": f"{ranks.count} x {ranks.device.type}", "parts": parts,
    }  # fmt: skip
    write_atomically(place, (json.dumps(content, indent=1) + "\n").encode())


@dataclass(frozen=True)
class Run:
    """One run, finished or not.

    Args:
        folder: as it was given.
        lines: of the log, by ascending step; those with `loss` are means over the steps since the one before.
        config: its settings, as plain values.
        preset: the preset's settings, as plain values.
        about: names and values for people.
        key: equal for runs that differ in their seed alone.
        verdict: of `--profile`, with the seconds a step of each stage; empty without one.
    """

    folder: Path
    lines: list[dict[str, float]]
    config: dict[str, Any]
    preset: dict[str, Any]
    about: list[tuple[str, str]]
    key: str
    K: int
    verdict: str
    stages: dict[str, float]


def is_run(folder: Path) -> bool:
    """Whether it is the --out of a `trainer.run` that has begun."""
    return (folder / LOG).is_file()


def read_run(folder: Path) -> Run:
    """A run of `trainer.run`, also while it is at work. A setting that it does not name is younger, and has its default.

    Raises:
        InputError: it is none, its log or record is damaged, or nothing says what its settings are.
    """
    lines = _read_log(folder / LOG)
    record = _read_json(folder / RECORD) if (folder / RECORD).exists() else _from_checkpoint(folder)
    unmeasured: dict[str, Any] = {"verdict": "", "seconds_a_step": {}}
    profile = _read_json(folder / PROFILE) if (folder / PROFILE).exists() else unmeasured
    try:
        settings, preset = record.pop("config"), record["preset"]
        if "parts" not in record and settings.get("accumulate") == 1:  # as the default was then
            settings["accumulate"] = 0
        config = _plain(from_json(settings))
        K, digest = record.pop("K"), record.pop("store_digest")
        shown = {
            "K": K,
            "steps": f"{lines[-1]['step']:.0f} of {config['iterations']}",
            **record,
            "store digest": digest,
        }
        without_seed = {name: value for name, value in config.items() if name != "seed"}
        of_preset = _plain(load_config(preset or _nearest(config), {}))
        if not preset:
            shown["preset"] = f"not recorded; nearest: {_nearest(config)}"
        verdict, stages = profile["verdict"], profile["seconds_a_step"]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"the record of the run in {folder} is damaged",
            found=f"{type(error).__name__}: {error}",
            wanted=f"{RECORD} and {PROFILE} as trainer.run writes them",
            todo=f"remove {RECORD}: the settings are then read from a checkpoint",
        ) from error
    about = [(name.replace("_", " "), str(value)) for name, value in shown.items()]
    key = json.dumps([without_seed, K, digest], sort_keys=True)
    return Run(folder, lines, config, of_preset, about, key, K, verdict, stages)


def _read_log(path: Path) -> list[dict[str, float]]:
    """All whole lines: the last one may be half-written while the run goes on."""
    if not path.is_file():
        raise InputError(f"{path.parent} is not a run", found=f"no {LOG}", todo="give the --out of trainer.run")
    lines = []
    for number, text in enumerate(path.read_text().splitlines(keepends=True), start=1):
        if not text.endswith("\n"):
            break
        try:
            line = {name: float(value) for name, value in json.loads(text).items()}
            if not all(map(math.isfinite, (line["step"], *line.values()))):
                raise ValueError("it holds a value that is not finite")
            lines.append(line)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path}, line {number}, is damaged", found=text[:80].strip(), todo="remove that line"
            ) from error
    if not any("loss" in line for line in lines):
        raise InputError(f"the run in {path.parent} has not logged a step yet", todo="wait for its first line")
    return lines


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except ValueError as error:
        raise InputError(f"{path} is damaged", found=str(error), todo="remove it") from error


def _from_checkpoint(folder: Path) -> dict[str, Any]:
    """The record of a run that was started before there were records."""
    newest = newest_checkpoint(folder / "checkpoints")
    if newest is None:
        raise InputError(
            f"the settings of the run in {folder} are unknown",
            found=f"neither {RECORD} nor a checkpoint",
            todo="wait for its first checkpoint",
        )
    meta = read_checkpoint(newest)[1]
    return {"preset": "", "config": meta.config, "K": meta.K, "store_digest": meta.store}


def _plain(config: Config) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(config)))


def _nearest(config: dict[str, Any]) -> str:
    """The preset that most of the settings agree with."""

    def differing(preset: str) -> int:
        return sum(config.get(name) != value for name, value in _plain(load_config(preset, {})).items())

    return min(known_presets(), key=differing)
