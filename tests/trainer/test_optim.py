"""Every parameter has its rate, and the schedule is a function of the step."""

import pytest
import torch

from data_manifests.prior_spec import ACT300
from trainer.config import load_config
from trainer.model import ActNet
from trainer.optim import make_optimiser, parameter_groups, rate_at, set_rate

MODEL = ActNet(ACT300, 3, 6, 0.125)


def test_every_parameter_has_the_originals_rate_and_decay() -> None:
    config = load_config("ucf101", {})
    groups = parameter_groups(MODEL, config)
    optimiser = make_optimiser(groups, config)
    set_rate(optimiser, rate_at(config, config.warmup))
    rate_of = {id(p): (g["lr"], g["weight_decay"]) for g in optimiser.param_groups for p in g["params"]}
    for name, parameter in MODEL.named_parameters():
        bias = name.endswith(".bias")
        shared = name.startswith("backbone.")
        expected = 1e-4 * (1 / 6 if shared else 1) * (2 if bias else 1)
        rate, decay = rate_of[id(parameter)]
        assert rate == pytest.approx(expected), name
        assert decay == (0 if bias else 5e-4), name
    assert len(rate_of) == sum(1 for _ in MODEL.parameters())


def test_the_step_schedule_divides_by_ten_at_its_milestones() -> None:
    config = load_config("ucf101", {"warmup": 0})
    rates = [rate_at(config, step) for step in (0, 99_999, 100_000, 129_999, 130_000, 149_999)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5, 1e-6, 1e-6])


def test_warm_up_rises_linearly() -> None:
    config = load_config("ucf101", {"warmup": 10})
    assert [rate_at(config, step) for step in range(10)] == pytest.approx([1e-5 * (i + 1) for i in range(10)])


def test_cosine_ends_near_zero() -> None:
    config = load_config("demo", {})
    assert rate_at(config, config.iterations - 1) < 1e-4 * config.base_lr
    assert torch.isfinite(torch.tensor(rate_at(config, 0)))
