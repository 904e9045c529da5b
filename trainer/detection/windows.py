"""Each frame through the backbone once, the heads over every K consecutive frames.

A frame's maps do not depend on its place in the clip, so a clip shares K - 1 of its K frames' maps with the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from trainer.model import ActNet


def sliding_heads(
    model: ActNet, blocks: Iterable[UInt8[Tensor, "_ size size 3"]], *, windows: int = 8, amp: bool = False
) -> Iterator[tuple[Float[Tensor, "b P K 4"], Float[Tensor, "b P labels"]]]:
    """Offsets and logits of a video's clips 0, 1, 2, ... in batches of at most `windows`.

    Memory is bounded by one block of frames and K - 1 frames' maps, however long the video is. What comes out depends
    on how the frames are cut into blocks by no more than float32's rounding.

    Args:
        model: in evaluation mode, on the device of the blocks.
        blocks: the video's frames in order, resized to the network's input, RGB.
        amp: computes in bfloat16 where autocast would; so are what comes out, and the maps in memory, but for conv4_3's.
    """
    K = model.K
    if model.backbone.fc6_dilation != "6":
        yield from _whole_clips(model, blocks, windows, amp)
        return
    held: list[Tensor] = []
    for block in blocks:
        with _arithmetic(block, amp):
            maps = model.features(model.normalise(block))
            if held:
                maps = [torch.cat((old, new)) for old, new in zip(held, maps, strict=True)]
        clips = len(maps[0]) - K + 1
        for first in range(0, clips, windows):
            count = min(windows, clips - first)
            joined = [m[first : first + count + K - 1].unfold(0, K, 1).movedim(-1, 1) for m in maps]
            with _arithmetic(block, amp):
                output = model.heads(joined)
            yield output
        held = [m[max(clips, 0) :].clone() for m in maps]


@contextmanager
def _arithmetic(block: Tensor, amp: bool) -> Iterator[None]:
    """Float32 is a CPU's also on a GPU, where convolutions would else be computed with 10 bits of mantissa (TF32)."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.no_grad(), torch.autocast(block.device.type, torch.bfloat16, enabled=amp):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _whole_clips(
    model: ActNet, blocks: Iterable[UInt8[Tensor, "_ size size 3"]], windows: int, amp: bool
) -> Iterator[tuple[Float[Tensor, "b P K 4"], Float[Tensor, "b P labels"]]]:
    """For a network whose features depend on a frame's place in the clip: K times the work."""
    held: list[Tensor] = []
    for block in blocks:
        frames = torch.cat((*held, block))
        clips = len(frames) - model.K + 1
        for first in range(0, clips, windows):
            count = min(windows, clips - first)
            stacked = frames[first : first + count + model.K - 1].unfold(0, model.K, 1).movedim(-1, 1)
            with _arithmetic(block, amp):
                output = model(model.normalise(stacked))
            yield output
        held = [frames[max(clips, 0) :]]
