"""The ACT network: one backbone for all frames, heads over the K concatenated feature maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from data_manifests.errors import InputError
from data_manifests.prior_spec import PriorSpec
from trainer.model.backbone import SOURCES, Dilation, Norm, VGG16Atrous, map_sides

MEAN_RGB = (123.0, 117.0, 104.0)
"""The mean that ACT and SSD subtract (104, 117, 123 in their BGR order)."""


class ActNet(nn.Module):
    """Scores and regresses P prior tubelets of a K-frame clip.

    Kalogeiton et al., Action Tubelet Detector for Spatio-Temporal Action Localization, ICCV 2017, section 3.1.

    Args:
        spec: the priors; one head a layer.
        classes: number of action classes, background not counted.
        K: frames a clip.
        width: the backbone's width multiplier.
        norm: the backbone's normalisation.
        fc6_dilation: see `VGG16Atrous`.

    Raises:
        InputError: the priors are not of this network's maps.
    """

    def __init__(
        self,
        spec: PriorSpec,
        classes: int,
        K: int,
        width: float = 1.0,
        norm: Norm = "none",
        fc6_dilation: Dilation = "6",
    ) -> None:
        super().__init__()
        _check_grids(spec)
        self.spec, self.classes, self.K = spec, classes, K
        self.backbone = VGG16Atrous(width, norm, fc6_dilation)
        self.loc = nn.ModuleList()
        self.conf = nn.ModuleList()
        for layer, channels in zip(spec.layers, self.backbone.channels, strict=True):
            self.loc.append(nn.Conv2d(K * channels, layer.priors_per_cell * K * 4, 3, padding=1))
            self.conf.append(nn.Conv2d(K * channels, layer.priors_per_cell * (classes + 1), 3, padding=1))
        self.register_buffer("mean", torch.tensor(MEAN_RGB).view(3, 1, 1), persistent=False)
        self.mean: Tensor

    def normalise(self, frames: UInt8[Tensor, "*batch size size 3"]) -> Float[Tensor, "*batch 3 size size"]:
        """RGB bytes to the backbone's input: channels first, minus the mean, on the frames' device."""
        return frames.movedim(-1, -3).float() - self.mean

    def features(self, images: Float[Tensor, "n 3 size size"]) -> list[Tensor]:
        """The six maps of each frame, (n, c, h, w); not for `act-released`, where a frame's place matters."""
        assert self.backbone.fc6_dilation == "6" or self.K == 1
        return self.backbone(images)

    def heads(self, maps: Sequence[Tensor]) -> tuple[Float[Tensor, "b P K 4"], Float[Tensor, "b P labels"]]:
        """Offsets and class logits (0 = background) from maps of shape (b, K, c, h, w).

        Priors are ordered by layer, row, column, prior: the order of `STORE/priors`.
        """
        locs, confs = [], []
        for stacked, loc, conf in zip(maps, self.loc, self.conf, strict=True):
            joined = stacked.flatten(1, 2)
            locs.append(loc(joined).permute(0, 2, 3, 1).reshape(len(joined), -1, self.K, 4))
            confs.append(conf(joined).permute(0, 2, 3, 1).reshape(len(joined), -1, self.classes + 1))
        return torch.cat(locs, 1), torch.cat(confs, 1)

    def forward(
        self, images: Float[Tensor, "b K 3 size size"]
    ) -> tuple[Float[Tensor, "b P K 4"], Float[Tensor, "b P labels"]]:
        """`heads` of the `features` of all b * K frames."""
        maps = self.backbone(images.flatten(0, 1), self.K)
        return self.heads([m.unflatten(0, (-1, self.K)) for m in maps])


def _check_grids(spec: PriorSpec) -> None:
    found, wanted = [layer.grid for layer in spec.layers], map_sides(spec.image_size)
    if min(wanted) < 1:
        raise InputError(
            f"frames of {spec.image_size} x {spec.image_size} are too small for the network",
            wanted="6 maps of a cell or more", todo="let the card's priors have a larger image_size, and build the store again",
        )  # fmt: skip
    if found != wanted:
        raise InputError(
            f"the priors do not fit the network's maps of {', '.join(SOURCES)}",
            found=f"grids of {', '.join(map(str, found))} cells a side",
            wanted=f"{', '.join(map(str, wanted))}, for frames of {spec.image_size} x {spec.image_size}",
            todo="mend the card's priors, and build the store again",
        )
