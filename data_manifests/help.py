"""Help that fits a screen: a command's options under headings, and the name that a shell completes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click


class GroupedCommand(click.Command):
    """A command whose help shows its options under headings.

    Args:
        groups: heading to names of parameters; the rest stands under `Other`.
    """

    def __init__(self, *args: Any, groups: Mapping[str, Sequence[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the headings with their options, in the order of the command's parameters."""
        heading_of = {name: heading for heading, names in self.groups.items() for name in names}
        for heading in (*self.groups, "Other"):
            options = [param for param in self.get_params(ctx) if heading_of.get(param.name or "", "Other") == heading]
            records = [record for option in options if (record := option.get_help_record(ctx)) is not None]
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records, col_max=34)


def program_name(module: str) -> str:
    """What to call the program: the installed script's name, which shells complete, or `python -m MODULE`."""
    script = Path(sys.argv[0]).name
    return script if script.startswith("tubelets-") else f"python -m {module}"
