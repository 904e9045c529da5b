"""`python -m trainer.detect --checkpoint C VIDEO...`: tubes of any video, as JSON and drawn into an mp4."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path

import click

from data_manifests.errors import quickly_interrupted, run_command_line
from data_manifests.finite import FiniteRange

VARIANCES = (0.1, 0.1, 0.2, 0.2)
SHOWN = 10
"""Tubes of a video that are told on the terminal; all are in its JSON."""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), help="Checkpoint of trainer.run.")
@click.argument("videos", nargs=-1, required=True)
@click.option("--out", default="out/detect", show_default=True, type=click.Path(path_type=Path), help="Folder.")
@click.option(
    "--least-score", type=FiniteRange(0, 1), default=0.2, show_default=True, help="Weaker tubes are not shown."
)
@click.option(
    "--frames",
    type=click.IntRange(min=1),
    help="Only the first so many frames; a camera is recorded until Ctrl-C otherwise.",
)
@click.option(
    "--damaged",
    type=click.Choice(["refuse", "keep"]),
    default="refuse",
    show_default=True,
    help="Videos that do not decode to their end: keep the frames before the damage.",
)
@click.option("--quiet", is_flag=True, help="Print nothing: the tubes are in the JSON files.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--amp/--no-amp", help="Compute in bfloat16, however it was trained: quicker, other scores in the last digits."
)
def cli(
    checkpoint: Path,
    videos: tuple[str, ...],
    out: Path,
    least_score: float,
    frames: int | None,
    damaged: str,
    quiet: bool,
    device: str,
    amp: bool,
) -> None:
    """Finds the tubes of videos: files, folders of images, or a camera's index. No store or annotation is needed.

    \b
    python -m trainer.detect --checkpoint out/demo/checkpoints/last.pt clip.mp4 frames/ --out out/detect
    """
    with quickly_interrupted():
        import torch

        from data_manifests.priors import make_priors
        from trainer.checkpoint import load_model
        from trainer.detection.find import Detector
        from trainer.detection.link import ACT_LINKS
        from trainer.detection.show import check_sources, detect
        from trainer.distributed import device_of

    keep = damaged == "keep"
    for warning in check_sources(videos, out, keep=keep):
        print(f"warning: {warning}", file=sys.stderr)
    where = device_of(device)
    model, meta = load_model(checkpoint)
    priors = torch.from_numpy(make_priors(meta.priors))
    detector = Detector(model.to(where).eval(), priors, VARIANCES, where, amp=amp)
    shortest = max(meta.K, ACT_LINKS.least_frames)
    with redirect_stdout(None if quiet else sys.stdout):
        for source in videos:
            found = detect(
                detector, meta.classes, source, out, least_score=least_score, frames=frames, keep=keep, quiet=quiet
            )
            speed, rate = found["frames_per_second"], found["rate"]
            print(
                f"{source}: {found['frames']} frames, {len(found['tubes'])} tubes, {speed:.1f} frames/s "
                f"({speed / rate:.2f} x the video's {rate:.4g})"
            )
            if found["frames"] < shortest:
                print(f"  too short: a tube takes {shortest} frames")
            for tube in found["tubes"][:SHOWN]:
                last = tube["first_frame"] + len(tube["boxes"]) - 1
                print(f"  {tube['class']} {tube['score']:.2f}  frames {tube['first_frame']} to {last}")
            if len(found["tubes"]) > SHOWN:
                print(f"  and {len(found['tubes']) - SHOWN} more")
        print(f"tubes and pictures: {out}")


def main() -> None:
    """The command line, for `run_command_line`."""
    cli(prog_name="python -m trainer.detect", standalone_mode=False)


if __name__ == "__main__":
    run_command_line(main)
