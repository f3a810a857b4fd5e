"""How well a model tells palms apart: parts of a split embedded, thresholds chosen on dev, the test evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..data.loading import Batch, PairDataset, collate
from ..data.reading import Reader
from ..data.sources import Images
from ..data.split import Split, reasons
from ..data.table import Pair
from ..errors import DataError, EvaluationError, count, did_you_mean
from ..model import Model
from ..progress import Advance, Track, no_progress, silent
from ..threshold import Threshold
from . import metrics
from .bootstrap import FOLDS
from .protocols import compared
from .results import Classified, Evaluation, accuracy, choose_thresholds, evaluate, passes
from .scorefile import ScoreSet, score_set
from .scores import Comparisons, as_embeddings


@dataclass(frozen=True, eq=False)
class Embedded:
    """What a model made of N samples.

    Attributes:
        embeddings: (N, D), on the CPU.
        rank: (N,) rank of each sample's class among the logits, from 1; ``None`` if no classes were given.
    """

    embeddings: Tensor
    rank: metrics.Array | None


Embed = Callable[..., Embedded]
"""Embeds ``(samples, reader, modalities=, classes=, advance=)``, as :func:`embed_part` does with a model."""


@dataclass(frozen=True, eq=False)
class ModelEvaluation:
    """A model on the test of a split.

    Attributes:
        result: Its figures.
        thresholds: Those of dev, which the result applies to the test.
        scores: The comparisons of the test.
        samples: What they are of, by number.
    """

    result: Evaluation
    thresholds: tuple[Threshold, ...]
    scores: Comparisons
    samples: tuple[Pair, ...]

    def score_set(self) -> ScoreSet:
        """All scores at once, with samples named identity/session/sample; takes memory for each."""
        return score_set(self.scores, [f"{pair.identity}/{pair.session}/{pair.sample}" for pair in self.samples])


@torch.inference_mode()
def embed_part(
    model: Model,
    samples: Sequence[Pair],
    reader: Reader,
    *,
    modalities: Sequence[str] = (),
    classes: Sequence[str] = (),
    batch_size: int = 32,
    workers: int = 0,
    advance: Advance = no_progress,
) -> Embedded:
    """Embeds samples, in their order.

    Args:
        model: In eval mode.
        samples: Of a table or split.
        reader: Where pixels come from.
        modalities: Those to use; all of the model's by default.
        classes: The identities of the model's head, which all samples are of, to rank them by its logits too.
        batch_size: Samples at once.
        workers: Processes that read images; 0 reads in this one.
        advance: Called with the number of samples done.

    Raises:
        DataError: If the samples lack a modality.
        SampleError: If an image cannot be used; names the file and the sample.
        MissingModalityError: If the model cannot do without a modality that is missing.
        EvaluationError: If the model is in training mode, or an embedding has no direction or is not finite; names the
            sample.
    """
    if model.training:
        raise EvaluationError("the model is in training mode; call model.eval() first")
    modalities = tuple(modalities) or model.spec.modalities
    dataset = PairDataset(samples, model.spec.preprocessing, reader, modalities=modalities, classes=classes)
    embeddings = torch.empty(len(dataset), model.spec.geometry.embedding)
    rank = np.zeros(len(dataset), np.int64)
    for batch in DataLoader(dataset, batch_size, collate_fn=collate, num_workers=workers):
        for rows, images in _alike(batch):
            places = batch.positions[rows]
            on_device = {m: image.to(model.device, model.dtype) for m, image in images.items()}
            if classes:
                output = model(**on_device)
                rank[places] = metrics.rank_of_label(output.logits.float().cpu(), batch.labels[rows])
                embeddings[places] = output.embedding.float().cpu()
            else:
                embeddings[places] = model.embed(**on_device).float().cpu()
        advance(len(batch.positions))
    return Embedded(as_embeddings(embeddings, samples), rank if classes else None)


def _alike(batch: Batch) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Rows of a batch that have the same modalities, and their images: those share a pass through the model."""
    present = torch.stack(list(batch.present.values()), 1)
    patterns, which = torch.unique(present, dim=0, return_inverse=True)
    for number, pattern in enumerate(patterns.tolist()):
        rows = torch.nonzero(which == number)[:, 0]
        has = zip(batch.images.items(), pattern, strict=True)
        yield rows, {m: image[rows] for (m, image), there in has if there and image is not None}


