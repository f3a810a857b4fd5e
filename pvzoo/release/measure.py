"""A model's figures as a manifest lists them: whole, and with each modality alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..data.loading import PairDataset
from ..data.reading import Reader
from ..data.sources import Images
from ..data.split import Split
from ..data.table import Pair
from ..evaluation.bootstrap import FOLDS
from ..evaluation.floor import floors
from ..evaluation.models import Embedded, evaluate_model
from ..evaluation.results import Evaluation
from ..evaluation.scores import as_embeddings
from ..manifest import Metric
from ..model import Model
from ..progress import Advance, Track, silent
from ..threshold import Threshold
from ..training.features import cache_features, embed_features

FIGURES: tuple[tuple[str, float | None], ...] = (("eer", None), ("tar_at_fmr", 1e-3), ("tar_at_fmr", 1e-4))


@dataclass(frozen=True)
class Measured:
    """What was measured of a model.

    Attributes:
        metrics: With all modalities, then with each alone, where the model can do without the others.
        thresholds: Of dev, with all modalities.
    """

    metrics: tuple[Metric, ...]
    thresholds: tuple[Threshold, ...]


def measure(
    model: Model,
    images: Images,
    split: Split,
    *,
    features: Path,
    folds: int = FOLDS,
    workers: int = 0,
    track: Track = silent,
) -> Measured:
    """Evaluates a model on the test of a split.

    Args:
        model: In eval mode.
        images: The data set.
        split: Of its table.
        features: Folder for what the branches give: models that share branches share it, and so do modalities alone.
        folds: Of the subject bootstrap; 0 for no intervals.
        workers: Processes that read images.
        track: Shows progress.

    Raises:
        PvzooError: As :func:`~pvzoo.evaluation.models.evaluate_model`.
    """
    about = {"files": images.digest}
    embed = partial(_embed, model, features=features, pixels=about, workers=workers, track=track)
    metrics: list[Metric] = []
    thresholds: tuple[Threshold, ...] = ()
    for used in ((), *alone(model)):
        done = evaluate_model(model, images, split, modalities=used, folds=folds, embed=embed, track=track)
        metrics += listed(done.result, images, split, used)
        thresholds = thresholds or done.thresholds
    return Measured(tuple(metrics), thresholds)


def _embed(
    model: Model,
    samples: Sequence[Pair],
    reader: Reader,
    *,
    modalities: Sequence[str],
    advance: Advance,
    features: Path,
    pixels: Mapping[str, Any],
    workers: int,
    track: Track,
    classes: Sequence[str] = (),
) -> Embedded:
    """As :func:`~pvzoo.evaluation.models.embed_part`, from cached features; classes are not ranked."""
    dataset = PairDataset(samples, model.spec.preprocessing, reader, modalities=model.spec.modalities)
    cached = cache_features(model, dataset, features, views=1, pixels=pixels, workers=workers, track=track)
    embeddings = embed_features(model, cached, modalities=modalities)
    advance(len(dataset))
    return Embedded(as_embeddings(embeddings, samples), None)


def alone(model: Model) -> list[tuple[str, ...]]:
    """Each modality of a model, if its fusions can do without the others."""
    spec = model.spec
    refuses = any(getattr(spec.entry(ref), "missing", "refuse") == "refuse" for ref in spec.fusion.values())
    return [] if refuses or len(spec.modalities) == 1 else [(modality,) for modality in spec.modalities]


def measure_floor(
    images: Images, split: Split, *, folds: int = FOLDS, track: Track = silent
) -> dict[str, tuple[Metric, ...]]:
    """Matchers that need no training, by modality, on the same comparisons: their names and figures.

    Raises:
        PvzooError: As :func:`~pvzoo.evaluation.floor.floors`.
    """
    found = {}
    for modality in split.modalities:
        for name, result in floors(split.test, images.reader, (modality,), folds=folds, track=track).items():
            found[name] = tuple(listed(result, images, split, (modality,)))
    return found


def listed(result: Evaluation, images: Images, split: Split, used: tuple[str, ...] = ()) -> Iterator[Metric]:
    """The figures of :data:`FIGURES` that the test can show."""
    for name, at in FIGURES:
        figure = result.figure(name, at)
        if math.isnan(figure.value):
            continue
        known = not figure.interval.reason
        yield Metric(
            name=name,
            at=at,
            value=rounded(figure.value),
            low=rounded(figure.interval.low) if known else None,
            high=rounded(figure.interval.high) if known else None,
            dataset=images.name,
            protocol=split.protocol,
            modalities=used,
            genuine=figure.counts.genuine,
            impostor=figure.counts.impostor,
            subjects=figure.counts.subjects,
        )


def rounded(figure: float) -> float:
    """A figure to six digits; those after them differ from machine to machine, with the order of sums."""
    return float(f"{figure:.6g}")
