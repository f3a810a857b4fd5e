"""From the name of a data set to a table, a reader of its pixels, and a digest of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, did_you_mean
from ..synth import RELEASES
from .adapters.base import open_layout
from .params import Data
from .reading import FileReader, Reader, SynthReader, synth_table
from .table import Table

TABLE = "table.csv"


@dataclass(frozen=True)
class Images:
    """A data set, ready to be read.

    Attributes:
        name: The release, or the end of the path: what reports call it.
        table: With the digest of every file, where there are files.
        reader: Where its pixels come from.
        digest: SHA-256 over all pixels: of the files, or of what SynthPalm draws them from.
    """

    name: str
    table: Table
    reader: Reader
    digest: str


def open_images(data: Data) -> Images:
    """Opens a data set.

    Raises:
        DataError: If there is no such release, table or folder, or a file cannot be read.
    """
    if data.source in RELEASES:
        config = RELEASES[data.source]
        digest = hashlib.sha256(repr(config).encode()).hexdigest()
        return Images(data.source, synth_table(config), SynthReader(config), digest)
    path = Path(data.source).expanduser()
    if not path.exists():
        hint = did_you_mean(data.source, RELEASES) or f"; releases are {', '.join(RELEASES)}"
        raise DataError(f"{data.source}: neither a SynthPalm release nor a table or folder{hint}")
    if data.layout is not None:
        table = open_layout(data.layout, data.layout_params).scan(path)
    elif path.is_file():
        table = Table.read(path)
    elif (path / TABLE).is_file():
        table = Table.read(path / TABLE)
    else:
        raise DataError(f"{path}: has no {TABLE}; say which layout it has ('pvzoo data layouts' lists them)")
    table = table.hashed()
    digest = hashlib.sha256("\n".join(f"{r.path} {r.digest}" for r in table).encode()).hexdigest()
    name = "/".join(path.resolve().parts[-2 if path.is_file() else -1 :])
    return Images(name, table, FileReader(table.root), digest)
