"""Each parameter's rate and decay, the schedule, and the averaged weights."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from data_manifests.prior_spec import ACT300
from trainer.config import Config, load_config
from trainer.model import ActNet
from trainer.model.backbone import LAYERS, TRUNK
from trainer.optim import Average, freeze_trunk, make_optimiser, parameter_groups, rate_at, set_rate

CONFIG = Config(width=1 / 16, norm="none", iterations=100, batch=4, base_lr=0.01, schedule="step")


def _network(K: int = 6, norm: str = "none") -> ActNet:
    return ActNet(ACT300, 2, K, 1 / 16, norm)


def test_every_parameter_with_its_rate_and_decay() -> None:
    """QUIRKS 2: what six frames share learns at 1/6 (biases 1/3), heads at 1 (biases 2); biases do not decay."""
    network = _network()
    groups = parameter_groups(network, CONFIG)
    optimiser = make_optimiser(groups, CONFIG)
    set_rate(optimiser, 0.01)
    told = {name: (g["lr"], g["weight_decay"]) for g in optimiser.param_groups for name in g["names"]}
    expected = {"backbone.conv4_3_norm.weight": (0.01 / 6, 5e-4)}
    for layer in LAYERS:
        expected[f"backbone.convs.{layer}.weight"] = (0.01 / 6, 5e-4)
        expected[f"backbone.convs.{layer}.bias"] = (0.01 / 3, 0.0)
    for at in range(6):
        for head in ("loc", "conf"):
            expected[f"{head}.{at}.weight"] = (0.01, 5e-4)
            expected[f"{head}.{at}.bias"] = (0.02, 0.0)
    assert told.keys() == expected.keys() == dict(network.named_parameters()).keys()
    for name, pair in expected.items():
        assert told[name] == pytest.approx(pair), name
    assert len(groups) == 4
    assert all(g["momentum"] == 0.9 for g in optimiser.param_groups)


def test_normalisation_does_not_decay() -> None:
    groups = parameter_groups(_network(norm="batch"), CONFIG)
    assert all(g["weight_decay"] == 0 for g in groups if any(".norms." in name for name in g["names"]))


def test_one_rate_for_all_when_asked() -> None:
    groups = parameter_groups(_network(), dataclasses.replace(CONFIG, shared_rate=1.0))
    assert sorted(g["rate"] for g in groups) == [1, 1, 2, 2]


def test_a_frozen_trunk_is_in_no_group() -> None:
    network = _network()
    freeze_trunk(network)
    named = {name for g in parameter_groups(network, CONFIG) for name in g["names"]}
    assert not [name for name in named if name.split(".")[2] in TRUNK and name.startswith("backbone.convs")]
    assert "backbone.convs.fc6.weight" in named


@pytest.mark.parametrize(
    ("preset", "rates"),
    [
        ("ucf101", {1_000: 1e-4, 99_999: 1e-4, 100_000: 1e-5, 129_999: 1e-5, 130_000: 1e-6, 149_999: 1e-6}),
        ("ucf101-act", {0: 1e-4, 399_999: 1e-4, 400_000: 1e-5, 549_999: 1e-5, 550_000: 1e-6, 599_999: 1e-6}),
    ],
)
def test_presets_step_where_they_say(preset: str, rates: dict[int, float]) -> None:
    config = load_config(preset, {})
    assert config.iterations == max(rates) + 1
    for step, rate in rates.items():
        assert rate_at(config, step) == pytest.approx(rate)


def test_warm_up_and_cosine() -> None:
    config = dataclasses.replace(CONFIG, warmup=10, schedule="cosine")
    assert rate_at(config, 0) == pytest.approx(0.001, rel=1e-3)
    assert rate_at(config, 50) == pytest.approx(0.005)
    assert rate_at(config, 99) < 1e-5
    steps = [rate_at(config, step) for step in range(10, 100)]
    assert steps == sorted(steps, reverse=True)


def test_the_average_follows_the_weights() -> None:
    network = _network(norm="batch")
    average = Average(network, 0.5)
    with torch.no_grad():
        network.loc[0].bias.fill_(1.0)
        network.backbone.norms["fc6"].running_mean.fill_(3.0)
    for step in range(40):
        average.update(network, step)
    torch.testing.assert_close(average.model.loc[0].bias, network.loc[0].bias)
    for (name, ours), newest in zip(average.model.named_buffers(), network.buffers(), strict=True):
        assert torch.equal(ours, newest), name
    expected = torch.zeros(())
    slow = Average(network, 0.9)
    slow.model.loc[0].bias.zero_()
    for step in range(3):
        slow.update(network, step)
        expected = expected.lerp(torch.ones(()), 1 - (1 + step) / (10 + step))
    torch.testing.assert_close(slow.model.loc[0].bias[0], expected)
