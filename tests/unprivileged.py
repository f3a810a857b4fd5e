"""For tests of what a user may not do: in containers, tests run as root, whom nothing stops, and disks are large."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def unprivileged(root: Path) -> Iterator[None]:
    """Runs the block as a user without rights, who may look into ``root``; what it needs is imported beforehand."""
    if os.geteuid() != 0:
        yield
        return
    modes = {folder: folder.stat().st_mode for folder in (root, *root.parents)}
    closed = {folder: mode for folder, mode in modes.items() if not mode & 0o001}
    try:
        for folder, mode in closed.items():
            folder.chmod(mode | 0o055)
        os.seteuid(65534)
        yield
    finally:
        os.seteuid(0)
        for folder, mode in closed.items():
            folder.chmod(mode)


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Runs the block with no file larger than this, in bytes: what a full disk does, in another word."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
