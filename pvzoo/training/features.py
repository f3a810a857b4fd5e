"""Features of frozen branches, computed once: from the second epoch on, stage 2 costs next to nothing.

They lie in memory-mapped files, in a folder named by a digest of all that they depend on, so a stale cache cannot be
found: the branches' weights and spec, the samples and their pixels, the augmentation, its seed and the number of views.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from .. import __version__
from ..data.loading import Batch, PairDataset, collate
from ..data.sampling import Draw
from ..errors import DataError
from ..model import Model

DONE = "features.json"


class FeatureItem(NamedTuple):
    """The features of a sample by branch and modality, without the batch axis."""

    features: dict[str, dict[str, Tensor]]
    present: dict[str, bool]
    label: int
    position: int


class FeatureBatch(NamedTuple):
    """Samples, as ``model.fuse`` takes them.

    Attributes:
        features: By branch and modality; zeros where a sample lacks the modality.
        present: By modality, (N,) bool.
        labels: (N,) int64.
        positions: (N,) int64.
    """

    features: dict[str, dict[str, Tensor]]
    present: dict[str, Tensor]
    labels: Tensor
    positions: Tensor


class FeatureDataset(Dataset[FeatureItem]):
    """Cached features of a dataset: epoch e gives view e modulo the number of views.

    Args:
        folder: That :func:`cache_features` filled.
        labels: Of each sample.
    """

    def __init__(self, folder: Path, labels: Sequence[int]) -> None:
        about = json.loads((folder / DONE).read_text())
        self.views: int = about["views"]
        self.labels = labels
        self._maps = {
            branch: {m: np.load(folder / file, mmap_mode="r") for m, file in files.items()}
            for branch, files in about["files"].items()
        }
        self._present = np.load(folder / "present.npy", mmap_mode="r")
        self._modalities: list[str] = about["modalities"]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, draw: int | Draw) -> FeatureItem:
        draw = draw if isinstance(draw, Draw) else Draw(int(draw))
        place = (draw.epoch % self.views, draw.position)
        features = {
            branch: {m: torch.from_numpy(stored[place].astype(np.float32)) for m, stored in maps.items()}
            for branch, maps in self._maps.items()
        }
        present = dict(zip(self._modalities, map(bool, self._present[draw.position]), strict=True))
        return FeatureItem(features, present, self.labels[draw.position], draw.position)


def collate_features(items: Sequence[FeatureItem]) -> FeatureBatch:
    return FeatureBatch(*default_collate(list(items)))


def cache_features(
    model: Model,
    dataset: PairDataset,
    parent: Path,
    *,
    views: int,
    pixels: Mapping[str, Any],
    batch_size: int = 32,
    workers: int = 0,
    advance: Callable[[int], object] = lambda count: None,
) -> FeatureDataset:
    """Computes the branch features of a dataset, or finds them.

    Args:
        model: Its branches are run in eval mode.
        dataset: The samples; with augmentation, each view is another draw of it.
        parent: Folder of caches.
        views: Passes over the samples.
        pixels: What the images depend on beside their names, as plain data: digest of the files, augmentation.
        batch_size: Samples at once.
        workers: Processes that load images.
        advance: Called with the number of samples that were done.

    Raises:
        DataError: If there is no room, or a sample cannot be read.
    """
    key = _key(model, dataset, views, pixels)
    folder, partial = parent / key, parent / f".{key}.partial"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with FileLock(parent / f".{key}.lock"):  # the first of several processes computes, the others find
            if not (folder / DONE).is_file():
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                _compute(model, dataset, partial, views, batch_size, workers, advance)
                partial.replace(folder)
    except OSError as error:
        raise DataError(f"{folder}: features cannot be cached: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return FeatureDataset(folder, dataset.labels)


@torch.inference_mode()
def _compute(
    model: Model,
    dataset: PairDataset,
    folder: Path,
    views: int,
    batch_size: int,
    workers: int,
    advance: Callable[[int], object],
) -> None:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    maps: dict[str, dict[str, Any]] = {branch: {} for branch in model.spec.branches}
    present = np.lib.format.open_memmap(
        folder / "present.npy", "w+", np.bool_, (len(dataset), len(model.spec.modalities))
    )
    for view in range(views):
        order = [Draw(position, view) for position in range(len(dataset))]
        loader = DataLoader(dataset, batch_size, sampler=order, collate_fn=collate, num_workers=workers)
        for batch in loader:
            places = batch.positions.numpy()
            for number, modality in enumerate(model.spec.modalities):
                present[places, number] = batch.present[modality].numpy()
            for branch, by_modality in _features(model, batch).items():
                for modality, values in by_modality.items():
                    if modality not in maps[branch]:
                        shape = (views, len(dataset), *values.shape[1:])
                        file = folder / f"{branch}.{modality}.npy"
                        maps[branch][modality] = np.lib.format.open_memmap(file, "w+", np.float32, shape)
                    maps[branch][modality][view, places] = values.float().cpu().numpy()
            advance(len(places))
    for module, mode in modes:
        module.training = mode
    for stored in [present, *(stored for by_modality in maps.values() for stored in by_modality.values())]:
        stored.flush()
    about = {
        "views": views,
        "modalities": list(model.spec.modalities),
        "files": {branch: {m: f"{branch}.{m}.npy" for m in by_modality} for branch, by_modality in maps.items()},
    }
    (folder / DONE).write_text(json.dumps(about))


def _features(model: Model, batch: Batch) -> Mapping[str, Mapping[str, Tensor]]:
    images = {m: None if x is None else x.to(model.device, model.dtype) for m, x in batch.images.items()}
    found = model.features(**images)
    return {branch: {m: x for m, x in features.items() if x is not None} for branch, features in found.items()}


def _key(model: Model, dataset: PairDataset, views: int, pixels: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    spec = model.spec.model_dump(mode="json", include={"branches", "modalities", "preprocessing", "share_branches"})
    samples = [(*pair.key, [record.path for record in pair.records]) for pair in dataset.pairs]
    for part in (__version__, spec, samples, pixels, dataset.augment is not None, dataset.seed, views):
        digest.update(json.dumps(part, sort_keys=True).encode() + b"\n")
    for name, tensor in model.branches.state_dict().items():
        digest.update(
            name.encode() + tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()[:32]
