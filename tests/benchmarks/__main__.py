"""`make bench`: runs every benchmark (or those named), prints a table and writes out/benchmarks.json."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table


def main(names: list[str]) -> None:
    """Runs `bench()` of each tests/benchmarks/bench_*.py; ratio > 1 means that the subject is better."""
    found = sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))
    rows = []
    for name in found:
        if not names or name.removeprefix("bench_") in names:
            rows += importlib.import_module(f"tests.benchmarks.{name}").bench()
    table = Table("what", "subject", "peer", "ratio", "spread", "wanted")
    for row in rows:
        wanted = "" if row.wanted is None else f"{row.wanted:g}"
        table.add_row(
            row.name, row.subject, row.peer, f"{row.ratio:.2f}", f"{row.spread[0]:.2f} to {row.spread[1]:.2f}", wanted
        )
    Console(width=200).print(table)
    out = Path("out/benchmarks.json")
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
