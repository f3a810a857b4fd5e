"""A split as a Lightning data module (extra ``train``)."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch.utils.data import DataLoader

from ..errors import DataError
from ..extras import missing
from ..specs import ModelSpec
from .augment import Augmentation, GrowingAugmentation
from .cache import CachedReader
from .loading import Batch, Item, PairDataset, Skipped, collate
from .reading import FileReader, Reader
from .sampling import Balanced, InOrder, Sampler, Shuffled
from .split import Split

try:
    from lightning import LightningDataModule
except ImportError as error:
    raise missing("Lightning", "train", error) from error

Loader = DataLoader[Item | Skipped]


class PairDataModule(LightningDataModule):
    """Batches of a split: training samples and dev to train with, or dev and test to evaluate; never all three.

    Labels are places in ``split.classes``; identities that do not train have the numbers after them.

    Args:
        split: What a protocol made of a table.
        spec: The model's: its modalities and preprocessing.
        purpose: ``"training"`` or ``"evaluation"``.
        reader: Where pixels come from; the files of the split if left out.
        batch_size: Samples a batch, on each rank.
        balanced: Identities, and samples of each, in a training batch; if left out, it is ``batch_size`` at random.
        augment: What is done to training samples; nothing if left out.
        seed: Of order and augmentation.
        on_error: What becomes of a sample that cannot be read: ``"stop"``, or ``"skip"`` it and list it.
        cache: Megabytes of decoded images to keep, on each rank; 0 keeps none.
        cache_folder: Where they are kept; the system's folder for temporary files if left out.
        workers: Processes that read training samples, and as many for dev or test; 0 reads in this one.
        start: How they are started, such as ``"spawn"``; as is usual on the system if left out.

    Attributes:
        train_set: The training samples; ``None`` for evaluation.
        dev_set: The samples of ``split.dev``.
        test_set: The samples of ``split.test``; ``None`` for training.
        skipped: What a trainer's batches lacked, and why; and how often.

    Raises:
        DataError: If the samples lack a modality of the spec, or there is no room for the cache.
    """

    def __init__(
        self,
        split: Split,
        spec: ModelSpec,
        *,
        purpose: Literal["training", "evaluation"] = "training",
        reader: Reader | None = None,
        batch_size: int = 64,
        balanced: tuple[int, int] | None = None,
        augment: Augmentation | GrowingAugmentation | None = None,
        seed: int = 0,
        on_error: Literal["stop", "skip"] = "stop",
        cache: int = 0,
        cache_folder: Path | None = None,
        workers: int = 0,
        start: Literal["fork", "spawn", "forkserver"] | None = None,
    ) -> None:
        super().__init__()
        reader = reader or FileReader(split.root)
        other = split.train if purpose == "training" else split.test.samples
        if cache:
            reader = CachedReader(reader, (*other, *split.dev.samples), cache, cache_folder)
        dataset = partial(
            PairDataset,
            preprocessing=spec.preprocessing,
            reader=reader,
            modalities=spec.modalities,
            classes=split.classes,
            seed=seed,
            on_error=on_error,
        )
        self.split = split
        self.train_set = dataset(other, augment=augment) if purpose == "training" else None
        self.dev_set = dataset(split.dev.samples)
        self.test_set = dataset(other) if purpose == "evaluation" else None
        self.batch_size = batch_size
        self.balanced = balanced
        self.seed = seed
        self.workers = workers
        self.start = start
        self.skipped: Counter[str] = Counter()

    @property
    def num_classes(self) -> int:
        """How many identities train: what the model's head tells apart."""
        return len(self.split.classes)

    def train_dataloader(self) -> Loader:
        """The training samples, shuffled or balanced, and augmented.

        Raises:
            DataError: If the module is for evaluation, or its samples do not make a batch.
        """
        if self.train_set is None:
            raise self._refusal("the training samples cannot be read while evaluating", "training")
        if self.balanced is None:
            return self._loader(
                self.train_set, Shuffled(len(self.train_set), self.batch_size, seed=self.seed, **self._rank())
            )
        return self._loader(
            self.train_set, Balanced(self.train_set.labels, *self.balanced, seed=self.seed, **self._rank())
        )

    def val_dataloader(self) -> Loader:
        """The samples of dev, in order."""
        return self._in_order(self.dev_set)

    def test_dataloader(self) -> Loader:
        """The samples of the test, in order.

        Raises:
            DataError: If the module is for training.
        """
        if self.test_set is None:
            raise self._refusal("the test split cannot be read while training", "evaluation")
        return self._in_order(self.test_set)

    def predict_dataloader(self) -> Loader:
        """As :meth:`test_dataloader`."""
        return self.test_dataloader()

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        self.skipped.update(sample.reason for sample in batch.skipped)
        return batch

    def _refusal(self, message: str, purpose: str) -> DataError:
        return DataError(f"{self.split.protocol}: {message}; make another module with purpose={purpose!r}")

    def _rank(self) -> dict[str, int]:
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size} if self.trainer else {}

    def _in_order(self, dataset: PairDataset) -> Loader:
        return self._loader(dataset, InOrder(len(dataset), self.batch_size, **self._rank()))

    def _loader(self, dataset: PairDataset, sampler: Sampler) -> Loader:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return DataLoader(
            dataset,
            batch_size=sampler.batch_size,
            sampler=sampler,
            collate_fn=collate,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            multiprocessing_context=self.start if self.workers else None,
            pin_memory=accelerator is not None and accelerator.type != "mps",
        )
