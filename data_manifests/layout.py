"""The store's layout: names, types and checksums of everything in it (README.md says it in prose)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from jaxtyping import Int64, Integer, Shaped

from data_manifests.errors import InputError
from data_manifests.prior_spec import PriorLayer, PriorSpec

FORMAT_VERSION = 1
IGNORED = 255
"""The label of a prior that is neither positive nor background."""

MANIFEST = "manifest.json"
MANIFEST_COPY = "manifest.copy.json"
SHARDS = "shards"
ROOT = "zarr.json"
PRIORS = "priors"
TABLES = {"videos": "tables/videos.parquet", "tubes": "tables/tubes.parquet"}
CHUNK_BYTES = 256 * 1024

ARRAYS: dict[str, tuple[str, str]] = {
    "frames/bytes": ("uint8", "(B,) every frame once, one encoded image after another"),
    "frames/offsets": ("int64", "(F + 1,) frame f is bytes[offsets[f]:offsets[f + 1]]"),
    "frames/crc32c": ("uint32", "(F,) of the frame's bytes, salted"),
    "clips/video": ("int32", "(C,) row in the shard's videos.parquet"),
    "clips/first_row": ("int64", "(C,) frame row of the clip's first frame"),
    "clips/first_frame": ("int32", "(C,) the same frame, counted in its video"),
    "clips/tubes": ("int16", "(C,) tubes that cover the clip"),
    "views/rectangle": ("int16", "(C, 1 + V, 4) x0 y0 x1 y1 in native pixels"),
    "views/mirrored": ("uint8", "(C, 1 + V)"),
    "views/sampler": ("uint8", "(C, 1 + V)"),
    "views/kept": ("uint64", "(C, 1 + V) bit i: the clip's i-th tube is in the view"),
    "targets/offsets": (
        "int64",
        "(C * (1 + V) + 1,) row r = clip * (1 + V) + view has targets offsets[r]:offsets[r + 1]",
    ),
    "targets/prior": ("uint16", "(M,)"),
    "targets/label": ("uint8", "(M,) class + 1, or 255: ignored"),
    "targets/tube": ("uint8", "(M,) tube in its video, 255: none"),
    "targets/overlap": ("float32", "(M,)"),
    "targets/loc": ("float32", "(M, K, 4) encoded offsets"),
    "targets/crc32c": ("uint32", "(C * (1 + V),) of the row's view and targets, salted"),
}
"""Every array of a shard: its type, and its shape and meaning."""


LIMITS: dict[str, tuple[float, float]] = {
    "K": (1, 16),
    "stride": (1, 1000),
    "views": (0, 254),
    "positive_overlap": (0, 1),
    "negative_overlap": (0, 1),
}
"""Least and most of the settings that are numbers."""
MOST_PRIORS = 65_535
"""Targets store a prior's index as uint16."""
MOST_IMAGE_SIZE = 4096
MOST_PIXELS = 64_000_000
"""A frame larger than this is refused before it is decoded, or memory made for it."""


def row_shape(array: str, K: int, views: int) -> tuple[int, ...]:
    """Shape of one row of one of `ARRAYS`; the first axis is what grows."""
    rows = {"views/rectangle": (1 + views, 4), "targets/loc": (K, 4)}
    return rows.get(array, (1 + views,) if array.startswith("views/") else ())


def data_file(array: Path, axes: int) -> Path:
    """The one file of an array's data."""
    return array / "c" / "/".join("0" * axes)


