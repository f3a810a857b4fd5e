"""What a model makes of palms of which one image is damaged or missing.

Probes are damaged and the gallery is not, as when a hand that was enrolled with care is presented in a hurry. Where a
protocol compares all samples with all, each two are compared once, the later one damaged: the comparisons are those of
the clean test, which is severity 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..data import split
from ..data.loading import Batch, PairDataset, collate
from ..data.reading import Reader
from ..data.table import Pair
from ..errors import DataError, EvaluationError, MissingModalityError, count
from ..images import normalize
from ..model import BranchFeatures, Model, Output
from ..progress import Advance, no_progress
from . import metrics
from .bootstrap import Interval, Replicates, draw, mean_interval, percentile, subject_bootstrap
from .damage import DAMAGES, SEVERITIES, damaged
from .protocols import compared
from .results import Figure
from .scores import Comparisons, Source, count_scores
from .trials import Grid, Listed, Trials

TARGETS = (1e-2, 1e-3)
FOLDS = 200


@dataclass(frozen=True)
class Condition:
    """What was done to the probes.

    Attributes:
        damage: One of :data:`~pvzoo.evaluation.damage.DAMAGES`, ``"missing"``, or ``"none"``.
        modality: Whose image; empty for none.
        severity: 1 to 5; 0 for none and missing.
    """

    damage: str = "none"
    modality: str = ""
    severity: int = 0

    @property
    def level(self) -> float | None:
        """The level of the damage at this severity, in its unit."""
        return DAMAGES[self.damage].levels[self.severity - 1] if self.severity else None

    @property
    def unit(self) -> str:
        return DAMAGES[self.damage].unit if self.severity else ""


CLEAN = Condition()


def conditions(modalities: Sequence[str]) -> list[Condition]:
    """All that is done to a model's probes: none, each modality missing if there is another, each damage."""
    missing = [Condition("missing", modality) for modality in modalities if len(modalities) > 1]
    severities = range(1, SEVERITIES + 1)
    worse = [Condition(kind, m, severity) for kind in DAMAGES for m in modalities for severity in severities]
    return [CLEAN, *missing, *worse]


@dataclass(frozen=True, eq=False)
class Probes:
    """What a model makes of the probes in one condition.

    Attributes:
        embeddings: (P, D).
        weights: By branch and modality, the mean weight (P,) that the fusion gives to it; empty without weights.
    """

    embeddings: Tensor
    weights: Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True, eq=False)
class Embedded:
    """What a model makes of a part of a split.

    Attributes:
        clean: (N, D) embeddings of all its samples, in their order.
        rows: Which of them are probes.
        probes: By condition.
        refused: Why the model cannot do without a modality, by condition.
    """

    clean: Tensor
    rows: Sequence[int]
    probes: Mapping[Condition, Probes]
    refused: Mapping[Condition, str]


