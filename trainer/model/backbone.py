"""VGG16 à trous: the trunk whose weights all frames share."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from data_manifests.errors import InputError

Norm = Literal["none", "batch"]
Dilation = Literal["6", "act-released"]

# name, output channels at width 1, kernel, stride, padding, dilation; None is a pooling layer
_TRUNK: tuple[tuple[str, int, int, int, int, int] | str, ...] = (
    ("conv1_1", 64, 3, 1, 1, 1),
    ("conv1_2", 64, 3, 1, 1, 1),
    "pool1",
    ("conv2_1", 128, 3, 1, 1, 1),
    ("conv2_2", 128, 3, 1, 1, 1),
    "pool2",
    ("conv3_1", 256, 3, 1, 1, 1),
    ("conv3_2", 256, 3, 1, 1, 1),
    ("conv3_3", 256, 3, 1, 1, 1),
    "pool3",
    ("conv4_1", 512, 3, 1, 1, 1),
    ("conv4_2", 512, 3, 1, 1, 1),
    ("conv4_3", 512, 3, 1, 1, 1),
    "pool4",
    ("conv5_1", 512, 3, 1, 1, 1),
    ("conv5_2", 512, 3, 1, 1, 1),
    ("conv5_3", 512, 3, 1, 1, 1),
    "pool5",
    ("fc6", 1024, 3, 1, 6, 6),
    ("fc7", 1024, 1, 1, 0, 1),
    ("conv6_1", 256, 1, 1, 0, 1),
    ("conv6_2", 512, 3, 2, 1, 1),
    ("conv7_1", 128, 1, 1, 0, 1),
    ("conv7_2", 256, 3, 2, 1, 1),
    ("conv8_1", 128, 1, 1, 0, 1),
    ("conv8_2", 256, 3, 1, 0, 1),
    ("conv9_1", 128, 1, 1, 0, 1),
    ("conv9_2", 256, 3, 1, 0, 1),
)
SOURCES = ("conv4_3", "fc7", "conv6_2", "conv7_2", "conv8_2", "conv9_2")
LAYERS = tuple(layer[0] for layer in _TRUNK if not isinstance(layer, str))
FULL_RESOLUTION = ("conv1_1", "conv1_2")
"""Layers without batch normalisation: there it would take a fifth of a step's time, and the scale of their input is
known."""
TRUNK = LAYERS[: LAYERS.index("fc6")]


def _pool(name: str, x: Tensor) -> Tensor:
    if name == "pool5":  # 2x2 stride 1, as in ACT: 19 becomes 18, hence 8396 priors
        return F.max_pool2d(x, 2, stride=1)
    return F.max_pool2d(x, 2, stride=2, ceil_mode=name == "pool3")


def map_sides(image_size: int) -> list[int]:
    """Sides of the maps of `SOURCES` for an input of so many pixels a side."""
    side, sides = image_size, []
    for layer in _TRUNK:
        if isinstance(layer, str):
            side = side - 1 if layer == "pool5" else -(-side // 2) if layer == "pool3" else side // 2
            continue
        name, _, kernel, stride, padding, dilation = layer
        side = (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        if name in SOURCES:
            sides.append(side)
    return sides


class L2Norm(nn.Module):
    """Divides each cell by its L2 norm over the channels and scales channels (ParseNet; scale 20 in SSD)."""

    def __init__(self, channels: int, scale: float = 20.0) -> None:
        super().__init__()
        self.initial_scale = scale
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """In float32, also under autocast."""
        return F.normalize(x.float(), dim=1, eps=1e-10) * self.weight[:, None, None]


class VGG16Atrous(nn.Module):
    """Six feature maps of each frame.

    A frame's features do not depend on its place in the clip, so inference computes each frame of a video once.

    Args:
        width: multiplies every channel count; 1, 1/2, 1/4 or 1/8.
        norm: `batch` puts batch normalisation behind every convolution but those of `FULL_RESOLUTION`, for training
            from random weights.
        fc6_dilation: of every frame 6; `act-released` has 6^(k+1) for frame k, as the released prototxts have it by an
            oversight (`ACT_create_prototxt.py:336`). On the 18 x 18 map that leaves the frames after the first only
            the centre of the kernel, and their features then do depend on their place.
    """

    def __init__(self, width: float = 1.0, norm: Norm = "none", fc6_dilation: Dilation = "6") -> None:
        super().__init__()
        self.width, self.norm, self.fc6_dilation = width, norm, fc6_dilation
        convs: dict[str, nn.Module] = {}
        norms: dict[str, nn.Module] = {}
        self.channels: list[int] = []
        inputs = 3
        for layer in _TRUNK:
            if isinstance(layer, str):
                continue
            name, outputs, kernel, stride, padding, dilation = layer
            outputs = round(outputs * width)
            convs[name] = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation)
            if norm == "batch" and name not in FULL_RESOLUTION:
                norms[name] = nn.BatchNorm2d(outputs)
            if name in SOURCES:
                self.channels.append(outputs)
            inputs = outputs
        self.convs = nn.ModuleDict(convs)
        self.norms = nn.ModuleDict(norms)
        self.conv4_3_norm = L2Norm(self.channels[0])

    def forward(self, x: Float[Tensor, "n 3 size size"], K: int = 1) -> list[Tensor]:
        """Maps of sides 38, 18, 9, 5, 3, 1 for a 300-pixel input, the first L2-normalised.

        Args:
            K: frames a clip, one after another along n; only `act-released` asks.
        """
        maps = []
        for layer in _TRUNK:
            if isinstance(layer, str):
                x = _pool(layer, x)
                continue
            name = layer[0]
            x = self._fc6_as_released(x, K) if name == "fc6" and self.fc6_dilation != "6" else self.convs[name](x)
            if name in self.norms:
                x = self.norms[name](x)
            x = F.relu(x, inplace=True)
            if name in SOURCES:
                maps.append(self.conv4_3_norm(x) if name == "conv4_3" else x)
        return maps

    def _fc6_as_released(self, x: Float[Tensor, "n c h w"], K: int) -> Float[Tensor, "n d h w"]:
        fc6 = self.convs["fc6"]
        assert isinstance(fc6, nn.Conv2d)
        if max(x.shape[-2:]) > 36:
            raise InputError(f"fc6_dilation = act-released on a map of {tuple(x.shape[-2:])}", wanted="36 x 36 at most")
        clips = x.unflatten(0, (-1, K))
        first = fc6(clips[:, 0])
        rest = F.conv2d(clips[:, 1:].flatten(0, 1), fc6.weight[:, :, 1:2, 1:2], fc6.bias)
        return torch.cat([first[:, None], rest.unflatten(0, (len(clips), K - 1))], 1).flatten(0, 1)
