"""Embeddings of many samples, batch by batch; a bad image costs its own sample only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import ImageError, InputError, PvzooError
from .model import Model
from .pairs import Sample
from .tensorfile import replacing


@dataclass(frozen=True)
class Embedded:
    """Embeddings with their samples' names: ``ids`` of length N, ``embeddings`` (N, D) float32."""

    ids: list[str]
    embeddings: np.ndarray


@torch.inference_mode()
def embed_samples(
    model: Model,
    samples: Sequence[Sample],
    batch_size: int = 16,
    *,
    failures: list[tuple[str, PvzooError]] | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Embedded:
    """Embeds samples in their order.

    Args:
        model: In eval mode.
        samples: What to embed.
        batch_size: Samples at once.
        failures: Takes the samples that could not be embedded, with the reason; without it, the first is raised.
        advance: Called with the number of samples done, for a progress bar.

    Raises:
        ImageError: An image cannot be read, and ``failures`` is ``None``.
        InputError: A sample lacks a modality that the model needs, and ``failures`` is ``None``; or ``batch_size`` is
            less than 1.
    """
    if batch_size < 1:
        raise InputError(f"batch_size should be 1 or more, got {batch_size}")
    ids: list[str] = []
    parts: list[np.ndarray] = []
    with ThreadPoolExecutor(max_workers=4) as decoders:
        for start in range(0, len(samples), batch_size):
            batch = samples[start : start + batch_size]
            readable: list[tuple[Sample, list[Tensor | None]]] = []
            for sample, images in zip(batch, decoders.map(lambda s: _read(model, s), batch), strict=True):
                if isinstance(images, PvzooError):
                    _fail(failures, sample, images)
                else:
                    readable.append((sample, images))
            # Samples that lack a modality cannot share a batch with complete ones.
            for _, group in groupby(readable, key=lambda item: [image is None for image in item[1]]):
                members = list(group)
                try:
                    embeddings = model.embed(*_stack(images for _, images in members))
                except InputError as error:
                    for sample, _ in members:
                        _fail(failures, sample, error)
                    continue
                ids += [sample.id for sample, _ in members]
                parts.append(embeddings.float().cpu().numpy())
            advance(len(batch))
    width = model.spec.geometry.embedding
    return Embedded(ids, np.concatenate(parts) if parts else np.empty((0, width), np.float32))


def _read(model: Model, sample: Sample) -> list[Tensor | None] | PvzooError:
    try:
        return [None if path is None else model.preprocess(path) for path in sample.images.values()]
    except ImageError as error:
        return error


def _stack(rows: Iterable[list[Tensor | None]]) -> list[Tensor | None]:
    """Rows of one image a modality to one batch a modality."""
    batches: list[Tensor | None] = []
    for column in zip(*rows, strict=True):
        images = [image for image in column if image is not None]
        batches.append(torch.cat(images) if images else None)
    return batches


def _fail(failures: list[tuple[str, PvzooError]] | None, sample: Sample, error: PvzooError) -> None:
    if failures is None:
        raise error
    failures.append((sample.id, error))


def write_npz(path: Path, result: Embedded, *, model: str, untrained: bool) -> None:
    """Writes ``ids``, ``embeddings``, ``model`` and ``untrained``; the file appears whole or not at all.

    Raises:
        PvzooError: If it cannot be written.
    """
    try:
        with replacing(path) as new:
            np.savez(
                new,
                ids=np.array(result.ids, dtype=np.str_),
                embeddings=result.embeddings,
                model=np.array(model),
                untrained=np.array(untrained),
            )
    except OSError as error:
        raise PvzooError(f"{path}: cannot be written: {error.strerror or error}") from error