def evaluate_model(
    model: Model,
    images: Images,
    split: Split,
    *,
    name: str = "",
    tested: Images | None = None,
    modalities: Sequence[str] = (),
    folds: int = FOLDS,
    seed: int = 0,
    batch_size: int = 32,
    workers: int = 0,
    embed: Embed | None = None,
    track: Track = silent,
) -> ModelEvaluation:
    """Chooses thresholds on the dev samples of a split, and evaluates its test samples.

    Args:
        model: In eval mode.
        images: The data set.
        split: Of its table.
        name: What reports call the model.
        tested: The data set that is tested, if it is another one (``cross_dataset``).
        modalities: Those to use; all of the model's by default.
        folds: Of the subject bootstrap; 0 for no intervals.
        seed: Of its draws.
        batch_size: Samples at once.
        workers: Processes that read images.
        embed: Another way to the model's embeddings, in place of :func:`embed_part` with the two numbers above.
        track: Shows progress.

    Raises:
        DataError: If the data set lacks a modality of the model.
        EvaluationError: If the model has no such modality, or the scores are reversed.
        PvzooError: As :func:`embed_part`.
    """
    modalities = _used(model, split, modalities)
    embed = embed or partial(embed_part, model, batch_size=batch_size, workers=workers)
    source = f"{images.name}, {split.protocol}"
    samples = split.dev.samples
    with track("embedding dev", len(samples)) as advance:
        dev = embed(samples, images.reader, modalities=modalities, advance=advance)
    alone = () if modalities == model.spec.modalities else modalities
    thresholds = choose_thresholds(compared(dev.embeddings, split.dev), name=f"{source}, dev", modalities=alone)
    classes, reason = _classes(model, split, tested)
    samples = split.test.samples
    with track("embedding test", len(samples)) as advance:
        reader = (tested or images).reader
        found = embed(samples, reader, modalities=modalities, classes=classes, advance=advance)
    scores = compared(found.embeddings, split.test)
    with track("evaluating", (split.test.genuine + split.test.impostor) * passes(scores, folds)) as advance:
        result = evaluate(
            scores,
            dev=thresholds,
            carried=[cut for cut in model.thresholds if cut.modalities == alone and cut not in thresholds],
            folds=folds,
            seed=seed,
            protocol={"model": name, "modalities": " and ".join(modalities), **_protocol(images, split, tested)},
            warnings=tuple(_warnings(model, split, modalities, tested, name or "the model")),
            advance=advance,
        )
    if classes or reason:
        probes = set(split.test.probes)
        rows = [row for row, pair in enumerate(samples) if pair in probes]
        ranked = None
        if found.rank is not None:
            ranked = Classified(found.rank[rows], scores.population.subject.numpy()[rows], len(classes))
        figure = accuracy(ranked, result.counts, reason=reason, folds=folds, seed=seed)
        result = replace(result, figures=(*result.figures, figure))
    return ModelEvaluation(result, tuple(thresholds), scores, samples)


def _used(model: Model, split: Split, modalities: Sequence[str]) -> tuple[str, ...]:
    """The modalities to use, in the model's order."""
    takes = model.spec.modalities
    for modality in modalities:
        if modality not in takes:
            hint = did_you_mean(modality, takes) or f"; it takes {' and '.join(takes)}"
            raise EvaluationError(f"the model has no modality {modality!r}{hint}")
    used = tuple(m for m in takes if m in modalities) if modalities else takes
    for modality in used:
        if modality not in split.modalities:
            message = f"the data set has {' and '.join(split.modalities)}, and the model takes {' and '.join(used)}"
            both = [m for m in used if m in split.modalities]
            hint = f"; --modalities {','.join(both)} evaluates it without {modality}, if it can" if both else ""
            raise DataError(f"{message}{hint}")
    return used


def _classes(model: Model, split: Split, tested: Images | None) -> tuple[tuple[str, ...], str]:
    """The identities of the head, if those that are tested are among them; else perhaps why they are not known."""
    has, trains = model.spec.num_classes, len(split.classes)
    if tested is not None or not split.closed or has is None:
        return (), ""
    if has != trains:
        return (), f"the head has {has} classes, and by this protocol {trains} identities train"
    return split.classes, ""


def _protocol(images: Images, split: Split, tested: Images | None) -> dict[str, str]:
    """What was compared, as reports list it."""
    found = {"data": images.name, "data_sha256": images.digest}
    if tested is not None:
        found |= {"tested": tested.name, "tested_sha256": tested.digest}
    found |= {"protocol": split.protocol, "pairing": split.pairing or "one modality"}
    for part, counts in split.counts().items():
        text = f"{count(counts['samples'], 'sample')} of {count(counts['identities'], 'identity', 'identities')}"
        text += f", {count(counts['subjects'], 'subject')}"
        if "genuine" in counts:
            text += f"; {counts['genuine']:,} genuine and {counts['impostor']:,} impostor comparisons"
        found[part] = text
    return found


def _warnings(model: Model, split: Split, modalities: Sequence[str], tested: Images | None, name: str) -> Iterator[str]:
    if model.untrained:
        yield f"UNTRAINED: the weights of {name} are random, so these figures say nothing about identity"
    if len(modalities) < len(model.spec.modalities):
        without = " and ".join(m for m in model.spec.modalities if m not in modalities)
        yield f"the model was evaluated without {without}"
    if split.closed and tested is None:
        # By the split: a model that came with its weights may have been trained on others.
        known = "closed set: by this split the identities that are tested also train"
        yield f"{known}; of a model that was trained so, the figures say nothing about new people"
    yield from split.notes
    if len(modalities) > 1 and split.pairing != "simultaneous":
        yield f"palm and vein are paired as {split.pairing}, not simultaneous"
    for reason, pairs in reasons(split.excluded).items():
        yield f"left out: {count(len(pairs), 'sample')}, {reason}; the first is {pairs[0]}"
