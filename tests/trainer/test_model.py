"""The network's shapes, the order of its outputs, and what a frame's features depend on."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from data_manifests.errors import InputError
from data_manifests.prior_spec import ACT300
from data_manifests.priors import make_priors
from trainer.detection.windows import sliding_heads
from trainer.model import ActNet
from trainer.model.backbone import LAYERS, SOURCES, map_sides
from trainer.model.initial import initialise

NARROW = 1 / 16


@pytest.fixture(scope="module")
def model() -> ActNet:
    network = ActNet(ACT300, 3, 2, NARROW)
    initialise(network, 0)
    return network.eval()


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    return torch.randint(0, 256, (2, 2, 300, 300, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_maps_and_outputs_have_the_originals_sizes(model: ActNet, frames: torch.Tensor) -> None:
    images = model.normalise(frames)
    assert [tuple(m.shape[-2:]) for m in model.features(images[0])] == [(n, n) for n in (38, 18, 9, 5, 3, 1)]
    loc, conf = model(images)
    assert loc.shape == (2, 8396, 2, 4)
    assert conf.shape == (2, 8396, 4)


@pytest.mark.parametrize("width", [1.0, 0.5, 0.25, 0.125])
def test_width_multiplies_every_channel_count(width: float) -> None:
    with torch.device("meta"):
        network = ActNet(ACT300, 24, 6, width)
        loc, conf = network(torch.empty(1, 6, 3, 300, 300))
    assert network.backbone.channels == [width * c for c in (512, 1024, 512, 256, 256, 256)]
    assert (loc.shape, conf.shape) == ((1, 8396, 6, 4), (1, 8396, 25))


def test_at_width_1_it_has_the_originals_parameters() -> None:
    """VGG16's trunk 14,714,688; fc6 and fc7 5,768,192; conv6 to conv9 2,404,736 (summed by hand); the scale of conv4_3."""
    with torch.device("meta"):
        backbone = ActNet(ACT300, 24, 6).backbone
    sizes = {name: sum(p.numel() for p in backbone.convs[name].parameters()) for name in LAYERS}
    assert sum(size for name, size in sizes.items() if name < "conv6" and name.startswith("conv")) == 14_714_688
    assert sizes["fc6"] + sizes["fc7"] == 9 * 512 * 1024 + 1024 + 1024 * 1024 + 1024
    assert sizes["conv6_1"] + sizes["conv6_2"] == 1024 * 256 + 256 + 9 * 256 * 512 + 512
    assert backbone.conv4_3_norm.weight.numel() == 512


def test_an_output_row_belongs_to_the_prior_of_that_row(model: ActNet) -> None:
    """One cell of one map is lit: the rows that change are those of priors whose centres lie within the 3 x 3 kernel."""
    priors = torch.from_numpy(make_priors(ACT300))
    centres = (priors[:, :2] + priors[:, 2:]) / 2
    begin = 0
    for at, layer in enumerate(ACT300.layers):
        maps = [
            torch.zeros(1, 2, c, n.grid, n.grid) for c, n in zip(model.backbone.channels, ACT300.layers, strict=True)
        ]
        row, column = layer.grid // 3, layer.grid - 1
        with torch.no_grad():
            dark = model.heads(maps)
            maps[at][0, :, :, row, column] = 1
            lit = model.heads(maps)
        size = layer.grid**2 * layer.priors_per_cell
        for before, after in zip(dark, lit, strict=True):
            changed = (before != after).flatten(2).any(2)[0].nonzero()[:, 0]
            assert ((changed >= begin) & (changed < begin + size)).all()
            cell = centres[changed] * 300 / layer.step - 0.5
            assert (cell - torch.tensor([column, row])).abs().max() <= 1.01
            assert len(changed) == layer.priors_per_cell * len(cell.round().unique(dim=0))
        begin += size
    assert begin == len(priors)


def test_offsets_are_frame_major(model: ActNet) -> None:
    """Output channel (prior, frame, coordinate) of a head's convolution is `loc[prior, frame, coordinate]`."""
    conv = model.loc[5]
    maps = [torch.zeros(1, 2, c, n.grid, n.grid) for c, n in zip(model.backbone.channels, ACT300.layers, strict=True)]
    with torch.no_grad():
        kept = conv.bias.clone()
        conv.bias.copy_(torch.arange(4 * 2 * 4))
        loc = model.heads(maps)[0]
        conv.bias.copy_(kept)
    assert torch.equal(loc[0, -4:].flatten(), torch.arange(32.0))


