"""Training: `python -m trainer.run` on one process, `torchrun --nproc-per-node N -m trainer.run` on many."""

from __future__ import annotations

import dataclasses
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click

from data_manifests.errors import INTERRUPTED, InputError, quickly_interrupted, run_command_line
from data_manifests.help import GroupedCommand, program_name
from trainer.config import config_fields, load_config
from trainer.place import cache_options, place_of

_PATH = click.Path(path_type=Path)
_GROUPS = {
    "Files": ("store", "val_store", "cache", "cache_gb", "split", "preset", "init", "out", "resume"),
    "Network": ("width", "norm", "fc6_dilation", "frozen", "ema"),
    "Optimiser": (
        "iterations", "batch", "accumulate", "base_lr", "schedule", "milestones", "warmup", "shared_rate", "momentum",
        "weight_decay", "clip_norm",
    ),
    "Samples and machine": ("distort", "seed", "workers", "device", "amp", "channels_last", "compile", "deterministic", "profile"),
    "Records": ("log_every", "save_every", "keep", "eval_every", "quiet"),
}  # fmt: skip


def _settings(command: Any) -> Any:
    for field in reversed(config_fields()):
        kind = click.Choice(field.choices) if field.choices else field.type
        command = click.option(
            field.option + ("/--no-" + field.option[2:] if field.type is bool else ""), field.name,
            type=None if field.type is bool else kind, default=None, help=field.help,
        )(command)  # fmt: skip
    return command


@click.command(
    cls=GroupedCommand,
    groups=_GROUPS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option("--store", required=True, help="Store to train on: a folder, or a URL with --cache.")
@click.option("--val-store", help="Store to validate on, with --eval-every.")
@cache_options
@click.option("--split", default="train", show_default=True, help="Whose clips of the store.")
@click.option("--preset", required=True, help="demo, ucf101 or ucf101-act: the settings below that are not given.")
@click.option("--init", type=_PATH, help="Weight file of a VGG16 trunk.")
@click.option("--out", type=_PATH, help="Folder of the run. [default: out/PRESET]")
@click.option("--resume", is_flag=True, help="Go on from the newest valid checkpoint in --out.")
@click.option(
    "--profile",
    type=click.IntRange(min=0),
    default=0,
    help="Time this many steps, stage by stage, and end. Trains nothing.",
)
@click.option("--quiet", is_flag=True, help="Print nothing: the log is in metrics.jsonl.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@_settings
def cli(
    store: str,
    val_store: str | None,
    cache: Path | None,
    cache_gb: float,
    split: str,
    preset: str,
    init: Path | None,
    out: Path | None,
    resume: bool,
    profile: int,
    quiet: bool,
    device: str,
    **settings: Any,
) -> None:
    """Trains an ACT network on a store.

    \b
    python -m trainer.run --store stores/demo --preset demo --out out/run
    torchrun --nproc-per-node 8 -m trainer.run --store stores/ucf101 --preset ucf101 --init vgg16_reducedfc.pth
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if "milestones" in given:
        given["milestones"] = _milestones(given["milestones"])
    config = load_config(preset, given)
    if config.eval_every and not val_store:
        raise InputError(f"--eval-every {config.eval_every}", wanted="a store to validate on", todo="add --val-store")
    if profile and config.compile:
        raise InputError(
            "--profile with --compile", found="a network compiled as a whole, whose parts cannot be timed apart",
            todo="add --no-compile",
        )  # fmt: skip
    with quickly_interrupted():
        from trainer.bfloat16 import has_bfloat16
        from trainer.deterministic import compute_deterministically
        from trainer.distributed import join, leave, together
        from trainer.prepare import Job
        from trainer.training import train

    started = time.monotonic()
    place = place_of(store, cache, cache_gb)
    val_place = place_of(val_store, cache, cache_gb) if val_store else None
    job = Job(place, out or Path("out") / preset, val_place, split, init, resume, profile, preset)
    if config.deterministic:
        compute_deterministically()
    ranks = join(device)
    imitated = config.amp and "amp" not in given and not has_bfloat16(ranks.device)
    config = dataclasses.replace(config, amp=config.amp and not imitated)
    with redirect_stdout(None if quiet else sys.stdout):
        if imitated and ranks.first:
            print("in float32, which is quicker here: no bfloat16 in this device (--amp imitates it)", flush=True)
        with together(ranks):
            ending = train(job, config, ranks)
        leave()
        if ending == "interrupted":
            print("interrupted", file=sys.stderr)
            raise SystemExit(INTERRUPTED)
        if ranks.first and ending == "done" and not profile:
            print(f"done in {(time.monotonic() - started) / 60:.1f} min: {job.out}", flush=True)


def _milestones(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part)
    except ValueError:
        raise InputError(f"--milestones {text}", wanted="steps with commas, like 100,200", todo="change it") from None


def main() -> None:
    """Console entry point."""
    run_command_line(lambda: cli.main(prog_name=program_name("trainer.run"), standalone_mode=False))


if __name__ == "__main__":
    main()
