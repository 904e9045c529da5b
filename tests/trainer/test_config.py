"""Presets and settings by name."""

from __future__ import annotations

import dataclasses
from importlib import resources

import pytest

from data_manifests.errors import InputError
from trainer.config import Config, config_fields, from_json, known_presets, load_config


def test_the_presets_load_and_fit_one_screen() -> None:
    assert known_presets() == ("demo", "ucf101", "ucf101-act")
    for name in known_presets():
        assert isinstance(load_config(name, {}), Config)
        text = (resources.files("trainer") / "presets" / f"{name}.toml").read_text()
        assert len(text.splitlines()) <= 50
        assert "# Expected" in text


def test_a_setting_given_replaces_the_presets() -> None:
    assert load_config("ucf101", {"batch": 3}).batch == 3


def test_a_config_survives_being_stored() -> None:
    config = load_config("ucf101-act", {})
    assert from_json(dataclasses.asdict(config)) == config


def test_every_field_is_an_option_with_a_help_text() -> None:
    told = {field.name: field for field in config_fields()}
    assert told.keys() == {field.name for field in dataclasses.fields(Config)}
    assert all(field.help for field in told.values())
    assert told["norm"].choices == ("none", "batch")
    assert told["base_lr"].option == "--base-lr"


@pytest.mark.parametrize(
    "wrong",
    [{"batch": 0}, {"width": 2.0}, {"base_lr": 0.0}, {"keep": 0}, {"ema": 1.0}, {"frozen": True, "norm": "batch"}],
)
def test_values_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(InputError):
        load_config("ucf101", wrong)


def test_an_unknown_preset_is_named_with_a_near_one() -> None:
    with pytest.raises(InputError) as refused:
        load_config("ufc101", {})
    assert "did you mean ucf101" in str(refused.value)
