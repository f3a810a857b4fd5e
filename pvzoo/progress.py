"""Progress bars on stderr, where that is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console

Advance = Callable[[int], None]
Track = Callable[[str, int], AbstractContextManager[Advance]]


def no_progress(count: int) -> None:
    """Where nobody watches."""


@contextmanager
def track(what: str, total: int) -> Iterator[Advance]:
    """Shows a bar while the block runs; call the value it gives with the number of samples done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    # Elsewhere, rich would leave an empty line.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def silent(what: str, total: int) -> Iterator[Advance]:
    """Shows nothing: the default of functions that take a :data:`Track`."""
    yield no_progress
