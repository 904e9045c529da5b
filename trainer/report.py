"""`python -m trainer.report FOLDER...`: an evaluation, or runs, as one HTML page that needs no network and no other file."""

from __future__ import annotations

from pathlib import Path

import click

from data_manifests.errors import InputError, quickly_interrupted, run_command_line
from trainer.place import cache_options, place_of


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FOLDER...")
@click.option("--out", type=click.Path(path_type=Path), help="The page. [default: report.html in the first folder]")
@click.option("--store", help="An evaluation's store, if it was moved, or its URL.")
@cache_options
@click.option(
    "--videos",
    type=click.IntRange(min=0),
    default=12,
    show_default=True,
    help="Best and worst videos of an evaluation to show.",
)
def cli(
    folders: tuple[Path, ...], out: Path | None, store: str | None, cache: Path | None, cache_gb: float, videos: int
) -> None:
    """Makes one HTML page of an evaluation, or of one or more training runs.

    \b
    python -m trainer.report out/run/checkpoints/evaluation-...   curves, errors, confusion, best and worst videos
    python -m trainer.report out/run                              losses, rates, positives, validation, settings
    python -m trainer.report out/seed0 out/seed1 --out runs.html  runs overlaid, with the spread over seeds
    """
    with quickly_interrupted():
        from trainer.evaluation_report import write_report
        from trainer.run_record import is_run
        from trainer.run_report import write_run_report

    for folder in folders:
        if not folder.is_dir():
            raise InputError(
                f"{folder} is {'a file' if folder.exists() else 'not there'}",
                wanted="the --out of trainer.evaluate or trainer.run",
                todo="check the path",
            )
    runs = [folder for folder in folders if is_run(folder)]
    if not runs and len(folders) == 1:
        place = place_of(store, cache, cache_gb) if store else None
        page = write_report(folders[0], place, cache=cache, cache_gb=cache_gb, videos=videos, page=out)
    elif len(runs) == len(folders):
        page = write_run_report(folders, out or folders[0] / "report.html")
    else:
        strangers = ", ".join(str(folder) for folder in folders if folder not in runs)
        raise InputError(
            "several folders make one page only if all are runs",
            found=strangers,
            wanted="each the --out of trainer.run",
            todo="leave these out; an evaluation has a page of its own",
        )
    print(f"report: {page}")


def main() -> None:
    """The command line, for `run_command_line`."""
    cli(prog_name="python -m trainer.report", standalone_mode=False)


if __name__ == "__main__":
    run_command_line(main)
