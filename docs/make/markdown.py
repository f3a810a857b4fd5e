"""Markdown: tables, docstrings, files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from inspect import cleandoc
from pathlib import Path

Page = tuple[str, str]
Pages = Iterator[Page]


def write(path: Path, text: str) -> None:
    """Writes a file if it changed, so that a server that watches sees what is new alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines) + "\n"


def _cell(cell: object) -> str:
    """Escapes the bars outside of code, where they are no ends of cells."""
    parts = str(cell).replace("\n", " ").split("`")
    return "`".join(part if number % 2 else part.replace("|", "\\|") for number, part in enumerate(parts))


def code(text: object) -> str:
    return f"`{text}`"


def prose(docstring: str | None) -> str:
    """A docstring's text before its sections, with roles as code and addresses as links."""
    text = cleandoc(docstring or "")
    text = re.split(r"\n\n?(?:Args|Returns|Raises|Attributes|Example|Yields):\n", text)[0]
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text).replace("``", "`")
    text = re.sub(r"(?<![<(])(https?://[^\s,;)]*[^\s,;:.)])", r"<\1>", text)
    return text.strip()


def rich(text: str) -> str:
    """Help with rich's markup: what is bold there is code here."""
    return re.sub(r"\[bold\](.*?)\[/\]", r"`\1`", text, flags=re.DOTALL).replace("\\[", "[")
