"""`python -m trainer.evaluate --store S --checkpoint C`: detections, tubes and scores; under torchrun, on many
processes.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import UInt8

from data_manifests.errors import InputError, run_command_line
from data_manifests.tables import boxes_of
from trainer.checkpoint import load_model
from trainer.data.reader import Store
from trainer.data.resample import resample
from trainer.detection.find import Detector, blocks_of
from trainer.detection.link import link
from trainer.detection.tubelets import frame_detections
from trainer.detections_file import Origin, read_findings, write_findings
from trainer.metrics.average_precision import ApRule
from trainer.metrics.figures import Evaluation, VideoFindings, figures, map_figures
from trainer.metrics.frame import Detections, FrameRule, find_boxes
from trainer.metrics.protocol import ACT, ALL_PROTOCOLS, Protocol
from trainer.metrics.truth import Truth
from trainer.metrics.video import TubeDetections
from trainer.model import ActNet
from trainer.pictures import draw_pictures

_calls = itertools.count()


def open_store(path: Path, split: str | None) -> tuple[Store, str]:
    """The videos to score: those of `split`; without one, the test videos, or all if the store has none. With the
    split's name.
    """
    if split:
        return Store.open(path, split), split
    store = Store.open(path)
    there = sorted(set(store.videos["split"].to_pylist()))
    if len(there) > 1 and "test" in there:
        return Store.open(path, "test"), "test"
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


@dataclass(frozen=True)
class _Ranks:
    """The processes that share one evaluation: one, unless torch.distributed runs."""

    rank: int
    world: int

    @classmethod
    def here(cls) -> _Ranks:
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls(0, 1)

    def take(self, places: list[int], call: int) -> Iterator[int]:
        """Each place is given to one of the ranks, the next one to whoever asks first."""
        if self.world == 1:
            yield from places
            return
        counter = dist.distributed_c10d._get_default_store()
        while (turn := counter.add(f"tubelets/evaluation/{call}", 1) - 1) < len(places):
            yield places[turn]

    def wait(self) -> None:
        if self.world > 1:
            dist.barrier()

    def join(self, mine: dict[int, VideoFindings]) -> dict[int, VideoFindings]:
        """What all ranks found, on every rank."""
        if self.world == 1:
            return mine
        parts: list[dict[int, VideoFindings]] = [{} for _ in range(self.world)]
        dist.all_gather_object(parts, mine)
        return {place: findings for part in parts for place, findings in part.items()}

    def tell(self, value: dict[str, Any] | None) -> dict[str, Any]:
        """Rank 0's value, on every rank."""
        box = [value]
        if self.world > 1:
            dist.broadcast_object_list(box, src=0)
        assert box[0] is not None
        return box[0]


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
    progress: Callable[[str, int, int], None] | None = None,
) -> Evaluation | None:
    """Detections and tubes of every video of the store; on rank 0 the evaluation, on the others None.

    Ranks take whole videos from a shared counter, the longest first. With `out`, a folder that all ranks see, each
    video's findings are written to `out/detections` as soon as they are there, and what is found there is not computed
    again; without, they are sent to rank 0 in the end.

    Raises:
        InputError: the checkpoint does not fit the store, its output is not finite, or a file in `out` is damaged or
            of another evaluation.
    """
    check_fit(model, store)
    ranks, call = _Ranks.here(), next(_calls)
    truth = truth_of(store)
    video_ids = store.videos["video_id"].to_pylist()
    folder = out / "detections" if out is not None else None
    origin = Origin.of(model, store.content_digest, protocol)
    priors = torch.from_numpy(store.priors)
    detector = Detector(model, priors, store.meta.variances, device, protocol.detection)
    found: dict[int, VideoFindings] = {}
    longest_first = sorted(range(len(video_ids)), key=lambda place: (-int(truth.frames[place]), place))
    with _same_bits_on_any_rank(model):
        for done, place in enumerate(ranks.take(longest_first, call), start=1):
            findings = read_findings(folder, video_ids[place], origin) if folder else None
            if findings is None:
                findings = _find(detector, store, place, truth, protocol)
                if folder:
                    write_findings(folder, video_ids[place], findings, origin)
            if ranks.rank == 0 or folder is None:
                found[place] = findings
            if progress:
                progress(video_ids[place], done, len(video_ids))
    ranks.wait()
    if folder is None:
        found = ranks.join(found)
    if ranks.rank != 0:
        return None
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
    metrics = None if evaluation is None else _metrics(evaluation, model, store, protocol)
    return _Ranks.here().tell(metrics)


