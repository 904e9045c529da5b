"""A whole training step asks the device for nothing: no value, no data-dependent shape, no copy that is waited for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from data_manifests.prior_spec import ACT300
from tests.trainer.sparse_targets import noise_batch
from trainer.config import Config
from trainer.distributed import Ranks
from trainer.gradients import GradientSum
from trainer.model import ActNet
from trainer.optim import Average, make_optimiser, parameter_groups, set_rate
from trainer.stages import Clock
from trainer.step import VALUES, Learner, train_step

CONFIG = Config(
    width=1 / 16, norm="none", iterations=6, batch=4, base_lr=1e-3, schedule="step", accumulate=2, clip_norm=1.0
)
HOST = torch.device("cpu")
WAITING = {
    "_local_scalar_dense", "item", "is_nonzero", "equal", "allclose", "nonzero", "nonzero_numpy", "masked_select",
    "unique_consecutive", "_unique", "_unique2", "unique_dim", "bincount", "repeat_interleave", "argwhere",
}  # fmt: skip

REFUSING = {
    "nll_loss2d_forward", "nll_loss2d_backward", "cumsum", "put_", "histc", "bincount", "median", "scatter_reduce",
    "avg_pool3d_backward", "_adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward", "reflection_pad2d_backward",
    "upsample_bilinear2d_backward", "grid_sampler_2d_backward", "max_unpool2d", "kthvalue",
}  # fmt: skip
"""Operators that stop a run with --deterministic on a GPU, of those that networks use (torch.use_deterministic_algorithms)."""


class Watcher(TorchDispatchMode):
    """Fails on every operator that makes a CUDA device and its host wait for each other."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.seen = device, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.name().split("::")[1].split(".")[0]
        self.seen.add(name)
        assert name not in WAITING, f"{name} waits for the device"
        if name in ("index", "index_put", "index_put_", "_unsafe_index"):
            chosen = [index for index in args[1] if index is not None]
            assert all(index.dtype != torch.bool for index in chosen), "indexing by a mask waits for the device"
        result = func(*args, **kwargs)
        if name == "_to_copy":
            self._check_copy(args[0], result, kwargs.get("non_blocking", False))
        elif name in ("copy_", "copy"):
            self._check_copy(args[1], args[0], args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        return result

    def _check_copy(self, source: torch.Tensor, target: torch.Tensor, waits_not: bool) -> None:
        crosses = source.device.type != target.device.type
        assert waits_not or not crosses, f"a copy from {source.device} to {target.device} is waited for"


MADE_OF_NUMBERS = {torch.tensor, torch.as_tensor, torch.asarray, torch.Tensor.new_tensor}


class CallWatcher(TorchFunctionMode):
    """Fails on calls that copy from the host, and wait for it, on a CUDA device, where no operator shows it on another:

    - a number written to one element: to a slice it is a kernel (`copy_to` in ATen/TensorIndexing.h);
    - a tensor made of numbers, for a device (`internal_new_from_data` in torch/csrc/utils/tensor_new.cpp).
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.Tensor.__setitem__ and not isinstance(args[2], torch.Tensor):
            assert args[0][args[1]].dim(), "a number written to one element waits for the device"
        if func in MADE_OF_NUMBERS:
            for_a_device = func is torch.Tensor.new_tensor or kwargs.get("device") is not None
            assert not for_a_device, f"{func.__name__} copies from the host, and waits for the device"
        return func(*args, **kwargs)


def _step(device: torch.device, watcher: TorchDispatchMode, config: Config = CONFIG) -> torch.Tensor:
    with device:
        model = ActNet(ACT300, 2, 2, config.width, config.norm)
    optimiser = make_optimiser(parameter_groups(model, config), config)
    set_rate(optimiser, 1e-3)
    average = Average(model, 0.9)
    parts = [noise_batch((3, 0), seed=1), noise_batch((7, 2), seed=2)]
    with watcher, CallWatcher():
        for step in range(2):
            values = train_step(
                Learner(model, model, GradientSum(model, 2), optimiser),
                parts,
                step,
                config=config,
                ranks=Ranks(0, 1, device),
                clock=Clock(),
            )
            average.update(model, step)
    return values


def test_no_operator_of_a_step_waits() -> None:
    watcher = Watcher("cpu")
    values = _step(HOST, watcher)
    assert not REFUSING & watcher.seen
    assert len(values) == len(VALUES)
    colours, loss, backward, clipping, average = (
        "bmm",
        "nll_loss_forward",
        "convolution_backward",
        "_foreach_norm",
        "_foreach_lerp_",
    )
    assert {colours, loss, backward, clipping, average} <= watcher.seen


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_on_a_device_without_values_a_step_needs_none(norm: str) -> None:
    """On `meta`, asking for a value or for a shape that depends on one is an error; so is a copy that is waited for."""
    watcher = Watcher("meta")
    values = _step(torch.device("meta"), watcher, dataclasses.replace(CONFIG, norm=norm))
    assert values.device.type == "meta"
    assert "topk" in watcher.seen  # the negatives are mined by operators, as on a GPU


def test_a_step_draws_no_random_number() -> None:
    """So a checkpoint needs no generator's state, neither the host's nor a GPU's."""
    watcher = Watcher("meta")
    _step(torch.device("meta"), watcher, dataclasses.replace(CONFIG, norm="batch"))
    random = ("rand", "normal", "uniform", "bernoulli", "dropout", "multinomial", "exponential")
    assert not [name for name in watcher.seen if any(word in name for word in random)]


def test_the_watcher_of_calls_lets_kernels_and_the_host_alone() -> None:
    with CallWatcher():
        torch.ones(2)[:1] = 0.0
        torch.full((), 1.0, device=HOST)
        torch.tensor(1.0)


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: x.__setitem__(0, 0.0),
        lambda x: torch.tensor(1.0, device=x.device),
        lambda x: torch.tensor([1.0], device=x.device),
        lambda x: torch.as_tensor(np.ones(1), device=x.device),
        lambda x: torch.asarray([1.0], device=x.device),
        lambda x: x.new_tensor([1.0]),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_watcher_of_calls_sees_what_waits(ask, device: str) -> None:
    given = torch.ones(2, device=device)
    with pytest.raises(AssertionError, match="wait"), CallWatcher():
        ask(given)


@pytest.mark.parametrize(
    "ask",
    [
        torch.Tensor.item,
        torch.Tensor.nonzero,
        lambda x: x[x > 0],
        lambda x: x.to("meta"),
        lambda x: torch.from_numpy(x.numpy()).to("meta"),
    ],
)
def test_the_watcher_sees_what_waits(ask) -> None:
    with pytest.raises(AssertionError, match="wait"), Watcher("cpu"):
        ask(torch.ones(1))