@dataclass(frozen=True)
class Settings:
    """Everything that decides a store's content, beside the annotations and the videos.

    Args:
        dataset, title, classes, mirrored: of the dataset's card.
        K, stride, views, seed: of the build.
        positive_overlap, negative_overlap, variances: the matching rule.
        frames: `jpeg:QUALITY` or `raw`.
        max_side: frames with a longer side were shrunk to it; None keeps all.
        priors: of the network.
    """

    dataset: str
    title: str
    classes: tuple[str, ...]
    mirrored: tuple[int, ...]
    K: int
    stride: int
    views: int
    seed: int
    positive_overlap: float
    negative_overlap: float
    variances: tuple[float, float, float, float]
    frames: str
    max_side: int | None
    priors: PriorSpec

    def to_json(self) -> dict[str, Any]:
        """As it stands in the attributes of the store's root."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Settings:
        """The inverse of `to_json`.

        Raises:
            InputError: a field is missing, unknown, of another type or absurd.
        """
        try:
            spec = raw["priors"]
            layers = tuple(PriorLayer(**{**layer, "ratios": tuple(layer["ratios"])}) for layer in spec["layers"])
            values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in raw.items()}
            settings = cls(**{**values, "priors": PriorSpec(spec["image_size"], layers)})
            absurd = [n for n, (least, most) in LIMITS.items() if not least <= getattr(settings, n) <= most]
            if absurd or not (0 < settings.image_size <= MOST_IMAGE_SIZE and 0 < settings.priors.priors <= MOST_PRIORS):
                raise ValueError(f"absurd {', '.join(absurd) or 'priors'}")
            return settings
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                "the settings of the store are not what this version knows",
                found=f"{type(error).__name__}: {error}",
                todo="read it with the version that built it, or build it again",
            ) from error

    @property
    def image_size(self) -> int:
        """Side of the network's input, pixels."""
        return self.priors.image_size

    @property
    def digest(self) -> str:
        """Equal for equal settings and format version, and for no others."""
        return digest({"format_version": FORMAT_VERSION, **self.to_json()})


def digest(content: Any) -> str:
    """sha256 of the canonical text of a JSON value, dataclasses among it standing for their fields."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=vars)
    return hashlib.sha256(text.encode()).hexdigest()


def differing(ours: Settings, theirs: Settings) -> list[str]:
    """`name: ours, theirs` of the fields in which two settings differ."""
    pairs = ((f.name, getattr(ours, f.name), getattr(theirs, f.name)) for f in dataclasses.fields(ours))
    return [f"{name}: {a} / {b}" for name, a, b in pairs if a != b]


def salt(shard: str, row: int) -> int:
    """What a row's checksum starts from, so that a row in another row's or shard's place is seen."""
    return google_crc32c.value(f"{shard}:{row}".encode())


def frame_crc32c(shard: str, row: int, encoded: bytes) -> int:
    """Checksum of frame row `row`."""
    return google_crc32c.extend(salt(shard, row), encoded)


def view_heads(
    clips: Integer[np.ndarray, "C 3"],
    rectangle: Integer[np.ndarray, "C views 4"],
    mirrored: Shaped[np.ndarray, "C views"],
    sampler: Integer[np.ndarray, "C views"],
    kept: Integer[np.ndarray, "C views"],
) -> Int64[np.ndarray, "C views 10"]:
    """What a view row's checksum covers beside its targets: video, first row, first frame; the four of `views/`."""
    heads = np.empty((*mirrored.shape, 10), "<i8")
    heads[..., :3] = clips[:, None]
    heads[..., 3:7] = rectangle
    heads[..., 7], heads[..., 8], heads[..., 9] = mirrored, sampler, kept.view(np.int64)
    return heads


def view_crc32c(shard: str, row: int, head: bytes, targets: Iterable[bytes | memoryview]) -> int:
    """Checksum of view row `row`: of its clip, its view, and its targets.

    Args:
        head: the bytes of its `view_heads`.
        targets: the bytes of the row's prior, label, tube, overlap and loc.
    """
    return google_crc32c.extend(salt(shard, row), head + b"".join(targets))


def checked_at_opening(path: str) -> bool:
    """Whether the checksum of a shard's file is checked each time that the shard is opened.

    So are the rows' checksums: a row of another build of the same settings has a good one too, but not the recorded one.
    """
    return path.endswith((".json", ".parquet", "/crc32c/c/0"))


def file_crc32c(path: Path) -> int:
    """Checksum of a whole file."""
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            crc = google_crc32c.extend(crc, block)
    return crc


def check_version(version: object, where: str) -> None:
    """Raises InputError unless a store of this version can be read."""
    if version != FORMAT_VERSION:
        raise InputError(
            f"{where} has another format version",
            found=f"format_version {version!r:.40}",
            wanted=f"format_version {FORMAT_VERSION}",
            todo="build it again with this version of tubelets, or read it with the one that made it",
        )
