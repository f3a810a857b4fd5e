"""For tests of what a user may not read: in containers, tests run as root, whom nothing stops."""

from __future__ import annotations

import os
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