@torch.inference_mode()
def embed_degraded(
    model: Model,
    part: split.Comparisons,
    reader: Reader,
    *,
    seed: int = 0,
    batch_size: int = 32,
    advance: Advance = no_progress,
) -> Embedded:
    """Embeds the samples of dev or test as they are, and the probes in every condition.

    An image is damaged at the size that the model takes, before it is normalised. Each image is read once, and of a
    damaged palm only the damaged image goes through its backbones.

    Args:
        model: In eval mode.
        part: Of a split.
        reader: Where pixels come from.
        seed: Of the damage. It is the same for all models.
        batch_size: Samples at once.
        advance: Called with the number of samples done, of each condition: len(samples) x len(conditions) in all.

    Raises:
        EvaluationError: If the model is in training mode.
        DataError: If a sample lacks a modality of the model.
        SampleError: If an image cannot be used.
    """
    if model.training:
        raise EvaluationError("the model is in training mode; call model.eval() first")
    modalities, samples = model.spec.modalities, part.samples
    lacking = [pair for pair in samples if any(pair.images.get(m) is None for m in modalities)]
    if lacking:
        what = " and ".join(modalities)
        message = f"{count(len(lacking), 'sample')} of {len(samples)} without {what} images, the first {lacking[0]}"
        raise DataError(f"{message}; what damage does is measured on whole samples")
    plain = model.spec.preprocessing.model_copy(update={"mean": (0.0,), "std": (1.0,)})
    dataset = PairDataset(samples, plain, reader, modalities=modalities)
    asked = set(part.probes)
    every = conditions(modalities)
    clean: list[Tensor] = []
    made: dict[Condition, list[Probes]] = {condition: [] for condition in every}
    refused: dict[Condition, str] = {}
    for batch in DataLoader(dataset, batch_size, collate_fn=collate):
        pairs = [samples[position] for position in batch.positions.tolist()]
        features = {m: _features(model, m, _images(batch, m)) for m in modalities}
        whole = model.fuse(_by_branch(features))
        clean.append(whole.embedding.float().cpu())
        rows = [row for row, pair in enumerate(pairs) if pair in asked]
        advance(len(pairs))
        chosen = {m: {branch: x[rows] for branch, x in found.items()} for m, found in features.items()}
        for condition in every:
            if condition is CLEAN:
                made[condition].append(_taken(whole, rows))
                continue
            if rows and condition not in refused:
                changed = _changed(model, condition, batch, pairs, rows, seed)
                try:
                    output = model.fuse(_by_branch({**chosen, condition.modality: changed}))
                    made[condition].append(_taken(output, range(len(rows))))
                except MissingModalityError as error:
                    refused[condition] = str(error)
            advance(len(pairs))
    probes = {condition: _joined(parts) for condition, parts in made.items() if condition not in refused}
    return Embedded(torch.cat(clean), [row for row, pair in enumerate(samples) if pair in asked], probes, refused)


def _images(batch: Batch, modality: str) -> Tensor:
    images = batch.images[modality]
    assert images is not None
    return images


def _features(model: Model, modality: str, images: Tensor) -> dict[str, Tensor]:
    """By branch, the features of images (N, C, H, W) in [0, 1]."""
    ready = normalize(images, model.spec.preprocessing).to(model.device, model.dtype)
    found = model.features(**{modality: ready})
    return {branch: x for branch, of in found.items() if (x := of[modality]) is not None}


def _changed(
    model: Model, condition: Condition, batch: Batch, pairs: Sequence[Pair], rows: Sequence[int], seed: int
) -> dict[str, Tensor]:
    """By branch, the features of the damaged images; none if they are missing."""
    if condition.damage == "missing":
        return {}
    images = _images(batch, condition.modality)
    worse = [
        damaged(images[row], condition.damage, condition.severity, _seed(seed, pairs[row], condition.modality))
        for row in rows
    ]
    return _features(model, condition.modality, torch.stack(worse))


def _seed(seed: int, pair: Pair, modality: str) -> int:
    """Depends on what is damaged alone, not on where it stands in a batch."""
    digest = hashlib.blake2b(repr((seed, pair.key, modality)).encode(), digest_size=7).digest()
    return int.from_bytes(digest, "little")


def _by_branch(features: Mapping[str, Mapping[str, Tensor]]) -> BranchFeatures:
    """From features by modality and branch to features by branch and modality."""
    branches = dict.fromkeys(branch for found in features.values() for branch in found)
    return {branch: {m: found.get(branch) for m, found in features.items()} for branch in branches}


def _taken(output: Output, rows: Sequence[int]) -> Probes:
    chosen = list(rows)
    weights = {
        branch: {name.removeprefix("w_"): x[chosen].float().flatten(1).mean(1).cpu() for name, x in found.items()}
        for branch, found in output.details.items()
        if found
    }
    return Probes(output.embedding[chosen].float().cpu(), weights)


def _joined(parts: Sequence[Probes]) -> Probes:
    weights = {
        branch: {name: torch.cat([part.weights[branch][name] for part in parts]) for name in found}
        for branch, found in parts[0].weights.items()
    }
    return Probes(torch.cat([part.embeddings for part in parts]), weights)


@dataclass(frozen=True, eq=False)
class Degraded:
    """A model in one condition.

    Attributes:
        condition: What was done to the probes.
        figures: EER, and the TAR at each of :data:`TARGETS`; ``nan`` with a reason where they cannot be had.
        weights: By branch, the mean weight that the fusion gives to the damaged modality, a figure named ``weight``.
            By branch and modality, ``"local, palm"``, where nothing is damaged.
    """

    condition: Condition
    figures: tuple[Figure, ...]
    weights: Mapping[str, Figure]


