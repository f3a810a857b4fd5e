"""The batches of a training: images as a recipe augments them, or cached features of frozen branches."""

from __future__ import annotations

from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from ..data.augment import Augmentation, GrowingAugmentation
from ..data.module import PairDataModule
from ..data.sampling import Balanced, InOrder, Sampler, Shuffled
from ..data.sources import Images
from ..data.split import Split
from ..errors import DataError
from ..model import Model
from ..progress import track
from .features import FeatureBatch, FeatureDataset, cache_features, whole
from .lightning import LightningDataModule
from .machine import Machine, device_of, dtype_of
from .recipe import Recipe


def data_module(
    recipe: Recipe, model: Model, split: Split, images: Images, machine: Machine, out: Path
) -> LightningDataModule:
    """The batches of a training and of its dev samples.

    Args:
        recipe: How it trains.
        model: What it trains.
        split: Of the samples.
        images: Where they come from.
        machine: Where it trains, and where cached features are kept.
        out: Folder of the run.

    Raises:
        DataError: If the samples do not make a batch, or too few for an epoch; or as :func:`cache_features`.
    """
    size, samples = recipe.batch.size, recipe.batch.samples
    data = PairDataModule(
        split,
        model.spec,
        reader=images.reader,
        batch_size=size,
        balanced=(size // samples, samples) if samples else None,
        augment=_augmentation(recipe),
        seed=0 if recipe.cache_features else recipe.seed,  # cached views serve trainings with other seeds as well
        workers=recipe.batch.workers,
    )
    batches = len(data.train_dataloader())
    if recipe.epoch_share * batches < 1:
        least = ceil(1000 / batches) / 1000
        raise DataError(f"epoch_share: {recipe.epoch_share:g} of {batches} batches is none; set at least {least:g}")
    if not recipe.cache_features:
        return data
    assert data.train_set is not None
    workers = recipe.batch.workers
    cached = partial(
        cache_features,
        model.to(device_of(machine)),
        parent=Path(machine.features or out / "features"),
        pixels=pixels(recipe, images),
        dtype=dtype_of(recipe, machine),
        workers=workers,
        track=track,
    )
    train, dev = cached(data.train_set, views=recipe.cache_features), cached(data.dev_set, views=1)
    return FeatureDataModule(train, dev, recipe)


def pixels(recipe: Recipe, images: Images) -> dict[str, Any]:
    """What the pixels that a model sees depend on, for :func:`~pvzoo.training.features.cache_features`."""
    return {"files": images.digest, "augmentation": recipe.augmentation.model_dump(mode="json")}


def _augmentation(recipe: Recipe) -> Augmentation | GrowingAugmentation:
    if not recipe.schedule.augmentation.end:
        return Augmentation.of(recipe.augmentation)
    return GrowingAugmentation(recipe.augmentation, partial(recipe.schedule.augmentation.at, epochs=recipe.epochs))


class FeatureDataModule(LightningDataModule):
    """Batches of cached features.

    Args:
        train: Of the training samples.
        dev: Of the dev samples.
        recipe: Says how batches are made.
    """

    def __init__(self, train: FeatureDataset, dev: FeatureDataset, recipe: Recipe) -> None:
        super().__init__()
        self._train, self._dev, self._recipe = train, dev, recipe

    def train_dataloader(self) -> DataLoader[FeatureBatch]:
        size, samples, seed = self._recipe.batch.size, self._recipe.batch.samples, self._recipe.seed
        sampler: Sampler
        if samples is None:
            sampler = Shuffled(len(self._train), size, seed=seed, **self._ranks())
        else:
            sampler = Balanced(self._train.labels, size // samples, samples, seed=seed, **self._ranks())
        return self._loader(self._train, sampler)

    def val_dataloader(self) -> DataLoader[FeatureBatch]:
        return self._loader(self._dev, InOrder(len(self._dev), self._recipe.batch.size, **self._ranks()))

    def _ranks(self) -> dict[str, int]:
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size} if self.trainer else {}

    @staticmethod
    def _loader(dataset: FeatureDataset, sampler: Sampler) -> DataLoader[FeatureBatch]:
        return DataLoader(dataset, sampler.batch_size, sampler=sampler, collate_fn=whole)  # type: ignore[arg-type]
