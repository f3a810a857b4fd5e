"""Where the pixels of a sample come from: files, or SynthPalm, which draws them when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import ImageError
from ..extras import opencv
from ..images import decode
from ..synth import Generator, SynthConfig
from ..synth.writer import rows
from .table import Pair, Record, Table

Pixels = np.ndarray  # (H, W) or (H, W, C), of uint8, uint16, or floats in [0, 1]


class Reader(Protocol):
    """Gives the images of a sample; goes to worker processes, so it can be pickled."""

    def read(self, pair: Pair) -> Mapping[str, Pixels | None]:
        """The decoded images by modality; ``None`` where the sample has none.

        Raises:
            ImageError: Naming the image that cannot be had, and why.
        """


class FileReader:
    """Decodes image files.

    Args:
        root: Folder that relative paths start from: that of a table or split.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, pair: Pair) -> dict[str, Pixels | None]:
        return {m: None if record is None else decode(self.root / record.path) for m, record in pair.images.items()}


class SynthReader:
    """Draws the samples of a SynthPalm data set, the images of a pair at once; there are no files.

    OpenCV is kept to one thread in every process that has a reader, as the workers are the threads: a worker that is
    forked while OpenCV's own are alive may wait for them for ever.

    Args:
        config: The data set; :func:`synth_table` lists its samples.
        hands: Hands whose geometry each process keeps, a third of a megabyte each at 224 px. A sample of another hand
            costs three times as much.

    Raises:
        MissingExtraError: If OpenCV is not installed.
    """

    def __init__(self, config: SynthConfig, *, hands: int = 512) -> None:
        self.config = config
        self.hands = hands
        self._generator = Generator(config, cache=hands)
        opencv().setNumThreads(1)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(SynthReader, hands=self.hands), (self.config,)  # each process has a generator of its own

    def read(self, pair: Pair) -> dict[str, Pixels | None]:
        try:
            key = (int(pair.subject), pair.hand, pair.session, pair.sample)
            self.config.check(*key)
        except ValueError as error:  # SynthError is one
            raise ImageError(f"{pair.records[0].path}: not of this SynthPalm data set: {error}") from error
        sample = self._generator.sample(*key)
        return {m: None if record is None else getattr(sample, m) for m, record in pair.images.items()}


def synth_table(config: SynthConfig) -> Table:
    """The table that ``pvzoo synth`` writes beside its files, without the files."""
    records = (
        Record(path, modality, str(subject), hand, session, sample, spectrum, pairing)
        for path, modality, subject, hand, session, sample, spectrum, pairing in rows(config)
    )
    return Table(records, Path("synthpalm"))
