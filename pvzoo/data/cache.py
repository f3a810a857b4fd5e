"""Decoded images, kept once for all worker processes and bounded in size."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from multiprocessing import get_context, reduction
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO, Any

import numpy as np

from ..errors import DataError
from .reading import Pixels, Reader
from .table import Pair

MEGABYTE = 1_000_000
# Where an image lies, or 0; its shape, with 0 planes for (H, W); and the name of its dtype.
_ENTRY = np.dtype([("start", "i8"), ("shape", "i4", 3), ("dtype", "S8")])
_ALIGN = 64


class CachedReader:
    """Reads each image once, and then from memory that all processes share.

    First come, first kept: what no longer fits is read each time, and nothing is thrown out. The memory is a file
    without a name, mapped by every process: the system writes it out when memory is short, and it is gone with the
    last process, however that ended. It is not in ``/dev/shm``, which is tiny in containers.

    Args:
        reader: Where images come from.
        pairs: The samples whose images are kept; those of others are read each time.
        megabytes: Size of the file, which is taken from the disk at once.
        folder: Where the file is; the system's folder for temporary files if left out.

    Raises:
        DataError: If there is no room for the file.
    """

    def __init__(self, reader: Reader, pairs: Iterable[Pair], megabytes: int, folder: Path | None = None) -> None:
        self.reader = reader
        self.size = megabytes * MEGABYTE
        paths = dict.fromkeys(record.path for pair in pairs for record in pair.records)
        self._numbers = {path: number for number, path in enumerate(paths)}
        first = _ALIGN + len(paths) * _ENTRY.itemsize
        if first > self.size:
            needs = f"{-(-first // MEGABYTE)} MB are needed to list {len(paths):,} images alone"
            raise DataError(f"a cache of {megabytes} MB is too small: {needs}")
        # A lock of the spawn context may go to spawned and forked processes, one of the fork context to forked ones.
        self._lock = get_context("spawn").Lock()
        self._map(_room(megabytes, folder))
        self._end[0] = first

    def _map(self, file: IO[bytes]) -> None:
        self._file = file
        self._memory = mmap.mmap(file.fileno(), self.size)
        self._end = np.frombuffer(self._memory, np.int64, 1)
        self._entries = np.frombuffer(self._memory, _ENTRY, len(self._numbers), _ALIGN)

    def __getstate__(self) -> dict[str, Any]:
        state = {name: vars(self)[name] for name in ("reader", "size", "_numbers", "_lock")}
        return {**state, "file": reduction.DupFd(self._file.fileno())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        file = os.fdopen(state.pop("file").detach(), "r+b")
        vars(self).update(state)
        self._map(file)

    @property
    def images(self) -> int:
        """How many images are kept."""
        return int(np.count_nonzero(self._entries["start"]))

    @property
    def used(self) -> int:
        """Bytes of the file that are in use; never more than :attr:`size`."""
        return int(self._end[0])

    def read(self, pair: Pair) -> dict[str, Pixels | None]:
        kept = {m: None if record is None else self._get(record.path) for m, record in pair.images.items()}
        if all(kept[m] is not None for m, record in pair.images.items() if record is not None):
            return kept
        images = dict(self.reader.read(pair))
        for record in pair.records:
            pixels = images[record.modality]
            if pixels is not None:
                self._keep(record.path, pixels)
        return images

    def _get(self, path: str) -> Pixels | None:
        """A kept image, which cannot be written to."""
        number = self._numbers.get(path)
        if number is None:
            return None
        with self._lock:
            start, shape, dtype = self._entries[number].tolist()
        if not start:
            return None
        shape = shape[: 3 if shape[2] else 2]
        pixels = np.frombuffer(self._memory, dtype.decode(), int(np.prod(shape)), start).reshape(shape)
        pixels.flags.writeable = False
        return pixels

    def _keep(self, path: str, pixels: Pixels) -> None:
        number = self._numbers.get(path)
        if number is None:
            return
        with self._lock:
            start = _aligned(int(self._end[0]))
            if self._entries[number]["start"] or start + pixels.nbytes > self.size:
                return
            room = np.frombuffer(self._memory, pixels.dtype, pixels.size, start)
            room[:] = pixels.reshape(-1)
            self._entries[number] = (start, (*pixels.shape, 0)[:3], pixels.dtype.str)
            self._end[0] = start + pixels.nbytes


def _aligned(position: int) -> int:
    return -(-position // _ALIGN) * _ALIGN


def _room(megabytes: int, folder: Path | None) -> IO[bytes]:
    """A file whose blocks are all there: writing to one that lacks them ends the process when the disk is full."""
    try:
        file = TemporaryFile(dir=folder)  # noqa: SIM115
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, megabytes * MEGABYTE)
        else:
            for _ in range(megabytes):
                file.write(bytes(MEGABYTE))
            file.flush()
    except OSError as error:
        where = folder or gettempdir()
        message = f"no room for a cache of {megabytes:,} MB in {where}: {error.strerror or error}"
        raise DataError(f"{message}; make it smaller, or choose another folder") from error
    return file
