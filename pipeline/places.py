"""Where a dataset's videos lie below its root."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data_manifests.card import Card
from data_manifests.did_you_mean import did_you_mean, plain
from data_manifests.errors import InputError


def find_videos(
    videos: pa.Table, card: Card, root: Path, missing: str, annotated: Collection[str]
) -> tuple[pa.Table, dict[str, str]]:
    """The videos that are there, with their paths below `root`, and why each of the others is skipped.

    Args:
        missing: `error` or `skip`.
        annotated: ids of all videos of the dataset, whose files are no other video's under a misspelt name.

    Raises:
        InputError: one is not there and `missing` is `error`.
    """
    paths, skipped = [], {}
    for video_id in videos["video_id"].to_pylist():
        places = [place.format(video_id=video_id) for place in card.video_places]
        path = next((place for place in places if (root / place).exists()), None)
        if path is None:
            skipped[video_id] = "not there"
        paths.append(path or "")
    if skipped and missing == "error":
        video_id = next(iter(skipped))
        places = [place.format(video_id=video_id) for place in card.video_places]
        alike = sorted({name for place in places for name in _alike(place, root)})
        known = {place.format(video_id=other) for other in annotated for place in card.video_places}
        nobodys = [Path(name).stem for place in places for name in _names_beside(place, root) if name not in known]
        guess = did_you_mean(Path(places[0]).stem, nobodys, "")
        raise InputError(
            f"video {video_id} is not below {root}",
            found=f"{len(skipped):,} of {len(paths):,} videos are not there" + f"; {', '.join(alike)} is" * bool(alike),
            wanted="one of " + ", ".join(places),
            todo="; ".join(filter(None, ("put it there, or build with --missing skip", guess))),
        )
    videos = videos.set_column(videos.schema.get_field_index("path"), "path", pa.array(paths, pa.string()))
    return videos.filter(pc.not_equal(videos["path"], "")), skipped


def _names_beside(place: str, root: Path) -> Iterator[str]:
    folder = root / Path(place).parent
    return (path.relative_to(root).as_posix() for path in folder.iterdir()) if folder.is_dir() else iter(())


def _alike(place: str, root: Path) -> Iterator[str]:
    """What is there under the same name but for upper and lower case, Unicode form or suffix."""
    wanted = Path(place)
    for name in _names_beside(place, root):
        path = Path(name)
        if {plain(path.name), plain(path.stem)} & {plain(wanted.name), plain(wanted.stem)}:
            yield name if name.isascii() else f"{name} ({name!a})"
