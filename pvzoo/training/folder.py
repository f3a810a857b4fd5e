"""Folders of runs: each belongs to one process, and to one description of what is run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from ..errors import PvzooError
from ..tensorfile import replacing

LOCK = ".lock"


class RunError(PvzooError):
    """A run folder cannot be used as asked."""


def is_first() -> bool:
    """Whether this is the first of the processes that train together, or the only one; true before they meet."""
    # In the order of trust: torchrun's, Lightning's own, SLURM's, which is also set where SLURM started one process.
    for names in (("RANK",), ("NODE_RANK", "LOCAL_RANK"), ("SLURM_PROCID",)):
        found = [os.environ[name] for name in names if name in os.environ]
        if found:
            return set(found) == {"0"}
    return True


@contextmanager
def claimed(out: Path, name: str, content: Mapping[str, Any], resume: bool) -> Iterator[None]:
    """The folder, for this process alone, and for this content and no other; still free if nothing comes of it.

    Args:
        out: The folder, made if it is not there.
        name: Of the YAML file in it that says what is run.
        content: Of that file, as plain data.
        resume: Whether the folder is one that was begun.

    Raises:
        RunError: If another process has the folder, it holds a run already or none, or one of another content; names
            the fields that differ.
    """
    if not is_first():  # which claims it for all
        yield
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / LOCK)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise RunError(f"{out}: another process is writing this run; wait for it, or choose another folder") from error
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror or error}") from error
    begun = (out / name).is_file()
    try:
        if begun:
            if not resume:
                raise RunError(f"{out}: holds a run; --resume goes on with it, or choose another folder")
            before = yaml.safe_load((out / name).read_text(encoding="utf-8"))
            changed = sorted(_changes(before, content))
            if changed:
                shown = ", ".join(changed)
                message = f"{out}: was begun with another {name.partition('.')[0]}; {shown} differ"
                raise RunError(f"{message}. Resume with the same, or start anew")
        elif resume:
            raise RunError(f"{out}: there is no run to resume; leave out --resume to begin one")
        else:
            write(out / name, yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True))
        try:
            yield
        except PvzooError:
            # What failed before anything was done, by a fault in the recipe, say, need not be resumed as it is.
            if not begun and {path.name for path in out.iterdir()} <= {name, LOCK}:
                (out / name).unlink()
            raise
    finally:
        lock.release()


def _changes(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """Dotted paths of the fields that differ."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {*before, *now}:
            yield from _changes(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
    elif before != now:
        yield path


def write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    with replacing(path) as file:
        file.write_text(text, encoding="utf-8")