def test_a_frames_features_do_not_depend_on_its_place(model: ActNet, frames: torch.Tensor) -> None:
    images = model.normalise(frames)
    swapped = images.flip(1)
    with torch.no_grad():
        for one, other in zip(model.features(images.flatten(0, 1)), model.features(swapped.flatten(0, 1)), strict=True):
            torch.testing.assert_close(one.unflatten(0, (2, 2)).flip(1), other.unflatten(0, (2, 2)))


def test_normalise_subtracts_the_mean_in_rgb(model: ActNet) -> None:
    pixel = torch.tensor([123, 117, 105], dtype=torch.uint8).expand(1, 4, 4, 3)
    assert torch.equal(model.normalise(pixel)[0, :, 0, 0], torch.tensor([0.0, 0.0, 1.0]))


def test_conv4_3_is_scaled_to_its_norm(model: ActNet, frames: torch.Tensor) -> None:
    first = model.features(model.normalise(frames[0]))[0]
    scale = model.backbone.conv4_3_norm.weight[0]
    torch.testing.assert_close(first.norm(dim=1), scale.expand(2, 38, 38), rtol=1e-4, atol=1e-4)


def test_as_released_only_the_centre_of_fc6_sees_later_frames(frames: torch.Tensor) -> None:
    """The prototxts' dilation 6^(k+1), carried out literally, against ours."""
    released = ActNet(ACT300, 3, 2, NARROW, fc6_dilation="act-released").eval()
    initialise(released, 0)
    with torch.no_grad():
        ours = released(released.normalise(frames))
        literal = ActNet(ACT300, 3, 2, NARROW).eval()
        literal.load_state_dict(released.state_dict())
        first = [m.unflatten(0, (2, 2))[:, 0] for m in literal.features(literal.normalise(frames).flatten(0, 1))]
        fc6 = literal.backbone.convs["fc6"]
        fc6.dilation, fc6.padding = (36, 36), (36, 36)
        second = [m.unflatten(0, (2, 2))[:, 1] for m in literal.features(literal.normalise(frames).flatten(0, 1))]
        expected = literal.heads([torch.stack(pair, 1) for pair in zip(first, second, strict=True)])
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_as_released_a_video_is_read_clip_by_clip(frames: torch.Tensor) -> None:
    released = ActNet(ACT300, 3, 2, NARROW, fc6_dilation="act-released").eval()
    initialise(released, 0)
    video = frames.flatten(0, 1)
    blocks = [video[:1], video[1:3], video[3:]]
    loc, conf = (torch.cat(parts) for parts in zip(*sliding_heads(released, blocks), strict=True))
    with torch.no_grad():
        expected = released(released.normalise(torch.stack([video[i : i + 2] for i in range(3)])))
    torch.testing.assert_close((loc, conf), expected, rtol=1e-4, atol=1e-4)


def test_sources_are_the_layers_of_the_priors() -> None:
    assert tuple(layer.name for layer in ACT300.layers) == SOURCES


@pytest.mark.parametrize("size", [300, 301, 302, 307, 320, 512])
def test_the_sides_of_the_maps_are_foreseen(size: int) -> None:
    with torch.device("meta"):
        maps = ActNet(ACT300, 3, 1, NARROW).features(torch.empty(1, 3, size, size))
    assert [tuple(m.shape[-2:]) for m in maps] == [(side, side) for side in map_sides(size)]


def test_priors_of_other_maps_are_refused() -> None:
    """SSD's own fc7 has 19 x 19 cells: targets would be added to other clips' and other priors' scores."""
    layers = list(ACT300.layers)
    layers[1] = dataclasses.replace(layers[1], grid=19)
    for wrong in (layers, layers[:5]):
        with pytest.raises(InputError, match=r"do not fit[\s\S]*found: grids of 38, 19, 9[\s\S]*wanted: 38, 18, 9"):
            ActNet(dataclasses.replace(ACT300, layers=tuple(wrong)), 3, 2, NARROW)


def test_frames_that_are_too_small_are_refused() -> None:
    with pytest.raises(InputError, match="frames of 64 x 64 are too small"):
        ActNet(dataclasses.replace(ACT300, image_size=64), 3, 2, NARROW)


def test_as_released_refuses_maps_that_its_shortcut_does_not_fit() -> None:
    released = ActNet(ACT300, 3, 2, NARROW, fc6_dilation="act-released")
    with pytest.raises(InputError, match="act-released"), torch.device("meta"):
        released.to("meta").backbone(torch.empty(2, 3, 700, 700), 2)
