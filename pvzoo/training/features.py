"""Features of frozen branches, computed once: from the second epoch on, stage 2 costs next to nothing.

They lie in memory-mapped files, one for each branch and modality, in folders that are named by a digest of all that
they depend on: the weights, the backbone, the samples and their pixels, the augmentation, its seed, the number of views
and the type that they were computed in. So a stale cache cannot be found, and trainings with the same branches share
what they have in common.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from .. import __version__
from ..data.loading import PairDataset, collate
from ..data.sampling import Draw
from ..errors import DataError
from ..model import Model
from ..progress import Advance, Track, silent

FILE = "features.npy"
Key = tuple[str, str]  # branch, modality


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


class FeatureDataset(Dataset[FeatureBatch]):
    """Cached features of a dataset: epoch e gives view e modulo the number of views.

    A whole batch is read at once; give :func:`torch.utils.data.DataLoader` the function :func:`whole` to collate with.

    Args:
        files: By branch and modality, arrays (views, samples, ...) as :func:`cache_features` wrote them.
        dataset: Whose features they are.
    """

    def __init__(self, files: Mapping[Key, Path], dataset: PairDataset) -> None:
        self._maps = {key: np.load(file, mmap_mode="r") for key, file in files.items()}
        self.views = len(next(iter(self._maps.values())))
        self.labels = dataset.labels
        self._labels = torch.tensor(dataset.labels)
        self._present = {
            modality: torch.tensor([pair.images[modality] is not None for pair in dataset.pairs])
            for modality in dataset.modalities
        }

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, draws: Sequence[Draw]) -> FeatureBatch:
        """The samples of a batch, all of one epoch."""
        view = draws[0].epoch % self.views
        places = np.array([draw.position for draw in draws])
        features: dict[str, dict[str, Tensor]] = {}
        for (branch, modality), stored in self._maps.items():
            features.setdefault(branch, {})[modality] = torch.from_numpy(stored[view, places])
        positions = torch.from_numpy(places)
        present = {modality: has[positions] for modality, has in self._present.items()}
        return FeatureBatch(features, present, self._labels[positions], positions)


def whole(batch: FeatureBatch) -> FeatureBatch:
    """Nothing is left to collate."""
    return batch


def cache_features(
    model: Model,
    dataset: PairDataset,
    parent: Path,
    *,
    views: int,
    pixels: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
    batch_size: int = 32,
    workers: int = 0,
    track: Track = silent,
) -> FeatureDataset:
    """Computes the branch features of a dataset, or finds them.

    Args:
        model: Its branches are run in eval mode, on its device.
        dataset: The samples; with augmentation, each view is another draw of it.
        parent: Folder of caches; several trainings may share it.
        views: Passes over the samples.
        pixels: What the images depend on beside their names, as plain data: digest of the files, augmentation.
        dtype: Of autocast; stored is float32 always.
        batch_size: Samples at once.
        workers: Processes that load images.
        track: Shows progress; see :func:`pvzoo.progress.track`.

    Raises:
        DataError: If there is no room, a sample cannot be read, or features are not finite.
    """
    samples = {modality: _samples(dataset, modality, views, pixels) for modality in dataset.modalities}
    folders = {
        (branch, modality): parent / _digest(model, branch, modality, samples[modality], dtype)
        for branch in model.spec.branches
        for modality in model.spec.modalities
    }
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with FileLock(parent / ".lock"):  # the first of several processes computes, the others find
            missing = {key: folder for key, folder in folders.items() if not (folder / FILE).is_file()}
            if missing:
                with track("features of frozen branches", views * len(dataset)) as advance:
                    _compute(model, dataset, missing, views, dtype, batch_size, workers, advance)
    except OSError as error:
        raise DataError(f"{parent}: features cannot be cached: {error.strerror or error}") from error
    return FeatureDataset({key: folder / FILE for key, folder in folders.items()}, dataset)


@torch.inference_mode()
def embed_features(
    model: Model, dataset: FeatureDataset, *, modalities: Sequence[str] = (), batch_size: int = 256
) -> Tensor:
    """The embeddings (N, D) of all samples, on the CPU, from view 0.

    Args:
        model: In eval mode.
        dataset: Of its own features.
        modalities: Those to use; all of the model's by default.
        batch_size: Samples at once.

    Raises:
        MissingModalityError: If a sample lacks a modality that the fusion cannot do without.
    """
    found = []
    for start in range(0, len(dataset), batch_size):
        places = range(start, min(start + batch_size, len(dataset)))
        batch = dataset.__getitems__([Draw(position) for position in places])
        used = [batch.present[m] & (not modalities or m in modalities) for m in model.spec.modalities]
        present = torch.stack(used, 1)
        embeddings = torch.empty(len(places), model.spec.geometry.embedding)
        for pattern in torch.unique(present, dim=0):
            rows = torch.nonzero((present == pattern).all(1))[:, 0]
            has = dict(zip(model.spec.modalities, pattern.tolist(), strict=True))
            features = {
                branch: {m: x[rows].to(model.device, model.dtype) if has[m] else None for m, x in by_modality.items()}
                for branch, by_modality in batch.features.items()
            }
            embeddings[rows] = model.fuse(features).embedding.float().cpu()
        found.append(embeddings)
    return torch.cat(found)


@torch.inference_mode()
def _compute(
    model: Model,
    dataset: PairDataset,
    folders: Mapping[Key, Path],
    views: int,
    dtype: torch.dtype,
    batch_size: int,
    workers: int,
    advance: Advance,
) -> None:
    partial = {key: folder.with_name(f".{folder.name}.partial") for key, folder in folders.items()}
    try:
        maps: dict[Key, Any] = {}
        for (branch, modality), folder in partial.items():
            shape = model.spec.geometry.backbones[branch][modality].features(model.spec.branches[branch].features)
            assert shape is not None
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            maps[branch, modality] = _room(folder / FILE, (views, len(dataset), shape.dim, *(shape.grid or ())))
        with _evaluating(model.branches):
            for view in range(views):
                order = [Draw(position, view) for position in range(len(dataset))]
                loader = DataLoader(dataset, batch_size, sampler=order, collate_fn=collate, num_workers=workers)
                for batch in loader:
                    places = batch.positions.numpy()
                    for (branch, modality), stored in maps.items():
                        image = batch.images[modality]
                        if image is not None:
                            # Around the network alone: images are drawn in this process as well, in float32.
                            with torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32):
                                found = model.run_branch(branch, modality, image.to(model.device, model.dtype))
                            _refuse_overflow(found, f"branches.{modality}.{branch}", dtype)
                            found = found.flatten(1).mul(batch.present[modality].to(found)[:, None]).view(found.shape)
                            stored[view, places] = found.float().cpu().numpy()
                    advance(len(places))
        for stored in maps.values():
            stored.flush()
        for key, folder in folders.items():
            partial[key].replace(folder)
    finally:
        for folder in partial.values():
            shutil.rmtree(folder, ignore_errors=True)


def _refuse_overflow(features: Tensor, part: str, dtype: torch.dtype) -> None:
    """Else it would show as a loss that is not finite, for which another learning rate is no cure."""
    if not features.isfinite().all():
        message = f"{part}: features in {str(dtype).removeprefix('torch.')} are not finite"
        raise DataError(f"{message}; set precision=fp32, or start from other weights")


def _room(file: Path, shape: tuple[int, ...]) -> Any:
    """An array of zeros in a file whose blocks are all there: writing to one that lacks them ends the process."""
    stored = np.lib.format.open_memmap(file, "w+", np.float32, shape)
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    return stored


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _samples(dataset: PairDataset, modality: str, views: int, pixels: Mapping[str, Any]) -> bytes:
    """All that the images of a modality depend on, as the model gets to see them."""
    records = [(pair.simultaneous, pair.images[modality]) for pair in dataset.pairs]
    listed = [None if record is None else (record.path, together) for together, record in records]
    seen = dataset.preprocessing.model_dump(mode="json")
    parts = (__version__, listed, pixels, seen, dataset.augment is not None, dataset.seed, views)
    return json.dumps(parts, sort_keys=True).encode()


def _digest(model: Model, branch: str, modality: str, samples: bytes, dtype: torch.dtype) -> str:
    spec = model.spec.branches[branch]
    about = (branch, modality, spec.backbone[modality].model_dump(mode="json"), spec.features, str(dtype))
    digest = hashlib.sha256(json.dumps(about).encode() + b"\n" + samples)
    for name, tensor in model.branch(branch, modality).state_dict().items():
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(name.encode() + values.numpy().tobytes())
    return digest.hexdigest()[:32]
