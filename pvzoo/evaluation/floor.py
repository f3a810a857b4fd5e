"""The floor under a result: matchers that need no training, on the same comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..data import split
from ..data.reading import Reader
from ..progress import Track, silent
from .baselines import CompCode, Matcher, MaximumCurvature
from .bootstrap import FOLDS
from .metrics import Array
from .pictures import grey_image
from .protocols import compared
from .results import Evaluation, evaluate, passes
from .scorefile import score_set
from .scores import Comparisons, Tile

# A minute or two on one core.
AFFORDABLE = 1_000_000

MATCHERS: dict[str, tuple[str, Matcher]] = {
    "palm": ("CompCode, palm", CompCode()),
    "vein": ("maximum curvature, vein", MaximumCurvature()),
}


class Rescored(Comparisons):
    """Comparisons that a matcher scores.

    Args:
        comparisons: What is compared with what; its own scores do not matter.
        matcher: Gives the scores.
        templates: (N, ...), one for each sample.
    """

    limits = (0.0, 1.0)

    def __init__(self, comparisons: Comparisons, matcher: Matcher, templates: Array) -> None:
        super().__init__(comparisons.embeddings, comparisons.population, comparisons.trials)
        self.matcher = matcher
        self.templates = templates

    def tiles(self) -> Iterator[Tile]:
        for tile in super().tiles():
            score = self._all if tile.scores.ndim == 2 else self._each
            yield replace(tile, scores=torch.from_numpy(score(tile.first, tile.second)))

    def _all(self, first: Tensor, second: Tensor) -> Array:
        return self.matcher.scores(self.templates[first.numpy()], self.templates[second.numpy()])

    def _each(self, first: Tensor, second: Tensor) -> Array:
        scores = np.empty(len(first), np.float32)
        for sample in torch.unique(first):
            rows = first == sample
            scores[rows.numpy()] = self._all(sample[None], second[rows])[0]
        return scores


def floors(
    part: split.Comparisons,
    reader: Reader,
    modalities: Sequence[str],
    *,
    folds: int = FOLDS,
    seed: int = 0,
    track: Track = silent,
) -> dict[str, Evaluation]:
    """Evaluates the training-free matcher of each modality.

    All scores are in memory, and each costs about a third of a million multiplications: up to :data:`AFFORDABLE`
    comparisons take a minute or two.

    Args:
        part: What is compared: dev or test.
        reader: Where pixels come from.
        modalities: Those to match by.
        folds: Of the subject bootstrap; 0 for none.
        seed: Of its draws.
        track: Shows progress.

    Returns:
        By name of the matcher.

    Raises:
        EvaluationError: If a sample lacks a modality.
        SampleError: If an image cannot be read.
        MissingExtraError: If OpenCV is not installed.
    """
    samples = part.samples
    grid = compared(torch.ones(len(samples), 1), part)
    found = {}
    for modality in modalities:
        name, matcher = MATCHERS[modality]
        with track(f"reading for {name}", len(samples)) as advance:
            templates = []
            for pair in samples:
                templates.append(matcher.extract([grey_image(reader, pair, modality)])[0])
                advance(1)
        with track(f"matching by {name}", part.genuine + part.impostor) as advance:
            scores = score_set(Rescored(grid, matcher, np.stack(templates)), [str(pair) for pair in samples], advance)
        with track(f"evaluating {name}", len(scores.scores) * passes(scores, folds)) as advance:
            found[name] = evaluate(scores, folds=folds, seed=seed, advance=advance)
    return found
