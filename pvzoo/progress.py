"""Progress of long work on stderr: a bar on a terminal, and now and then a line elsewhere, as in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console

Advance = Callable[[int], None]
Track = Callable[[str, int], AbstractContextManager[Advance]]

SECONDS = 30.0
"""Between two lines; what takes less says nothing."""


def no_progress(count: int) -> None:
    """Where nobody watches."""


@contextmanager
def track(what: str, total: int) -> Iterator[Advance]:
    """Shows how far the block is; call the value it gives with the number of samples done."""
    console = Console(stderr=True)
    with _bar(what, total, console) if console.is_terminal else _lines(what, total, console) as advance:
        yield advance


@contextmanager
def silent(what: str, total: int) -> Iterator[Advance]:
    """Shows nothing: the default of functions that take a :data:`Track`."""
    yield no_progress


@contextmanager
def _bar(what: str, total: int, console: Console) -> Iterator[Advance]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def _lines(what: str, total: int, console: Console) -> Iterator[Advance]:
    done, told = 0, time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, told
        done += count
        if time.monotonic() - told >= SECONDS:
            told = time.monotonic()
            console.print(f"{what}: {done:,} of {total:,}", highlight=False, markup=False, soft_wrap=True)

    yield advance
