"""`python -m trainer.evaluate --store S --checkpoint C`: detections, tubes and scores; under torchrun, on many processes."""

from __future__ import annotations

import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from data_manifests.errors import InputError, quickly_interrupted, run_command_line
from trainer.metrics.rules import ApRule, FrameRule
from trainer.place import Place, cache_options, place_of

if TYPE_CHECKING:
    from trainer.checkpoint import CheckpointMeta
    from trainer.data.reader import Store


EVERY = 30.0
"""Seconds between two lines of progress where stderr is no terminal."""


class _Progress:
    """Videos done, their rate and the time left, on stderr: one line that is written over and over in a terminal, a
    plain one every `EVERY` seconds in a pipe or a file.
    """

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._begun = self._told = time.monotonic()

    def __call__(self, video_id: str, done: int, total: int) -> None:
        now = time.monotonic()
        rate = done / (now - self._begun)
        text = f"{done}/{total} videos  {rate:.1f}/s  {(total - done) / rate / 60:.1f} min left"
        if self._terminal:
            print(f"\r\x1b[K{text}  {video_id}", end="", file=sys.stderr, flush=True)
        elif now - self._told >= EVERY:
            self._told = now
            print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Ends the line, also where another rank took the last video."""
        if self._terminal:
            print(file=sys.stderr)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--store", required=True, help="Store to score on: a folder, or a URL with --cache.")
@cache_options
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), help="Checkpoint to score.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures here too.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for detections, figures and pictures; an interrupted evaluation goes on from it, and one by another "
    "protocol takes its detections and has figures of its own beside them; metrics.json has the last. "
    "[default: evaluation-<weights>-<store> beside the checkpoint]",
)
@click.option("--split", help="Videos to score. [default: test, or all if the store has no test videos]")
@click.option("--ap-rule", type=click.Choice(get_args(ApRule)), default="act", show_default=True)
@click.option("--frames", type=click.Choice(get_args(FrameRule)), default="all", show_default=True)
@click.option("--all-protocols", is_flag=True, help="Also print the same detections under each published protocol.")
@click.option(
    "--pictures",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Draw this many videos with their tubes.",
)
@click.option("--quiet", is_flag=True, help="Print nothing: the figures are in metrics.json.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--amp/--no-amp", help="Compute in bfloat16, however it was trained: quicker, other figures in the last digits."
)
def cli(
    store: str,
    cache: Path | None,
    cache_gb: float,
    checkpoint: Path,
    json_file: Path | None,
    out: Path | None,
    split: str | None,
    ap_rule: ApRule,
    frames: FrameRule,
    all_protocols: bool,
    pictures: int,
    quiet: bool,
    device: str,
    amp: bool,
) -> None:
    """Scores a checkpoint on the videos of a store: frame-mAP, video-mAP, error split, by a named protocol.

    \b
    python -m trainer.evaluate --store stores/demo-test --checkpoint out/demo/checkpoints/last.pt --pictures 6
    torchrun --nproc-per-node 8 -m trainer.evaluate --store stores/ucf101-test --checkpoint last.pt
    """
    with quickly_interrupted():
        from trainer.checkpoint import load_model
        from trainer.detections_file import Origin
        from trainer.distributed import join, leave, together
        from trainer.evaluation import check_writable, find_all, metrics_of, open_store, write_json
        from trainer.evaluation_table import protocol_table, table
        from trainer.metrics.protocol import Protocol
        from trainer.pictures import draw_pictures

    ranks = join(device, "gloo")
    try:
        place = place_of(store, cache, cache_gb)
        with redirect_stdout(None if quiet else sys.stdout), together(ranks):
            opened, split = open_store(place, split)
            model, meta = load_model(checkpoint)
            _check_classes(meta, checkpoint, opened, place)
            if json_file is not None and ranks.first:
                if json_file.is_dir():
                    raise InputError(f"--json {json_file} is a folder", wanted="a file", todo="name one in it")
                check_writable(json_file.parent)
            model.to(ranks.device).eval()
            protocol = Protocol(ap_rule=ap_rule, frames=frames)
            origin = Origin.of(model, opened.content_digest, protocol)
            name = f"evaluation-{origin.weights[:8]}-{origin.store[:8]}{'-amp' if amp else ''}"
            out = out or checkpoint.parent / name
            progress = _Progress() if ranks.first and not quiet else None
            evaluation = find_all(
                model, opened, device=ranks.device, out=out, protocol=protocol, amp=amp, progress=progress
            )
            if progress:
                progress.end()
            if evaluation is None:
                return
            metrics = metrics_of(evaluation, model, opened, protocol)
            lies_at = place.absolute() if isinstance(place, Path) else place  # it is read from other folders too
            metrics["store"] |= {"path": str(lies_at), "split": split}
            metrics["checkpoint"] |= {"path": str(checkpoint), "step": meta.step}
            metrics["amp"] = amp
            protocols = ""
            if all_protocols:
                protocols, metrics["all_protocols"] = protocol_table(evaluation)
            for file in (out / protocol.file_name, out / "metrics.json", json_file):
                if file:
                    write_json(file, metrics)  # before anything is printed, which may fail
            print(
                f"{len(evaluation.video_ids)} {split} videos of {place}, {checkpoint}{', bfloat16' if amp else ''}\n{table(metrics)}"
            )
            if protocols:
                print(f"\n{protocols}")
            if pictures:
                drawn = draw_pictures(
                    evaluation, lambda name, frame: opened.frames(name, frame, frame + 1)[0], out / "pictures", pictures
                )
                print(f"pictures of {len(drawn)} videos: {out / 'pictures'}")
            print(f"figures and detections: {out}")
    finally:
        leave()


def _check_classes(meta: CheckpointMeta, checkpoint: Path, store: Store, place: Place) -> None:
    if meta.classes != store.meta.classes:
        raise InputError(
            f"checkpoint {checkpoint} and store {place} differ in their classes",
            found=", ".join(meta.classes),
            wanted=", ".join(store.meta.classes),
            todo="evaluate it on a store of its own dataset",
        )


def main() -> None:
    """The command line, for `run_command_line`."""
    cli(prog_name="python -m trainer.evaluate", standalone_mode=False)


if __name__ == "__main__":
    run_command_line(main)
