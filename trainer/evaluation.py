"""Scoring a network on a store: detections and tubes of every video, by any number of processes, and the figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import torch
from jaxtyping import Integer, UInt8

from data_manifests.errors import InputError
from data_manifests.manifest import remove_unfinished, write_atomically
from data_manifests.tables import boxes_of
from trainer.data.cached import open_place, splits_at
from trainer.data.reader import Store
from trainer.data.resample import resample
from trainer.detection.find import Detector, blocks_of
from trainer.detection.link import link
from trainer.detection.tubelets import frame_detections
from trainer.detections_file import Origin, read_findings, write_findings
from trainer.metrics.figures import Evaluation, VideoFindings, figures
from trainer.metrics.frame import find_boxes
from trainer.metrics.protocol import ACT, Protocol
from trainer.metrics.truth import Truth
from trainer.model import ActNet
from trainer.peers import Peers
from trainer.place import Place, Remote


def open_store(place: Place, split: str | None) -> tuple[Store, str]:
    """The videos to score: those of `split`; without one, the test videos, or all if the store has none. With the
    split's name.
    """
    if not split and isinstance(place, Remote) and "test" in splits_at(place):
        split = "test"  # no other is fetched to find that out
    if split:
        return open_place(place, split), split
    store = open_place(place)
    there = sorted(set(store.videos["split"].to_pylist()))
    if len(there) > 1 and "test" in there:
        del store  # and with it the room that its shards take
        return open_place(place, "test"), "test"
    return store, ", ".join(there)


def truth_of(store: Store) -> Truth:
    """The ground truth of a store's videos, in the order of its `videos` table."""
    place = {video_id: i for i, video_id in enumerate(store.videos["video_id"].to_pylist())}
    of_video: list[list[int]] = [[] for _ in place]
    for row, video_id in enumerate(store.tubes["video_id"].to_pylist()):
        of_video[place[video_id]].append(row)
    labels, first_frames = store.tubes["label"].to_pylist(), store.tubes["first_frame"].to_pylist()
    tubes = [
        (i, labels[row], first_frames[row], boxes_of(store.tubes, row))
        for i, rows in enumerate(of_video)
        for row in rows
    ]
    return Truth.of(store.videos["frames"].to_pylist(), tubes)


def check_fit(model: ActNet, store: Store) -> None:
    """Raises InputError if the network is not one for this store's classes, K or priors."""
    settings = store.meta
    for what, found, wanted in (
        ("frames a clip (K)", model.K, settings.K),
        ("classes", model.classes, len(settings.classes)),
        ("priors", model.spec, settings.priors),
    ):
        if found != wanted:
            raise InputError(
                f"the checkpoint and the store differ in their {what}",
                found=f"{found} in the checkpoint",
                wanted=f"{wanted}, the store's",
                todo="evaluate it on a store built with its own settings, or give the checkpoint trained on this one",
            )


@contextmanager
def _same_bits_on_any_rank(model: ActNet) -> Iterator[None]:
    """Evaluation mode, and two threads at least: with one, torch takes other convolutions, whose roundings differ.

    torchrun gives each of several processes one thread; from two on, their number changes no bit.
    """
    threads, training = torch.get_num_threads(), model.training
    torch.set_num_threads(max(2, threads))
    model.eval()
    try:
        yield
    finally:
        model.train(training)
        torch.set_num_threads(threads)


def longest_first(frames: Integer[np.ndarray, "videos"]) -> list[int]:
    """The order in which videos of these lengths are taken, so that no rank ends with a long one."""
    return sorted(range(len(frames)), key=lambda place: (-int(frames[place]), place))


def _find(detector: Detector, store: Store, place: int, truth: Truth, protocol: Protocol) -> VideoFindings:
    video = {name: store.videos[name][place].as_py() for name in ("video_id", "frames", "width", "height")}
    whole = np.array([0, 0, video["width"], video["height"]], np.int16)

    def read(start: int, stop: int) -> UInt8[np.ndarray, "_ size size 3"]:
        return resample(store.frames(video["video_id"], start, stop), whole, False, store.meta.priors.image_size)

    blocks = blocks_of(read, video["frames"]) if video["frames"] >= detector.model.K else iter(())
    tubelets = detector.video(blocks, video["frames"], video["width"], video["height"], video["video_id"])
    return VideoFindings(
        frame_detections(tubelets, overlap=protocol.frame_overlap),
        link(tubelets, protocol.links),
        find_boxes(tubelets, truth.of_video(place)),
    )


