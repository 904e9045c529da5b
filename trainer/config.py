"""The settings of a training run: presets in `trainer/presets/*.toml`, every field also an option of `trainer.run`."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal, get_args, get_origin, get_type_hints

from data_manifests.did_you_mean import did_you_mean
from data_manifests.errors import InputError


@dataclass(frozen=True)
class Config:
    """One run. Fields without a default are said by every preset."""

    width: float
    "backbone width multiplier, up to 1"
    norm: Literal["none", "batch"]
    "batch: batch normalisation, to train from random weights"
    iterations: int
    "steps in all"
    batch: int
    "clips a step, over all processes"
    base_lr: float
    "learning rate of the heads' weights"
    schedule: Literal["step", "cosine"]
    "step: base_lr, divided by 10 at each milestone; cosine: down to 0 at the end"
    milestones: tuple[int, ...] = ()
    "steps at which the step schedule divides the rate by 10"
    warmup: int = 0
    "steps of linear warm-up"
    fc6_dilation: Literal["6", "act-released"] = "6"
    "act-released: 6^(k+1) for frame k, as ACT's released weights were trained"
    frozen: bool = False
    "conv1_1 to conv5_3 keep their initial weights"
    ema: float = 0.0
    "decay of averaged weights, scored and loaded instead of the last; 0: none"
    shared_rate: float = 0.0
    "rate of the weights all K frames share, as a factor; 0 means 1/K, as in ACT"
    momentum: float = 0.9
    "of SGD"
    weight_decay: float = 5e-4
    "of weights; biases and batch norms have none"
    clip_norm: float = 0.0
    "gradients are scaled down to this norm; 0: never"
    accumulate: int = 0
    "parts of a process' share of a step; 0: one, or two if alone, or as resumed"
    distort: bool = True
    "colour distortion"
    seed: int = 0
    "of the initial weights, the sample order and the colours"
    amp: bool = False
    "bfloat16 autocast; a preset's only where the device has it"
    channels_last: bool = False
    "memory format of the network"
    compile: bool = False
    "torch.compile"
    deterministic: bool = False
    "a GPU computes the same bits each time, slower; a CPU always does"
    workers: int = 2
    "loader processes of each rank; 0 reads in the training process"
    log_every: int = 20
    "steps between two lines of the log"
    save_every: int = 500
    "steps between two checkpoints"
    keep: int = 3
    "newest checkpoints kept, besides the best"
    eval_every: int = 0
    "steps between two validations on --val-store; 0: never"

    def __post_init__(self) -> None:
        counts = ("batch", "iterations", "log_every", "save_every", "keep")
        fits = {name: (getattr(self, name) >= 1, "1 or more") for name in counts} | {
            "width": (0.5 < 64 * self.width <= 64, "above 1/128, up to 1"),
            "base_lr": (0 < self.base_lr < math.inf, "above 0, finite"),
            "milestones": (min(self.milestones, default=1) >= 1, "steps from 1 on"),
            "ema": (0 <= self.ema < 1, "from 0 to below 1"),
            "momentum": (0 <= self.momentum < 1, "from 0 to below 1"),
            "seed": (0 <= self.seed < 2**63, "0 to 2^63 - 1"),
        }
        for name in ("accumulate", "warmup", "workers", "eval_every", "shared_rate", "weight_decay", "clip_norm"):
            fits[name] = (0 <= getattr(self, name) < math.inf, "0 or more, finite")
        for name, (fit, wanted) in fits.items():
            if not fit:
                value = getattr(self, name)
                told = ",".join(map(str, value)) if isinstance(value, tuple) else value
                raise InputError(f"--{name.replace('_', '-')} {told}", wanted=wanted, todo="change it")
        if self.frozen and self.norm == "batch":
            raise InputError(
                "--frozen with --norm batch", wanted="--norm none: a frozen trunk comes from --init", todo="change one"
            )


def known_presets() -> tuple[str, ...]:
    """Names of the presets that come with the project."""
    folder = resources.files("trainer") / "presets"
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


def load_config(preset: str, overrides: dict[str, Any]) -> Config:
    """A preset with some fields replaced.

    Raises:
        InputError: there is no such preset, or a value is out of its range.
    """
    if preset not in known_presets():
        raise InputError(
            f"unknown preset {preset!r}",
            wanted=f"one of {', '.join(known_presets())}",
            todo=did_you_mean(preset, known_presets(), "check --preset"),
        )
    raw = tomllib.loads((resources.files("trainer") / "presets" / f"{preset}.toml").read_text())
    return from_json({**raw, **overrides})


def from_json(raw: dict[str, Any]) -> Config:
    """A config from plain values, as a preset or a checkpoint holds them.

    Raises:
        InputError: a setting has another name or is missing, as in another version; or a value is out of its range.
    """
    names = {field.name: field.default is dataclasses.MISSING for field in dataclasses.fields(Config)}
    odd = [f"no setting {name}" for name in raw.keys() - names.keys()]
    odd += [f"{name} is missing" for name, needed in names.items() if needed and name not in raw]
    if odd:
        raise InputError(
            "these settings are not those of this version", found="; ".join(sorted(odd)[:5]),
            todo="go on with the version that wrote them, or start a new run, with its weights by --init",
        )  # fmt: skip
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}
    return Config(**values)


@dataclass(frozen=True)
class Field:
    """One setting as the command line shows it."""

    name: str
    option: str
    type: type
    choices: tuple[str, ...]
    help: str


def config_fields() -> list[Field]:
    """The fields of `Config`, for a command line."""
    hints = get_type_hints(Config)
    helps = _field_docs()
    fields = []
    for field in dataclasses.fields(Config):
        hint = hints[field.name]
        choices = tuple(get_args(hint)) if get_origin(hint) is Literal else ()
        kind = str if choices or get_origin(hint) is tuple else hint
        fields.append(Field(field.name, "--" + field.name.replace("_", "-"), kind, choices, helps[field.name]))
    return fields


def _field_docs() -> dict[str, str]:
    import ast
    import inspect

    definition = ast.parse(inspect.getsource(Config)).body[0]
    assert isinstance(definition, ast.ClassDef)
    docs = {}
    for field, doc in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(doc, ast.Expr):
            docs[field.target.id] = str(ast.literal_eval(doc.value))
    return docs
