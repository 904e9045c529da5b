"""`python -m trainer.evaluate --store S --checkpoint C`: detections, tubes and scores; under torchrun, on many processes."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, get_args

import click

from data_manifests.errors import InputError, run_command_line
from trainer.checkpoint import CheckpointMeta, load_model
from trainer.data.reader import Store
from trainer.detections_file import Origin
from trainer.distributed import join, leave, together
from trainer.evaluation import evaluate_store, find_all, metrics_of, open_store, write_json
from trainer.metrics.average_precision import ApRule
from trainer.metrics.figures import Evaluation, map_figures
from trainer.metrics.frame import Detections, FrameRule
from trainer.metrics.protocol import ALL_PROTOCOLS, Protocol
from trainer.metrics.video import TubeDetections
from trainer.pictures import draw_pictures

__all__ = ["evaluate_store"]


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
@click.option("--quiet", is_flag=True, help="Print nothing: the figures are in metrics.json.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
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
    quiet: bool,
    device: str,
) -> None:
    """Scores a checkpoint on the videos of a store: frame-mAP, video-mAP, error split, by a named protocol.

    \b
    python -m trainer.evaluate --store stores/demo-test --checkpoint out/demo/last.pt --pictures 6
    torchrun --nproc-per-node 8 -m trainer.evaluate --store stores/ucf101-test --checkpoint last.pt
    """
    ranks = join(device, "gloo")
    try:
        with redirect_stdout(None if quiet else sys.stdout), together(ranks):
            store, split = open_store(store_path, split)
            model, meta = load_model(checkpoint)
            _check_classes(meta, checkpoint, store, store_path)
            model.to(ranks.device).eval()
            protocol = Protocol(ap_rule=ap_rule, frames=frames)
            origin = Origin.of(model, store.content_digest, protocol)
            out = out or checkpoint.parent / f"evaluation-{origin.weights[:8]}-{origin.store[:8]}"
            progress = _progress(quiet or not ranks.first)
            evaluation = find_all(model, store, device=ranks.device, out=out, protocol=protocol, progress=progress)
            if evaluation is None:
                return
            metrics = metrics_of(evaluation, model, store, protocol)
            metrics["store"] |= {"path": str(store_path), "split": split}
            metrics["checkpoint"] |= {"path": str(checkpoint), "step": meta.step}
            print(f"{len(evaluation.video_ids)} {split} videos of {store_path}, {checkpoint}\n{table(metrics)}")
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
        leave()


def _check_classes(meta: CheckpointMeta, checkpoint: Path, store: Store, store_path: Path) -> None:
    if meta.classes != store.meta.classes:
        raise InputError(
            f"checkpoint {checkpoint} and store {store_path} differ in their classes",
            found=", ".join(meta.classes),
            wanted=", ".join(store.meta.classes),
            todo="evaluate it on a store of its own dataset",
        )


def main() -> None:
    """The command line, for `run_command_line`."""
    cli(prog_name="python -m trainer.evaluate", standalone_mode=False)


if __name__ == "__main__":
    run_command_line(main)
