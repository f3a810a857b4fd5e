"""Pairs a second from image files to batches, against a plain PIL loop; and what augmenting and drawing cost.

Everything runs on one thread a process, as in workers. The loop decodes as most public code does: one process, no
checks, 8 bits.

Example:
    python benchmarks/loading.py --size 128
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from timing import compare, seconds
from torch.utils.data import DataLoader

from pvzoo.data.augment import Augmentation, AugmentParams
from pvzoo.data.cache import CachedReader
from pvzoo.data.loading import PairDataset, collate
from pvzoo.data.reading import FileReader, Reader, SynthReader
from pvzoo.data.sampling import Shuffled
from pvzoo.data.table import Table
from pvzoo.specs import Preprocessing
from pvzoo.synth import SynthConfig, generate

BATCH = 32
HOW = Preprocessing()  # 224 x 224, grey


def by_hand(table: Table) -> None:
    """Opens, converts, resizes, scales and stacks; an epoch in order."""
    pairs = table.pairs()
    for start in range(0, len(pairs), BATCH):
        for modality in table.modalities:
            images = []
            for pair in pairs[start : start + BATCH]:
                with Image.open(table.file(pair.images[modality])) as file:
                    grey = file.convert("L").resize(HOW.size, Image.Resampling.BICUBIC)
                images.append((torch.from_numpy(np.array(grey))[None].float() / 255 - HOW.mean[0]) / HOW.std[0])
            torch.stack(images)


def loader(table: Table, reader: Reader, *, workers: int, **options: Any) -> DataLoader:
    dataset = PairDataset(table.pairs(), HOW, reader, **options)
    sampler = Shuffled(len(dataset), BATCH)
    return DataLoader(
        dataset,
        batch_size=sampler.batch_size,
        sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def epoch(batches: DataLoader) -> float:
    """Seconds of one pass."""
    return seconds(lambda: [None for _ in batches])


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of one call in this process: other work on the machine changes them little."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=int, default=224, help="pixels of the files; the model takes 224")
    parser.add_argument("--rounds", type=int, default=7, help="pairs of epochs that count")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = SynthConfig(seed=1, subjects=16, sessions=2, samples=5, size=args.size)
    with TemporaryDirectory() as folder:
        generate(config, Path(folder))
        table = Table.read(Path(folder) / "table.csv")
        files = FileReader(table.root)
        theirs = partial(seconds, partial(by_hand, table))
        cached = CachedReader(files, table.pairs(), 500)
        for workers, what, reader, goal in (
            (0, "no cache", files, 1.25),
            (0, "cache", cached, 0.4),
            (2, "no cache", files, 0.8),
            (2, "cache", cached, 0.3),
        ):
            ours = partial(epoch, loader(table, reader, workers=workers))
            compare(f"{workers} workers, {what} / PIL loop", ours, theirs, goal=goal, rounds=args.rounds)
        augment = Augmentation.of(AugmentParams())
        for name, work in (
            ("PIL loop", partial(by_hand, table)),
            ("files", partial(epoch, loader(table, files, workers=0))),
            ("files, cache", partial(epoch, loader(table, cached, workers=0))),
            ("files, cache, augmented", partial(epoch, loader(table, cached, workers=0, augment=augment))),
            ("drawn by SynthPalm", partial(epoch, loader(table, SynthReader(config), workers=0))),
        ):
            spent = min(cpu(work) for _ in range(args.rounds)) / len(table.pairs())
            print(f"{name}: {1000 * spent:.2f} ms of CPU a pair, {1 / spent:.0f} pairs/s a core", flush=True)


if __name__ == "__main__":
    main()
