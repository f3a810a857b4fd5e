"""The branches of stage 1 side by side on one machine: each in a process of its own.

A process is ``python -m pvzoo.training.jobs`` and reads what to do from its standard input, which stays open as long as
the process that started it lives: if that one is gone, however it ended, so are they.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..errors import PvzooError
from .journal import METRICS
from .recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from .machine import Machine

LOG = "log.txt"
FAILED, _ERROR = 2, "error: "  # how a process ends with an error of pvzoo, and begins its message
_POLL = 0.1  # seconds


class JobError(PvzooError):
    """Branches that were trained side by side ended with an error."""


@dataclass
class _Job:
    """A branch, and the process that trains it."""

    name: str
    folder: Path
    process: subprocess.Popen[bytes]

    def epochs(self) -> list[str]:
        """The lines of metrics, one an epoch."""
        try:
            return (self.folder / METRICS).read_text(encoding="utf-8").splitlines()[1:]
        except OSError:
            return []

    def fault(self) -> str:
        """Why it ended, if not well."""
        code = self.process.returncode
        if not code:
            return ""
        log = (self.folder / LOG).read_text(encoding="utf-8", errors="replace").strip()
        if code == FAILED:
            return f"\n{log}".rpartition(f"\n{_ERROR}")[2]
        if code < 0:
            return f"was ended by signal {signal.Signals(-code).name}; the machine may lack memory"
        return f"ended with code {code}; {self.folder / LOG} has all that it said"


def train_branches(
    recipe: Recipe, names: Sequence[str], out: Path, init: Sequence[str], machine: Machine, jobs: int
) -> None:
    """Trains branches of stage 1 in processes of their own; if one fails, those that run end first.

    Args:
        recipe: Of stage 1.
        names: Of :func:`~pvzoo.training.run.branch_specs`, each a folder in ``out``.
        out: Folder of the run, which this process holds.
        init: Models to start from.
        machine: Where.
        jobs: Processes at a time; they share the threads.

    Raises:
        JobError: Naming each branch that failed, and why.
    """
    waiting, running, faults = list(names), list[_Job](), dict[str, str]()
    with _shown(machine, names, recipe.epochs) as show:
        try:
            while running or (waiting and not faults):
                while waiting and not faults and len(running) < jobs:
                    running.append(_start(recipe, waiting.pop(0), out, init, machine, jobs))
                time.sleep(_POLL)
                for job in list(running):
                    ended = job.process.poll() is not None
                    show(job, ended)
                    if ended:
                        running.remove(job)
                        if fault := job.fault():
                            faults[job.name] = fault
        finally:
            _end(running)
    if faults:
        told = "\n".join(f"{name}: {fault}" for name, fault in faults.items())
        left = f"; not begun: {', '.join(waiting)}" if waiting else ""
        raise JobError(f"{told}\nwhat else ran has ended{left}; mend it, and go on with --resume")


def _start(recipe: Recipe, name: str, out: Path, init: Sequence[str], machine: Machine, jobs: int) -> _Job:
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    task = {
        "recipe": recipe.to_dict(),
        "branch": name,
        "out": str(out),
        "init": list(init),
        "machine": asdict(machine) | {"jobs": 1, "progress": False},
    }
    import torch

    threads = str(max(1, torch.get_num_threads() // jobs))
    with (folder / LOG).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
            start_new_session=True,  # Ctrl-C is for the process that started them
        )
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(task).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it has ended, and its log says why
    return _Job(name, folder, process)


def _end(running: Sequence[_Job]) -> None:
    for job in running:
        job.process.kill()  # checkpoints are written whole or not at all
    for job in running:
        job.process.wait()


@contextmanager
def _shown(machine: Machine, names: Sequence[str], epochs: int) -> Iterator[Any]:
    """A bar for each branch on a terminal, a line for each that ended elsewhere; call the value with a job."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    quiet = not (machine.progress and console.is_terminal)
    with Progress(*columns, TextColumn("{task.fields[last]}"), console=console, disable=quiet) as progress:
        tasks = {name: progress.add_task(f"{name} (waits)", total=epochs, last="") for name in names}

        def show(job: _Job, ended: bool) -> None:
            lines = job.epochs()
            last = ""
            if lines:
                _, loss, eer, *_ = lines[-1].split(",")
                last = f"loss {float(loss or 'nan'):.3g}, dev EER {float(eer or 'nan'):.2%}"
            what = "" if not ended else " (done)" if not job.process.returncode else " (failed)"
            progress.update(tasks[job.name], description=job.name + what, completed=len(lines), last=last)
            if ended and machine.progress and quiet:
                console.print(f"{job.name}{what}: {len(lines)} epochs; {last}", highlight=False, soft_wrap=True)

        yield show


def _orphaned() -> None:
    """Ends this process once the one that started it is gone, and its end of the pipe with it."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


def main() -> None:
    """Trains the branch that standard input names."""
    task = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_orphaned, daemon=True).start()
    from .machine import Machine
    from .run import train_branch

    try:
        train_branch(
            load_recipe(task["recipe"]),
            task["branch"],
            Path(task["out"]),
            task["init"],
            Machine(**task["machine"]),
        )
    except PvzooError as error:
        print(f"{_ERROR}{error}", file=sys.stderr)  # noqa: T201
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
