"""A split as a Lightning data module (extra ``train``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch.utils.data import DataLoader

from ..errors import DataError
from ..extras import missing
from ..specs import ModelSpec
from .augment import Augmentation
from .cache import CachedReader
from .loading import Batch, Item, PairDataset, Skipped, collate
from .reading import FileReader, Reader
from .sampling import Balanced, InOrder, Sampler, Shuffled
from .split import Split
from .table import Pair

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
        per_identity: Samples of each identity in a training batch; if left out, batches are shuffled.
        augment: What is done to training samples; nothing if left out.
        seed: Of order and augmentation.
        on_error: What becomes of a sample that cannot be read: ``"stop"``, or ``"skip"`` it and list it.
        cache: Megabytes of decoded images to keep, on each rank; 0 keeps none.
        cache_folder: Where they are kept; the system's folder for temporary files if left out.
        workers: Processes that read training samples, and as many for dev or test; 0 reads in this one.
        start: How they are started, such as ``"spawn"``; as the system is used to if left out.

    Attributes:
        skipped: What was left out of batches of the trainer's, and why; and how often.

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
        per_identity: int | None = None,
        augment: Augmentation | None = None,
        seed: int = 0,
        on_error: Literal["stop", "skip"] = "stop",
        cache: int = 0,
        cache_folder: Path | None = None,
        workers: int = 0,
        start: Literal["fork", "spawn", "forkserver"] | None = None,
    ) -> None:
        super().__init__()
        self.split = split
        self.spec = spec
        self.purpose = purpose
        self.batch_size = batch_size
        self.per_identity = per_identity
        self.augment = augment
        self.seed = seed
        self.on_error: Literal["stop", "skip"] = on_error
        self.workers = workers
        self.start = start
        self.skipped: Counter[str] = Counter()
        self.reader = reader or FileReader(split.root)
        if cache:
            second = split.test.samples if purpose == "evaluation" else split.train
            self.reader = CachedReader(self.reader, (*second, *split.dev.samples), cache, cache_folder)

    @property
    def num_classes(self) -> int:
        """How many identities train: what the model's head tells apart."""
        return len(self.split.classes)

    def train_dataloader(self) -> Loader:
        """The training samples, shuffled or balanced, and augmented.

        Raises:
            DataError: If the module is for evaluation, or its samples do not make a batch.
        """
        self._for("training", "the training samples cannot be read while evaluating")
        dataset = self.dataset(self.split.train, self.augment)
        rank, world_size = self._rank()
        sampler: Sampler
        if self.per_identity is None:
            sampler = Shuffled(len(dataset), self.batch_size, seed=self.seed, rank=rank, world_size=world_size)
        elif self.batch_size % self.per_identity:
            raise DataError(
                f"a batch of {self.batch_size} has no whole number of identities with {self.per_identity} samples each"
            )
        else:
            identities = self.batch_size // self.per_identity
            sampler = Balanced(
                dataset.labels, identities, self.per_identity, seed=self.seed, rank=rank, world_size=world_size
            )
        return self._loader(dataset, sampler)

    def val_dataloader(self) -> Loader:
        """The samples of ``split.dev.samples``, in order."""
        return self._in_order(self.split.dev.samples)

    def test_dataloader(self) -> Loader:
        """The samples of ``split.test.samples``, in order.

        Raises:
            DataError: If the module is for training.
        """
        self._for("evaluation", "the test split cannot be read while training")
        return self._in_order(self.split.test.samples)

    def predict_dataloader(self) -> Loader:
        """As :meth:`test_dataloader`."""
        return self.test_dataloader()

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        self.skipped.update(sample.reason for sample in batch.skipped)
        return batch

    def dataset(self, pairs: Sequence[Pair], augment: Augmentation | None = None) -> PairDataset:
        """Samples of the split as the module's loaders read them."""
        return PairDataset(
            pairs,
            self.spec.preprocessing,
            self.reader,
            modalities=self.spec.modalities,
            classes=self.split.classes,
            augment=augment,
            seed=self.seed,
            on_error=self.on_error,
        )

    def _for(self, purpose: str, refusal: str) -> None:
        if self.purpose != purpose:
            raise DataError(f"{self.split.protocol}: {refusal}; make another module with purpose={purpose!r}")

    def _in_order(self, pairs: Sequence[Pair]) -> Loader:
        rank, world_size = self._rank()
        return self._loader(self.dataset(pairs), InOrder(len(pairs), self.batch_size, rank=rank, world_size=world_size))

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

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
