"""The pipeline's command line. Each command imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from data_manifests.errors import run_command_line
from data_manifests.help import GroupedCommand, program_name
from pipeline.options import PATH, WHAT_TO_BUILD, how_many_workers, how_to_decode, what_to_build


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """Turns annotated videos into a store of frames and encoded targets, once, offline.

    \b
    python -m pipeline card    --from my
    python -m pipeline plan    --dataset ucf101 --root ~/ucf101
    python -m pipeline build   --dataset ucf101 --root ~/ucf101 --store stores/ucf101
    python -m pipeline inspect stores/ucf101 --clip Surfing/v_Surfing_g08_c01:30 --png clip.png
    python -m pipeline report  stores/ucf101 -o ucf101.html
    python -m pipeline verify  stores/ucf101 --deep
    """


@cli.command()
@click.option("--from", "root", required=True, type=PATH, help="Folder of the videos and annotations.")
@click.option("--annotations", type=PATH, help="Which annotations, where there are several below it.")
@click.option("--out", type=PATH, help="Where to write the card. [default: card.toml in that folder]")
def card(root: Path, annotations: Path | None, out: Path | None) -> None:
    """Drafts a card of your own dataset by looking: classes, videos, sizes, what the numbers seem to mean.

    \b
    python -m pipeline card --from my
    python -m pipeline plan --dataset my/card.toml --root my
    """
    from pipeline.card_command import draft_at

    draft_at(root, annotations, out or root / "card.toml")


@cli.command(cls=GroupedCommand, groups=WHAT_TO_BUILD)
@what_to_build
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@how_many_workers("Processes the time is estimated for.")
def plan(as_json: bool, workers: int, **options: Any) -> None:
    """Says what a build would make, from annotations and lists only: no video need be there.

    \b
    python -m pipeline plan --dataset ucf101 --root ~/ucf101
    python -m pipeline plan --dataset my/card.toml --root my --views 4 --json
    """
    from pipeline.plan_command import say_plan

    say_plan(options, workers=workers, as_json=as_json)


@cli.command(cls=GroupedCommand, groups=WHAT_TO_BUILD)
@what_to_build
@click.option("--store", "place", required=True, help="Folder of the store, or its URL, s3://BUCKET/PREFIX.")
@click.option("--scratch", type=PATH, help="For a URL: folder that it is built in first, kept to go on from.")
@how_many_workers()
@click.option("--scheduler", help="Build on the workers of this Dask cluster instead, tcp://HOST:PORT.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@how_to_decode
def build(
    place: str,
    scratch: Path | None,
    workers: int,
    scheduler: str | None,
    quiet: bool,
    damaged: str,
    decode_limit: float,
    **options: Any,
) -> None:
    """Builds a store, or what it lacks. Stop it anywhere: the same command goes on from there.

    \b
    python -m pipeline build --dataset ucf101 --root ~/ucf101 --store stores/ucf101
    python -m pipeline build --dataset my/card.toml --root my --store stores/my --missing skip
    python -m pipeline build --dataset ucf101 --root ~/ucf101 --store s3://bucket/ucf101 --scratch /scratch/ucf101
    """
    from pipeline.build_command import build_at
    from pipeline.decoding import Decoding

    build_at(
        place, scratch, options, workers=workers, scheduler=scheduler, quiet=quiet,
        decoding=Decoding(damaged, decode_limit or None),
    )  # fmt: skip


@cli.command(
    cls=GroupedCommand,
    groups={"A picture": ("clip", "view", "video", "png", "gif"), "A local page": ("browse", "port")},
)
@click.argument("place", metavar="STORE")
@click.option("--clip", help="VIDEO_ID:FIRST_FRAME, to draw as the network sees it, with its tubes and priors.")
@click.option("--view", default=0, show_default=True, help="Which view of the clip; 0 is the whole frame.")
@click.option("--video", help="VIDEO_ID, to draw whole, with its tubes.")
@click.option("--png", type=PATH, help="Where to draw a sheet of frames.")
@click.option("--gif", type=PATH, help="Where to draw a moving picture.")
@click.option("--browse", is_flag=True, help="Show it on a local page, until Ctrl-C.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8300, show_default=True, help="With --browse; 0 takes a free one."
)
@click.option(
    "--motion/--no-motion",
    default=True,
    show_default=True,
    help="Measure whether boxes lie where frames move (seconds; never at a URL).",
)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def inspect(
    place: str,
    clip: str | None,
    view: int,
    video: str | None,
    png: Path | None,
    gif: Path | None,
    browse: bool,
    port: int,
    motion: bool,
    as_json: bool,
) -> None:
    """Says what is in a store; draws a clip or a whole video, with tubes and priors; shows all of it on a local page.

    \b
    python -m pipeline inspect stores/ucf101
    python -m pipeline inspect stores/ucf101 --clip Surfing/v_Surfing_g08_c01:30 --view 2 --png clip.png
    python -m pipeline inspect stores/ucf101 --video Surfing/v_Surfing_g08_c01 --gif video.gif
    python -m pipeline inspect stores/ucf101 --browse
    python -m pipeline inspect s3://bucket/ucf101     # all but the frames is fetched
    """
    from pipeline.inspect_command import browse_place, describe_place, draw_place

    if browse:
        browse_place(place, port)
    elif clip is not None or video is not None or png is not None or gif is not None or view:
        draw_place(place, clip, view, video, png, gif)
    else:
        describe_place(place, motion=motion, as_json=as_json)


@cli.command()
@click.argument("place", metavar="STORE")
@click.option(
    "-o", "--out", type=PATH, help="Where to write the page. [default: STORE.html, beside a store in a folder]"
)
def report(place: str, out: Path | None) -> None:
    """Writes one HTML page of a store: its classes, boxes, matches, views, and its strangest clips.

    \b
    python -m pipeline report stores/ucf101 -o ucf101.html
    python -m pipeline report s3://bucket/ucf101     # of the frames, those that are shown or measured are fetched
    """
    from pipeline.inspect_command import report_place

    click.echo(f"report: {report_place(place, out)}")


@cli.command()
@click.argument("place", metavar="STORE")
@click.option("--deep", is_flag=True, help="Read every byte; else sizes and the small files only.")
@click.option(
    "--repair",
    "mend",
    is_flag=True,
    help="Build what is damaged again, to the same bytes; remove what no record names from its folders.",
)
@click.option(
    "--dataset", help="With --repair: ucf101, jhmdb21, ucfsports, multisports, demo, or a card's path (.toml)."
)
@click.option("--root", type=PATH, help="With --repair: folder of the videos and annotations.")
@click.option("--scratch", type=PATH, help="With --repair of a URL: the folder that it was built in.")
@how_many_workers()
@how_to_decode
def verify(
    place: str,
    deep: bool,
    mend: bool,
    dataset: str | None,
    root: Path | None,
    scratch: Path | None,
    workers: int,
    damaged: str,
    decode_limit: float,
) -> None:
    """Says what is wrong in a store, down to the row; repairs it from the source.

    \b
    python -m pipeline verify stores/ucf101 --deep
    python -m pipeline verify stores/ucf101 --repair --dataset ucf101 --root ~/ucf101
    """
    from pipeline.decoding import Decoding
    from pipeline.verify_command import verify_place

    verify_place(
        place, deep=deep, mend=mend, dataset=dataset, root=root, scratch=scratch, workers=workers,
        decoding=Decoding(damaged, decode_limit or None),
    )  # fmt: skip


def main() -> None:
    """Console entry point."""
    run_command_line(lambda: cli.main(prog_name=program_name("pipeline"), standalone_mode=False))


if __name__ == "__main__":
    main()
