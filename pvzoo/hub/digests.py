"""Whether a file is the one that was published. huggingface_hub never looks: it checks sizes alone.

Hashing 240 MB takes longer than loading them, so a file that was found right is noted, with what changes when
anyone writes to it: inode, size, and both times. The notes are in ``PVZOO_CACHE``; without them, or where they cannot
be written, files are hashed each time.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import WeightsError, count
from ..manifest import File


@dataclass(frozen=True)
class Pin:
    """What a file should be.

    Attributes:
        digest: SHA-256 in 64 hexadecimal digits; or in 40 the id that git gives a file, which is all that the Hub
            tells of small ones.
        size: In bytes, if it is known.
    """

    digest: str
    size: int | None = None

    @classmethod
    def of(cls, file: File) -> Pin:
        return cls(file.sha256, file.size)


def fault(path: Path, pin: Pin, *, anew: bool = False) -> str:
    """What is wrong with a file, or an empty string.

    Args:
        path: The file.
        pin: What it should be.
        anew: Hash it although it was found right before.

    Raises:
        WeightsError: If it cannot be read.
    """
    try:
        state = _state(path)
        if pin.size is not None and state[1] != pin.size:
            return f"has {count(state[1], 'byte')} and should have {pin.size:,}"
        note = _note(path)
        if note is not None and not anew and _read(note) == [pin.digest, *state]:
            return ""
        digest = sha256(path) if len(pin.digest) == 64 else git_id(path.read_bytes())
        if digest != pin.digest:
            return f"has the digest {digest[:16]}... and should have {pin.digest[:16]}..."
        if note is not None and _state(path) == state:
            _write(note, [pin.digest, *state])
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    return ""


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_id(content: bytes) -> str:
    """The id that git gives to a file with this content, where it is not in LFS."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _state(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _note(path: Path) -> Path | None:
    root = os.environ.get("PVZOO_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "pvzoo"
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    try:
        return Path(root).expanduser() / "verified" / f"{name}.json"
    except RuntimeError:  # a user without a home, as in some containers
        return None


def _read(note: Path) -> object:
    try:
        return json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write(note: Path, content: object) -> None:
    """Best effort: a cache that cannot be written costs time, and nothing else."""
    new = note.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps(content), encoding="utf-8")
        new.replace(note)
