"""What was found in one video, as one file: written whole or not at all, and never taken for another checkpoint's."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_manifests.errors import InputError
from data_manifests.manifest import write_atomically
from trainer.detection.link import Tubes
from trainer.detection.tubelets import FrameDetections
from trainer.metrics.figures import VideoFindings
from trainer.metrics.frame import BoxFindings
from trainer.metrics.protocol import Protocol
from trainer.model import ActNet

FORMAT_VERSION = 1
_PARTS: dict[str, type] = {"detections": FrameDetections, "tubes": Tubes, "boxes": BoxFindings}


@dataclass(frozen=True)
class Origin:
    """What detections come from. Two files of equal origin hold equal detections.

    Args:
        weights: digest of the network's weights.
        store: digest of the store that the frames and the ground truth were read from.
        found_by: what else decides detections and tubes: settings of the protocol, and whether bfloat16 was used.
    """

    weights: str
    store: str
    found_by: str

    @classmethod
    def of(cls, model: ActNet, store_digest: str, protocol: Protocol, *, amp: bool = False) -> Origin:
        """Of what a network finds in a store (its `content_digest`) by a protocol; `amp` as in `Detector`."""
        return cls(weights_digest(model), store_digest, found_by(protocol.fields(), amp=amp))


def found_by(settings: Mapping[str, Any], *, amp: bool) -> str:
    """`Origin.found_by` of a protocol's fields."""
    deciding = {name: settings[name] for name in ("link", "frame_overlap", "detection", "links")}
    return json.dumps(deciding | {"amp": True} if amp else deciding, sort_keys=True)


def weights_digest(model: ActNet) -> str:
    """sha256 over the names, shapes and bytes of all weights: the same for a checkpoint, whatever else its file
    carries.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def place_of(folder: Path, video_id: str) -> Path:
    """`folder/Class/name.npz`."""
    return folder / f"{video_id}.npz"


def write_findings(folder: Path, video_id: str, findings: VideoFindings, origin: Origin) -> None:
    """Writes one video's findings, whole or not at all.

    The bytes depend on the findings and the origin alone. Plain `numpy.load` opens the file.
    """
    header = {"version": FORMAT_VERSION, "video": video_id} | vars(origin)
    arrays: dict[str, Any] = {"header": np.frombuffer(json.dumps(header, sort_keys=True).encode(), np.uint8)}
    for part in _PARTS:
        value = getattr(findings, part)
        arrays |= {f"{part}.{field.name}": getattr(value, field.name) for field in fields(value)}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(place_of(folder, video_id), buffer.getbuffer())


def read_findings(folder: Path, video_id: str, origin: Origin) -> VideoFindings | None:
    """One video's findings; None if they were not written yet.

    Raises:
        InputError: the file is damaged, or of another checkpoint, store or protocol.
    """
    path = place_of(folder, video_id)
    if not path.exists():
        return None
    again = f"remove {path}, then run the same command again: only that video is computed anew"
    try:
        with np.load(path, allow_pickle=False) as archive:
            header = json.loads(archive["header"].tobytes())
            arrays = {name: archive[name] for name in archive.files if name != "header"}
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError) as error:
        raise InputError(
            f"the detections file {path} is damaged", found=str(error), wanted="a whole .npz file", todo=again
        ) from error
    wanted = {"version": FORMAT_VERSION, "video": video_id} | vars(origin)
    for name, value in wanted.items():
        if header.get(name) != value:
            raise InputError(
                f"the detections file {path} is not of this evaluation: its {name} differs",
                found=str(header.get(name)),
                wanted=str(value),
                todo="give another --out, or remove that folder",
            )
    parts = {
        part: kind(**{field.name: arrays[f"{part}.{field.name}"] for field in fields(kind)})
        for part, kind in _PARTS.items()
    }
    return VideoFindings(parts["detections"], parts["tubes"], parts["boxes"])
