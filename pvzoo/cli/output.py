"""Printing: tables for people, plain lines and JSON for programs; notes go to stderr."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

console = Console()
errors = Console(stderr=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table on a terminal, and lines with tabs between the cells into a pipe or file."""
    if not console.is_terminal:
        for row in rows:
            sys.stdout.write("\t".join(str(cell).replace("\n", " ") for cell in row) + "\n")
        return
    from rich.markup import escape
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        grid.add_column(column, overflow="fold", no_wrap=number == 0)
    for row in rows:
        grid.add_row(*(escape(str(cell)) for cell in row))
    console.print(grid)


def heading(name: str, remark: str, summary: str) -> None:
    """Prints what a table that follows is about: the name in bold, and a line about it."""
    console.print(Text(name, style="bold").append(remark, style="not bold"), highlight=False, soft_wrap=True)
    if summary:
        console.print(Text(summary), highlight=False, soft_wrap=True)
    console.print()


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def note(text: str) -> None:
    """A remark that does not belong into the output."""
    errors.print(text, highlight=False, markup=False, soft_wrap=True)


def silence_pillow() -> None:
    """Its remarks on damaged files; the message that follows names the file, and they do not."""
    warnings.filterwarnings("ignore", module="PIL")