def find_all(
    model: ActNet,
    store: Store,
    *,
    device: torch.device,
    out: Path | None,
    protocol: Protocol = ACT,
    amp: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Evaluation | None:
    """Detections and tubes of every video of the store; on rank 0 the evaluation, on the others None.

    Ranks take whole videos from a shared counter, the longest first. With `out`, a folder that all ranks see, each
    video's findings are written to `out/detections` as soon as they are there, and what is found there is not computed
    again; without, they are sent to rank 0 in the end.

    Args:
        amp: as in `Detector`.
        progress: called when this rank is done with a video: its id, how many videos all ranks have taken, and all.

    Raises:
        InputError: the checkpoint does not fit the store, its output is not finite, or a file in `out` is damaged or
            of another evaluation.
    """
    check_fit(model, store)
    peers = Peers.here()
    if out is not None and peers.rank == 0:
        check_writable(out)
    truth = truth_of(store)
    video_ids = store.videos["video_id"].to_pylist()
    folder = out / "detections" if out is not None else None
    origin = Origin.of(model, store.content_digest, protocol, amp=amp)
    priors = torch.from_numpy(store.priors)
    detector = Detector(model, priors, store.meta.variances, device, protocol.detection, amp)
    found: dict[int, VideoFindings] = {}
    with _same_bits_on_any_rank(model):
        for taken, place in peers.take(longest_first(truth.frames)):
            findings = read_findings(folder, video_ids[place], origin) if folder else None
            if findings is None:
                findings = _find(detector, store, place, truth, protocol)
                if folder:
                    write_findings(folder, video_ids[place], findings, origin)
            if peers.rank == 0 or folder is None:
                found[place] = findings
            if progress:
                progress(video_ids[place], taken, len(video_ids))
    peers.wait()
    if folder is None:
        found = peers.gather(found)
    if peers.rank != 0:
        return None
    if folder is not None:
        remove_unfinished(folder)
    for place, name in enumerate(video_ids):
        if place not in found:
            assert folder is not None
            again = read_findings(folder, name, origin)
            if again is None:
                raise InputError(
                    f"the detections of {name} are not in {folder}",
                    wanted="a folder that all ranks share",
                    todo="give an --out on a file system that all machines see",
                )
            found[place] = again
    in_order = [found[place] for place in range(len(video_ids))]
    return Evaluation(video_ids, list(store.meta.classes), model.K, truth, in_order)


def evaluate_store(
    model: ActNet,
    store: Store,
    *,
    device: torch.device,
    out: Path | None = None,
    protocol: Protocol = ACT,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Scores a network on all videos of a store: the dictionary of `metrics.json`, equal on every rank.

    Every rank calls it with the same arguments. The result does not depend on the number of ranks. See `find_all`.
    """
    evaluation = find_all(model, store, device=device, out=out, protocol=protocol, progress=progress)
    metrics = None if evaluation is None else metrics_of(evaluation, model, store, protocol)
    return Peers.here().tell(metrics)


def metrics_of(evaluation: Evaluation, model: ActNet, store: Store, protocol: Protocol) -> dict[str, Any]:
    """The dictionary of `metrics.json`: the figures, and what they are of."""
    origin = Origin.of(model, store.content_digest, protocol)
    return figures(evaluation, protocol) | {
        "classes": evaluation.classes,
        "K": model.K,
        "store": {"digest": origin.store},
        "checkpoint": {"weights": origin.weights},
        "code": {"name": "tubelets", "version": version("tubelets")},
    }


def check_writable(folder: Path) -> None:
    """Makes a folder and sees that files can be written there: before the work of hours, not after it."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder):
        pass


def write_json(path: Path, value: Any) -> None:
    """Writes JSON whole or not at all."""
    write_atomically(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())
