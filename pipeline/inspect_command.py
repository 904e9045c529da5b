"""`python -m pipeline inspect` and `report`: say what is in a store, wherever it lies, draw it, or show it on a page."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from pathlib import Path

import click

from data_manifests.errors import InputError
from data_manifests.manifest import load_manifest
from data_manifests.object_store import ObjectStore
from data_manifests.place import is_url
from pipeline.alignment import measure_alignment
from pipeline.browse import serve
from pipeline.drawing import animate_clip, animate_video, draw_clip, draw_video
from pipeline.fetched import fetched
from pipeline.inspect import describe_store, find_clip
from pipeline.report import write_report
from pipeline.stored import built_shards, find_video
from pipeline.summary import measuring, print_store, watched


def describe_place(place: str, *, motion: bool, as_json: bool) -> None:
    """Prints what is in a store.

    Args:
        place: its folder or URL, of which all but the frames is fetched.
        motion: measures whether boxes lie where frames move; never of a store at a URL.
    """
    if is_url(place):
        with fetched(ObjectStore(place), None) as store:
            described = describe_store(store)
    else:
        described = describe_store(Path(place))
        if motion:
            with measuring():
                alignment = measure_alignment(list(built_shards(Path(place))))
            described["motion"] = {"summary": alignment.summary, "warnings": alignment.warnings}
    click.echo(json.dumps(described, indent=1)) if as_json else print_store(described)


def report_place(place: str, page: Path | None) -> Path:
    """Writes a store's page, and returns where.

    Args:
        place: its folder or URL, of which all is fetched but the frames that are neither shown nor measured.
        page: where to; by default named like the store, beside it, or in this folder if it has a URL.

    Raises:
        InputError: there is no store, or what the page shows of it is damaged.
    """
    watch = partial(watched, what="reading")
    if is_url(place):
        remote = ObjectStore(place)
        with fetched(remote, None) as store:
            return write_report(store, page or Path(f"{remote.url.rpartition('/')[2]}.html"), watch, remote)
    store = Path(place).resolve()
    if unfinished := load_manifest(store).unfinished:
        click.echo(f"{len(unfinished)} shards are not built yet: they are not in the page", err=True)
    return write_report(store, page or store.with_name(f"{store.name}.html"), watch)


def draw_place(place: str, clip: str | None, view: int, video: str | None, png: Path | None, gif: Path | None) -> None:
    """Draws a clip or a video of a store; of one at a URL the shard that holds it is fetched.

    Raises:
        InputError: both or no picture are asked for, or the store has no such video, clip or view.
    """
    if clip is None and video is None:
        given = next(name for name, value in (("--png", png), ("--gif", gif), ("--view", view)) if value)
        raise InputError(f"{given} is of a picture", wanted="--clip or --video", todo="say what to draw")
    if png is None and gif is None:
        raise InputError(
            "--clip and --video draw a picture", wanted="--png FILE or --gif FILE", todo="say where to draw it"
        )
    for kind, path in (("png", png), ("gif", gif)):
        if path is not None and path.suffix.lower() not in ("", f".{kind}"):
            raise InputError(f"--{kind} {path}", wanted=f"a name that ends in .{kind}", todo="change it")
    if video is not None and view:
        raise InputError(f"--view {view} with --video", wanted="--clip: a video is drawn as it is", todo="leave it out")
    if clip is not None and video is not None:
        raise InputError("--clip and --video at once", wanted="one of them", todo="draw one after the other")
    if is_url(place):
        with fetched(ObjectStore(place), (clip or "").rpartition(":")[0] if video is None else video) as store:
            _draw(store, clip, view, video, png, gif)
    else:
        _draw(Path(place), clip, view, video, png, gif)


def browse_place(place: str, port: int) -> None:
    """Shows a store on a local page, until Ctrl-C.

    Raises:
        InputError: the store has a URL: a page fetches frames here and there.
    """
    if is_url(place):
        raise InputError(
            "--browse shows stores in folders", found=place,
            todo="browse the --scratch folder that it was built in, or draw a clip with --clip or --video",
        )  # fmt: skip
    with serve(Path(place), port) as server:
        click.echo(f"http://{server.server_address[0]!s}:{server.server_port} shows {place}; Ctrl-C ends it")
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def _draw(store: Path, clip: str | None, view: int, video: str | None, png: Path | None, gif: Path | None) -> None:
    if clip is not None:
        picture = find_clip(store, clip, view)
        for draw, path in ((draw_clip, png), (animate_clip, gif)):
            if path is not None:
                draw(picture, path)
                click.echo(f"drew {clip}, view {view}, to {path}")
        return
    assert video is not None
    found = find_video(store, video)
    for draw_whole, path in ((draw_video, png), (animate_video, gif)):
        if path is not None:
            click.echo(f"drew {draw_whole(*found, path)} of {found[1].frames} frames of {video} to {path}")
