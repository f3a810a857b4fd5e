"""A training again from an entry of a manifest, and its figures beside those that are recorded."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import catalog, factory
from ..data.params import Data
from ..data.protocols import read_protocol
from ..data.sources import open_images
from ..errors import DataError, WeightsError
from ..evaluation.models import evaluate_model
from ..manifest import Metric, Weights
from ..progress import Track, silent
from ..tensorfile import replacing
from ..training.machine import Machine
from ..training.recipe import load_recipe
from ..training.run import train
from .measure import rounded

FOUND = "reproduced.json"


@dataclass(frozen=True)
class Again:
    """A figure that was measured again.

    Attributes:
        recorded: As the manifest has it.
        value: What came out now; ``nan`` if it cannot be had.
    """

    recorded: Metric
    value: float

    @property
    def inside(self) -> bool:
        """Whether the value is the recorded one, or lies in its interval, in the digits in which these are recorded."""
        value, (low, high) = rounded(self.value), (self.recorded.low, self.recorded.high)
        same = value == rounded(self.recorded.value)
        return same or (low is not None and high is not None and rounded(low) <= value <= rounded(high))


def recorded(name: str) -> tuple[str, Weights]:
    """The entry of a model: of its tag, or of its default one; with the name in full.

    Raises:
        UnknownNameError: If there is no such model.
        WeightsError: If there is no such entry, or it records no recipe or no figures.
    """
    model, tag = catalog.split_tag(name)
    known = catalog.tags(catalog.find_model(model).name)
    full = f"{model}.{tag or next(iter(known), None)}"
    entry = catalog.weights(full)
    if entry is None:
        has = f"; it has {', '.join(known)}" if known else ""
        raise WeightsError(f"no manifest lists weights for {name}, so there is nothing to reproduce{has}")
    if entry.recipe is None or not entry.recipe.content:
        raise WeightsError(f"the manifest records no recipe of {full} that can be run; its author did not pack one")
    if not entry.metrics:
        raise WeightsError(f"the manifest records no figures of {full} to compare with")
    return full, entry


def reproduce(
    name: str,
    out: Path,
    *,
    resume: bool = False,
    machine: Machine | None = None,
    device: torch.device | None = None,
    workers: int = 0,
    track: Track = silent,
) -> list[Again]:
    """Trains as the manifest records, evaluates as its figures say, and compares.

    Args:
        name: A model, perhaps with the tag of its weights.
        out: Folder of the run; gets ``reproduced.json`` beside what a training writes.
        resume: Go on with the run in the folder.
        machine: Where to train.
        device: Where to evaluate; the CPU if left out.
        workers: Processes that read images.
        track: Shows progress.

    Raises:
        PvzooError: As :func:`recorded`; or the recipe cannot be run, or the data is not there.
    """
    full, entry = recorded(name)
    assert entry.recipe is not None
    groups: defaultdict[tuple[str, str, tuple[str, ...]], list[Metric]] = defaultdict(list)
    for metric in entry.metrics:
        groups[metric.dataset, metric.protocol, metric.modalities].append(metric)
    parts = {}
    for dataset, protocol in dict.fromkeys((dataset, protocol) for dataset, protocol, _ in groups):
        images = open_images(Data(source=dataset))  # before hours of training
        parts[dataset, protocol] = images, read_protocol(protocol).split(images.table)
    recipe = load_recipe(entry.recipe.content)
    train(recipe, out, resume=resume, machine=machine)
    model = factory.create(f"local-dir:{_inside(out, entry.recipe.model)}", device=device)
    found: dict[Metric, float] = {}
    for (dataset, protocol, modalities), metrics in groups.items():
        images, split = parts[dataset, protocol]
        done = evaluate_model(
            model, images, split, name=full, modalities=modalities, folds=0, workers=workers, track=track
        )
        values = {(figure.name, figure.at): figure.value for figure in done.result.figures}
        found |= {metric: values.get((metric.name, metric.at), math.nan) for metric in metrics}
    again = [Again(metric, found[metric]) for metric in entry.metrics]
    _write(full, again, out)
    return again


def _inside(out: Path, model: str) -> Path:
    place = (out / model).resolve()
    if not place.is_relative_to(out.resolve()):
        raise DataError(f"the manifest records its model at {model}, which is not in the folder of a run")
    return place


def _write(name: str, again: Sequence[Again], out: Path) -> None:
    found: list[Mapping[str, object]] = [
        {
            **each.recorded.model_dump(mode="json"),
            "reproduced": each.value if math.isfinite(each.value) else None,
            "inside": each.inside,
        }
        for each in again
    ]
    with replacing(out / FOUND) as new:
        new.write_text(json.dumps({"name": name, "figures": found}, indent=2) + "\n", encoding="utf-8")
