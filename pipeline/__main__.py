"""The pipeline's command line. Each command imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from data_manifests.errors import InputError, run_command_line
from data_manifests.help import GroupedCommand, program_name
from data_manifests.place import is_url

if TYPE_CHECKING:
    from data_manifests.object_store import ObjectStore
    from pipeline.plan import Plan

_HERE = click.Path(path_type=Path)
_COUNT = click.IntRange(min=0)
_GROUPS = {
    "What to build": (
        "dataset",
        "root",
        "place",
        "scratch",
        "split",
        "train_list",
        "missing",
        "damaged",
        "decode_limit",
    ),
    "Clips and views": ("K", "stride", "views", "seed", "frames", "max_side"),
    "Matching": ("positive_overlap", "negative_overlap"),
}


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


def _what_to_build(command: Any) -> Any:
    """The options that `plan` and `build` share: all that decides a store's content."""
    options = [
        click.option("--dataset", required=True, help="ucf101, demo, or the path of a card (.toml)."),
        click.option("--root", type=_HERE, help="Folder of the videos and annotations (demo: made there)."),
        click.option("--split", type=click.Choice(["train", "test"]), help="Only this split. [default: all]"),
        click.option("--train-list", type=_HERE, help="File of video ids, one a line: only these training videos."),
        click.option("--clip-length", "K", default=6, show_default=True, help="K, frames a clip."),
        click.option("--stride", default=1, show_default=True, help="Frames from one clip to the next."),
        click.option("--views", default=8, show_default=True, help="Augmented views a clip, besides the whole frame."),
        click.option("--seed", default=0, show_default=True, help="Decides the views."),
        click.option("--positive-overlap", default=0.5, show_default=True, help="Priors from here on match a tube."),
        click.option(
            "--negative-overlap", default=0.5, show_default=True, help="Unmatched priors from here on are ignored."
        ),
        click.option("--frames", default="jpeg:95", show_default=True, help="jpeg:QUALITY or raw (lossless)."),
        click.option("--max-side", type=int, help="Shrink frames whose longer side is larger, boxes along."),
        click.option(
            "--missing",
            type=click.Choice(["error", "skip"]),
            default="error",
            show_default=True,
            help="Videos that are not there.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _how_to_decode(command: Any) -> Any:
    """The options that `build` and `verify --repair` share."""
    keep = click.option(
        "--damaged",
        type=click.Choice(["refuse", "keep"]),
        default="refuse",
        show_default=True,
        help="Videos that do not decode to their end: keep the frames before the damage.",
    )
    limit = click.option(
        "--decode-limit",
        type=click.FloatRange(min=0),
        default=3600,
        show_default=True,
        help="Seconds one video may take; 0: as long as it likes.",
    )
    return keep(limit(command))


@cli.command()
@click.option("--from", "root", required=True, type=_HERE, help="Folder of the videos and annotations.")
@click.option("--annotations", type=_HERE, help="Which annotations, where there are several below it.")
@click.option("--out", type=_HERE, help="Where to write the card. [default: card.toml in that folder]")
def card(root: Path, annotations: Path | None, out: Path | None) -> None:
    """Drafts a card of your own dataset by looking: classes, videos, sizes, what the numbers seem to mean.

    \b
    python -m pipeline card --from my
    python -m pipeline plan --dataset my/card.toml --root my
    """
    from data_manifests.card import load_card
    from pipeline.annotations import read_annotations
    from pipeline.draft import draft_card

    place = out or root / "card.toml"
    if place.exists():
        raise InputError(f"{place} is there already", wanted="a new file", todo="choose another --out, or remove it")
    text = draft_card(root, annotations)
    place.write_text(text, encoding="utf-8")
    checks = text.count("CHECK:")
    click.echo(f"drafted {place}" + (f": look at {checks} CHECK in it" if checks else ""))
    try:
        read = read_annotations(load_card(str(place)), root)
    except InputError as error:
        raise InputError(
            "the annotations do not read by that card yet", found=str(error), todo=f"mend {place} or the annotations"
        ) from error
    click.echo(f"it reads {read.videos.num_rows:,} videos with {read.tubes.num_rows:,} tubes: go on with plan")


@cli.command(cls=GroupedCommand, groups=_GROUPS)
@_what_to_build
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.option("--workers", type=_COUNT, default=0, help="Processes the time is estimated for. [default: all cores]")
def plan(as_json: bool, workers: int, **options: Any) -> None:
    """Says what a build would make, from annotations and lists only: no video need be there.

    \b
    python -m pipeline plan --dataset ucf101 --root ~/ucf101
    python -m pipeline plan --dataset my/card.toml --root my --views 4 --json
    """
    from pipeline.summary import print_plan

    workers = workers or _cores()
    planned, _, _ = _make_plan(options, look_for_videos=False)
    if as_json:
        click.echo(json.dumps(planned.to_json(workers), indent=1))
    else:
        print_plan(planned, workers)


@cli.command(cls=GroupedCommand, groups=_GROUPS)
@_what_to_build
@click.option("--store", "place", required=True, help="Folder of the store, or its URL, s3://BUCKET/PREFIX.")
@click.option("--scratch", type=_HERE, help="For a URL: folder that it is built in first, kept to go on from.")
@click.option("--workers", type=_COUNT, default=0, help="Processes. [default: all cores]")
@click.option("--scheduler", help="Build on the workers of this Dask cluster instead, tcp://HOST:PORT.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@_how_to_decode
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
    from pipeline.build import build as build_store
    from pipeline.build import present_manifest
    from pipeline.cluster import dask_cluster
    from pipeline.decoding import Decoding
    from pipeline.summary import build_progress, measuring, print_build, print_motion

    store, remote = _folder_and_remote(place, scratch)
    present = present_manifest(store)
    if remote is not None:
        from pipeline.upload import check_same_store, upload

        check_same_store(present, remote)  # before the work, not after it
    planned, card, root = _make_plan(options, look_for_videos=True, present=present)
    with dask_cluster(scheduler) if scheduler else nullcontext() as executor:
        if executor is not None:  # the workers have folders of their own
            root, store = root.absolute(), store.absolute()
        with build_progress(quiet or not sys.stderr.isatty()) as progress:
            built = build_store(
                planned, card, root, store, workers=workers or _cores(), executor=executor, progress=progress,
                decoding=Decoding(damaged, decode_limit or None),
            )  # fmt: skip
    print_build(built, store)
    if built.shards:
        from pipeline.alignment import measure_alignment
        from pipeline.stored import built_shards

        with measuring():
            alignment = measure_alignment(list(built_shards(store)))
        print_motion(alignment.summary, alignment.warnings)
    if remote is not None:
        shards = upload(store, remote, lambda name, size: click.echo(f"uploaded {name}, {size / 1e6:,.1f} MB"))
        told = f"uploaded {shards} shard{'s' * (shards > 1)}" if shards else "nothing to upload"
        click.echo(f"{told}: {remote.url}")


@cli.command(
    cls=GroupedCommand,
    groups={"A picture": ("clip", "view", "video", "png", "gif"), "A local page": ("browse", "port")},
)
@click.argument("place", metavar="STORE")
@click.option("--clip", help="VIDEO_ID:FIRST_FRAME, to draw as the network sees it, with its tubes and priors.")
@click.option("--view", default=0, show_default=True, help="Which view of the clip; 0 is the whole frame.")
@click.option("--video", help="VIDEO_ID, to draw whole, with its tubes.")
@click.option("--png", type=_HERE, help="Where to draw a sheet of frames.")
@click.option("--gif", type=_HERE, help="Where to draw a moving picture.")
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
    elif clip is not None or video is not None:
        draw_place(place, clip, view, video, png, gif)
    else:
        describe_place(place, motion=motion, as_json=as_json)


@cli.command()
@click.argument("place", metavar="STORE")
@click.option("-o", "--out", type=_HERE, help="Where to write the page. [default: STORE.html, beside the store]")
def report(place: str, out: Path | None) -> None:
    """Writes one HTML page of a store: its classes, boxes, matches, views, and its strangest clips.

    \b
    python -m pipeline report stores/ucf101 -o ucf101.html
    """
    from pipeline.report import write_report
    from pipeline.summary import watched

    if is_url(place):
        raise InputError(
            "report reads all frames of a store in a folder", found=place,
            todo="give the --scratch folder that it was built in",
        )  # fmt: skip
    store = Path(place).resolve()
    page = write_report(
        Path(place), out or store.parent / f"{store.name}.html", lambda shards: watched(shards, "reading")
    )
    click.echo(f"report: {page}")


@cli.command()
@click.argument("place", metavar="STORE")
@click.option("--deep", is_flag=True, help="Read every byte; else sizes and the small files only.")
@click.option("--repair", "mend", is_flag=True, help="Build what is damaged again, to the same bytes.")
@click.option("--dataset", help="With --repair: ucf101, demo, or the path of a card (.toml).")
@click.option("--root", type=_HERE, help="With --repair: folder of the videos and annotations.")
@click.option("--scratch", type=_HERE, help="With --repair of a URL: the folder that it was built in.")
@click.option("--workers", type=_COUNT, default=0, help="Processes. [default: all cores]")
@_how_to_decode
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
        place, deep=deep, mend=mend, dataset=dataset, root=root, scratch=scratch, workers=workers or _cores(),
        decoding=Decoding(damaged, decode_limit or None),
    )  # fmt: skip


def _folder_and_remote(place: str, scratch: Path | None) -> tuple[Path, ObjectStore | None]:
    if not is_url(place):
        return Path(place), None
    from data_manifests.object_store import ObjectStore

    if scratch is None:
        raise InputError(
            f"a store at {place} is built in a folder first", wanted="--scratch DIR, with room for all of it",
            todo="add it",
        )  # fmt: skip
    return scratch, ObjectStore(place)


def _make_plan(options: dict[str, Any], *, look_for_videos: bool, present: Any = None) -> tuple[Plan, Any, Path]:
    from data_manifests.card import load_card
    from data_manifests.layout import Settings
    from pipeline.matching import MatchRule
    from pipeline.plan import make_plan

    card = load_card(options["dataset"])
    root = options["root"]
    if options["dataset"] == "demo":
        from pipeline.demo import make_demo

        root = root or Path("data/demo")
        make_demo(root)
    if root is None:
        raise InputError("--root is missing", wanted=f"the folder of {card.title}", todo="add --root DIR")
    settings = Settings(
        dataset=card.name,
        title=card.title,
        classes=card.classes,
        mirrored=card.mirrored,
        **{name: options[name] for name in ("K", "stride", "views", "seed", "positive_overlap", "negative_overlap")},
        variances=MatchRule().variances,
        frames=_codec(options["frames"]),
        max_side=options["max_side"],
        priors=card.priors,
    )
    _check(settings)
    planned = make_plan(
        card,
        root,
        settings,
        split=options["split"],
        train_list=options["train_list"],
        missing=options["missing"] if look_for_videos else None,
        present=present,
    )
    return planned, card, root


def _codec(text: str) -> str:
    name, _, quality = text.partition(":")
    if text == "raw" or (name == "jpeg" and quality.isdigit() and 1 <= int(quality) <= 100):
        return text
    raise InputError(f"--frames {text}", wanted="jpeg:1 to jpeg:100, or raw", todo="use jpeg:95")


def _check(settings: Any) -> None:
    from data_manifests.layout import LIMITS

    for name, (least, most) in LIMITS.items():
        if not least <= getattr(settings, name) <= most:
            option = {"K": "clip-length"}.get(name, name.replace("_", "-"))
            raise InputError(f"--{option} {getattr(settings, name)}", wanted=f"{least} to {most}", todo="change it")


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0))


def main() -> None:
    """Console entry point."""
    run_command_line(lambda: cli.main(prog_name=program_name("pipeline"), standalone_mode=False))


if __name__ == "__main__":
    main()
