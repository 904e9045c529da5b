"""What a new user meets first: help on one screen, a quick start, completion, and suggestions for what is misspelt."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pipeline.__main__ import cli as pipeline
from pipeline.__main__ import main
from trainer.config import config_fields
from trainer.run import _GROUPS
from trainer.run import cli as train

SCREEN = 60
"""Lines of a maximised terminal."""
TRAINER = ("run", "evaluate", "detect", "report")
HEAVY = {"av", "cv2", "numba", "numpy", "pyarrow", "rich", "scipy", "torch", "zarr"}


def help_of(command: click.Command, *arguments: str) -> str:
    """Its help on a terminal of 110 columns."""
    result = CliRunner().invoke(command, [*arguments, "--help"], terminal_width=110)
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("name", pipeline.commands)
def test_help_of_the_pipeline_is_one_screen_with_an_example(name: str) -> None:
    text = help_of(pipeline, name)
    assert len(text.splitlines()) <= SCREEN
    assert f"python -m pipeline {name} " in text + help_of(pipeline)


@pytest.mark.parametrize("name", TRAINER)
def test_help_of_the_trainer_is_one_screen_with_an_example(name: str) -> None:
    text = help_of(importlib.import_module(f"trainer.{name}").cli)
    assert len(text.splitlines()) <= SCREEN
    assert f"trainer.{name} " in text


def test_options_stand_under_headings() -> None:
    named = [name for names in _GROUPS.values() for name in names]
    assert sorted(named) == sorted(str(param.name) for param in train.params), "each option once"
    assert {field.name for field in config_fields()} < set(named)
    text = help_of(train)
    assert "\nNetwork:\n" in text
    assert "\nOther:\n  -h, --help" in text
    for command in ("plan", "build"):
        assert "\nClips and views:\n" in help_of(pipeline, command)


def test_help_imports_nothing_heavy() -> None:
    """All in one process: what a command imports is still there after the next one."""
    for_each = """
for name in sys.argv[1:]:
    importlib.import_module(name).cli.main(["--help"], standalone_mode=False)
    print(name, *sys.modules, file=sys.stderr)
"""
    modules = ["pipeline.__main__", *(f"trainer.{name}" for name in TRAINER)]
    command = [sys.executable, "-c", f"import importlib, sys{for_each}", *modules]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    for line in done.stderr.splitlines():
        assert not HEAVY & set(line.split()), line.split()[0]
    assert len(done.stderr.splitlines()) == len(modules)


@pytest.mark.parametrize(
    ("words", "completed"), [("bu", "build"), ("plan --vi", "--views"), ("plan --missing sk", "skip"), ("ca", "card")]
)
def test_a_shell_completes_commands_and_options(words: str, completed: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/tubelets-pipeline"])
    monkeypatch.setenv("_TUBELETS_PIPELINE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"tubelets-pipeline {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
    with pytest.raises(SystemExit):
        main()
    assert f"plain,{completed}" in capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["biuld"], "Did you mean 'build'?"),
        (["plan", "--datset", "ucf101"], "Did you mean '--dataset'?"),
        (["plan", "--dataset", "ufc101", "--root", "."], "did you mean ucf101?"),
        (["plan", "--dataset", "ucf101", "--root", ".", "--missing", "skp"], "'error', 'skip'"),
    ],
)
def test_what_is_misspelt_is_told_the_right_word(arguments: list[str], told: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["pipeline", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_a_missing_preset_is_told_its_neighbour(tmp_path: Path) -> None:
    result = CliRunner().invoke(train, ["--store", str(tmp_path), "--preset", "ucf01"])
    assert "did you mean ucf101?" in str(result.exception)
