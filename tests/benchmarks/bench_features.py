"""Each frame through the backbone once, against the whole network on every clip."""

from __future__ import annotations

import torch

from data_manifests.prior_spec import ACT300
from tests.benchmarks.harness import Row, compare
from trainer.detection.windows import sliding_heads
from trainer.model import ActNet

K, FRAMES = 6, 21


def multiplications(model: ActNet) -> tuple[float, float]:
    """Multiply-adds of one frame's features, and of the heads on one clip."""
    counts = {"features": 0.0, "heads": 0.0}
    part = "features"

    def count(module: torch.nn.Conv2d, _: object, output: torch.Tensor) -> None:
        counts[part] += output[0].numel() * module.weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    with torch.no_grad():
        maps = model.features(torch.zeros(1, 3, 300, 300))
        part = "heads"
        model.heads([m[None].expand(1, model.K, -1, -1, -1) for m in maps])
    for hook in hooks:
        hook.remove()
    return counts["features"], counts["heads"]


def bench() -> list[Row]:
    """At width 1 (the reference network), 24 classes."""
    torch.manual_seed(0)
    model = ActNet(ACT300, 24, K, 1.0).eval()
    frames = torch.randint(0, 256, (FRAMES, 300, 300, 3), dtype=torch.uint8)
    clips = FRAMES - K + 1

    @torch.no_grad()
    def naive() -> None:
        for first in range(clips):
            model(model.normalise(frames[None, first : first + K]))

    frame, heads = multiplications(model)
    here = clips * (K * frame + heads) / (FRAMES * frame + clips * heads)
    endless = (K * frame + heads) / (frame + heads)
    return [
        compare(
            f"features once a frame, K = {K}, {clips} clips (operations: {here:.2f}; {endless:.2f} in a long video)",
            lambda: list(sliding_heads(model, frames.split(8))),
            naive,
            peer_name="whole network on each clip",
            samples=2,
            wanted=3,
        )
    ]