def _metrics(evaluation: Evaluation, model: ActNet, store: Store, protocol: Protocol) -> dict[str, Any]:
    origin = Origin.of(model, store.content_digest, protocol)
    return figures(evaluation, protocol) | {
        "classes": evaluation.classes,
        "K": model.K,
        "store": {"digest": origin.store},
        "checkpoint": {"weights": origin.weights},
        "code": {"name": "tubelets", "version": version("tubelets")},
    }


def write_json(path: Path, value: Any) -> None:
    """Writes JSON whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _points(value: float | None) -> str:
    return "    -" if value is None else f"{100 * value:5.1f}"


def table(metrics: dict[str, Any]) -> str:
    """The figures in points of 100, with the protocol below them."""
    frame, video = metrics["frame_ap"]["0.5"], metrics["video_ap"]
    width = max(len(name) for name in ["mean", *frame])
    lines = [f"{'':{width}}  frame@0.5  video@0.2  video@0.5  video@0.75  video@0.5:0.95"]
    rows = [(name, [frame[name], *(video[overlap][name] for overlap in video)]) for name in frame]
    rows.append(("mean", [metrics["frame_map"]["0.5"], *metrics["video_map"].values()]))
    for name, values in rows:
        cells = "".join(f"{_points(value):>{space}}" for value, space in zip(values, (11, 11, 11, 12, 16), strict=True))
        lines.append(f"{name:{width}}{cells}")
    errors = ", ".join(f"{kind} {_points(value).strip()}" for kind, value in metrics["errors"]["mean"].items())
    lines += ["", f"frames at 0.5, of 100: {errors}", f"protocol: {metrics['protocol']['name']}"]
    lines += textwrap.wrap(metrics["protocol"]["words"], 110, initial_indent="  ", subsequent_indent="  ")
    lines += [f"{what.replace('_', ' ')}: {', '.join(names)}" for what, names in metrics["left_out"].items() if names]
    return "\n".join(lines)


def protocol_table(evaluation: Evaluation) -> tuple[str, list[dict[str, Any]]]:
    """The same detections under each published protocol: as text, and as the figures."""
    detections = Detections.of([one.detections for one in evaluation.findings])
    tubes = TubeDetections.of([one.tubes for one in evaluation.findings])
    lines, rows = [], []
    for protocol in ALL_PROTOCOLS:
        figure = map_figures(detections, tubes, evaluation.truth, evaluation.classes, protocol)
        rows.append({"protocol": protocol.name, "frame_map": figure["frame_map"], "video_map": figure["video_map"]})
        cells = [figure["frame_map"]["0.5"], *figure["video_map"].values()]
        lines.append(f"{protocol.name:34}" + "".join(f"{_points(value):>16}" for value in cells))
    names = ["frame@0.5", *(f"video@{overlap}" for overlap in rows[0]["video_map"])]
    head = f"{'protocol':34}" + "".join(f"{name:>16}" for name in names)
    return "\n".join([head, *lines]), rows


def _progress(quiet: bool) -> Callable[[str, int, int], None] | None:
    if quiet or not sys.stderr.isatty():
        return None
    begun = time.monotonic()

    def show(video_id: str, done: int, total: int) -> None:
        rate = done / (time.monotonic() - begun)
        print(f"\r\x1b[K{done}/{total} videos, {rate:.1f}/s  {video_id}", end="", file=sys.stderr, flush=True)
        if done == total:
            print(file=sys.stderr)

    return show


def _join_ranks(device: str) -> tuple[torch.device, bool]:
    """The device of this process, and whether it joined others (torchrun sets WORLD_SIZE)."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    together = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if device == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
    if together:
        dist.init_process_group("gloo")
    return torch.device(device), together


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--store", "store_path", required=True, type=click.Path(path_type=Path), help="Store to score on.")
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), help="Checkpoint to score.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures here too.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for detections, figures and pictures; an interrupted evaluation goes on from it. "
    "[default: evaluation-<weights>-<store> beside the checkpoint]",
)
@click.option("--split", help="Videos to score. [default: test, or all if the store has no test videos]")
@click.option("--ap-rule", type=click.Choice(get_args(ApRule)), default="act", show_default=True)
@click.option("--frames", type=click.Choice(get_args(FrameRule)), default="all", show_default=True)
@click.option("--link", "link_rule", type=click.Choice(["act"]), default="act", show_default=True)
@click.option("--all-protocols", is_flag=True, help="Also print the same detections under each published protocol.")
@click.option("--pictures", default=0, show_default=True, help="Draw this many videos with their tubes.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
def cli(
    store_path: Path,
    checkpoint: Path,
    json_file: Path | None,
    out: Path | None,
    split: str | None,
    ap_rule: ApRule,
    frames: FrameRule,
    link_rule: str,
    all_protocols: bool,
    pictures: int,
    device: str,
) -> None:
    """Scores a checkpoint on the videos of a store: frame-mAP, video-mAP, error split, by a named protocol.

    \b
    python -m trainer.evaluate --store stores/demo-test --checkpoint out/demo/last.pt --pictures 6
    torchrun --nproc-per-node 8 -m trainer.evaluate --store stores/ucf101-test --checkpoint last.pt
    """
    where, together = _join_ranks(device)
    try:
        store, split = open_store(store_path, split)
        model, meta = load_model(checkpoint)
        if meta.classes != store.meta.classes:
            raise InputError(
                f"checkpoint {checkpoint} and store {store_path} differ in their classes",
                found=", ".join(meta.classes),
                wanted=", ".join(store.meta.classes),
                todo="evaluate it on a store of its own dataset",
            )
        model.to(where).eval()
        protocol = Protocol(ap_rule=ap_rule, frames=frames)
        origin = Origin.of(model, store.content_digest, protocol)
        out = out or checkpoint.parent / f"evaluation-{origin.weights[:8]}-{origin.store[:8]}"
        rank = _Ranks.here().rank
        evaluation = find_all(model, store, device=where, out=out, protocol=protocol, progress=_progress(rank != 0))
        if evaluation is None:
            return
        metrics = _metrics(evaluation, model, store, protocol)
        metrics["store"] |= {"path": str(store_path), "split": split}
        metrics["checkpoint"] |= {"path": str(checkpoint), "step": meta.step}
        print(f"{len(evaluation.video_ids)} {split} videos of {store_path}, {checkpoint}")
        print(table(metrics))
        if all_protocols:
            text, metrics["all_protocols"] = protocol_table(evaluation)
            print(f"\n{text}")
        write_json(out / "metrics.json", metrics)
        if json_file:
            write_json(json_file, metrics)
        if pictures:
            drawn = draw_pictures(
                evaluation, lambda name, frame: store.frames(name, frame, frame + 1)[0], out / "pictures", pictures
            )
            print(f"pictures of {len(drawn)} videos: {out / 'pictures'}")
        print(f"figures and detections: {out}")
    finally:
        if together:
            dist.destroy_process_group()


def main() -> None:
    """The command line, for `run_command_line`."""
    try:
        cli(standalone_mode=False)
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    run_command_line(main)