def evaluate_degraded(
    embedded: Embedded,
    part: split.Comparisons,
    modalities: Sequence[str],
    *,
    folds: int = FOLDS,
    seed: int = 0,
    advance: Advance = no_progress,
) -> list[Degraded]:
    """Error rates and weights in every condition.

    Args:
        embedded: Of :func:`embed_degraded`, of the same part.
        part: Of a split.
        modalities: Of the model.
        folds: Of the subject bootstrap; 0 for none.
        seed: Of its draws.
        advance: Called with 1 for each condition.
    """
    whole = compared(embedded.clean, part)
    people = whole.population.subject.numpy()[embedded.rows]
    weights = draw(len(whole.population.subjects), folds, seed)
    results = []
    for condition in conditions(modalities):
        probes = embedded.probes.get(condition)
        if probes is None:
            figures = _refused(whole, embedded.refused[condition])
            results.append(Degraded(condition, figures, {}))
        else:
            source = whole if condition is CLEAN else _against_clean(whole, embedded.rows, probes.embeddings)
            shown = [condition.modality] if condition.modality else modalities
            shares = {
                branch if condition.modality else f"{branch}, {m}": _share(
                    x[m].double().numpy(), people, weights, source
                )
                for branch, x in probes.weights.items()
                for m in shown
            }
            results.append(Degraded(condition, _figures(source, folds, seed), shares))
        advance(1)
    return results


def _against_clean(whole: Comparisons, rows: Sequence[int], probes: Tensor) -> Comparisons:
    """The same comparisons, each with its probe damaged: sample n of the probes is numbered N + n."""
    size = len(whole.population)
    worse = whole.embeddings.clone()
    worse[list(rows)] = probes.to(worse)
    twice = replace(
        whole.population,
        identity=whole.population.identity.repeat(2),
        subject=whole.population.subject.repeat(2),
    )
    return Comparisons(torch.cat([whole.embeddings, worse]), twice, _shifted(whole.trials, size))


def _shifted(trials: Trials, size: int) -> Trials:
    if isinstance(trials, Listed):
        return Listed(trials.first, trials.second + size)
    if not trials.upper:
        return Grid(trials.rows + size, trials.columns)
    first, second = torch.triu_indices(len(trials.rows), len(trials.rows), 1)
    return Listed(trials.rows[first], trials.rows[second] + size)


def _figures(source: Source, folds: int, seed: int) -> tuple[Figure, ...]:
    """An EER above 0.5 is a result here: damage can do that."""
    counted = count_scores(source, targets=TARGETS)
    folded, reason = None, "no bootstrap was asked for"
    if folds:
        try:
            folded = subject_bootstrap(source, counted, folds=folds, seed=seed)
        except EvaluationError as error:
            reason = str(error)

    def interval(read: Callable[[Replicates], list[float]]) -> Interval:
        return Interval(np.nan, np.nan, reason) if folded is None else percentile(read(folded))

    spread = interval(lambda drawn: drawn.values(lambda tally: metrics.eer(tally).value))
    found = [Figure("eer", metrics.eer(counted.tally).value, spread, source.counts)]
    for target in TARGETS:
        point = metrics.at_fmr(counted.tally, target)
        if point.reason:
            none = Interval(np.nan, np.nan, point.reason)
            found.append(Figure("tar_at_fmr", np.nan, none, source.counts, target, point.reason))
            continue
        spread = interval(lambda drawn, at=target: drawn.values(lambda tally: metrics.tar_at_fmr(tally, at)))  # type: ignore[misc]
        found.append(Figure("tar_at_fmr", point.tar, spread, source.counts, target))
    return tuple(found)


def _refused(source: Source, reason: str) -> tuple[Figure, ...]:
    none = Interval(np.nan, np.nan, reason)
    names: list[tuple[str, float | None]] = [("eer", None), *(("tar_at_fmr", target) for target in TARGETS)]
    return tuple(Figure(name, np.nan, none, source.counts, at, reason) for name, at in names)


def _share(values: metrics.Array, people: metrics.Array, weights: metrics.Array, source: Source) -> Figure:
    spread = mean_interval(values, people, weights) if len(weights) else Interval(np.nan, np.nan, "no bootstrap")
    return Figure("weight", float(values.mean()), spread, source.counts)
