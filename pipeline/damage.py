"""Damage within a video's bytes, as against what is wrong with its name, place or size."""

from __future__ import annotations

from pathlib import Path

from data_manifests.containers import Blocks, missing_bytes
from data_manifests.errors import InputError


class DamagedVideo(InputError):
    """A video's bytes are damaged. The frames that came before are good, and may be kept."""


def check_whole(path: Path) -> None:
    """Raises DamagedVideo if a video file was cut off, by the sizes in its own container."""
    missing = missing_bytes(path)
    if missing:
        raise DamagedVideo(
            f"{path} is cut off",
            found=f"{path.stat().st_size:,} bytes",
            wanted=f"at least {missing:,} bytes more, by its own container",
            todo="fetch the file again, take the video out of the lists, or build with --damaged keep",
        )


def check_blocks(path: Path, blocks: Blocks | None) -> None:
    """Raises DamagedVideo if the parts of a Matroska file, walked through, do not fit together."""
    if blocks is not None and blocks.misplaced is not None:
        raise DamagedVideo(
            f"{path} is damaged",
            found=f"what lies at byte {blocks.misplaced:,} is no part of a Matroska file",
            wanted="a whole video",
            todo="fetch the file again, take the video out of the lists, or build with --damaged keep",
        )
