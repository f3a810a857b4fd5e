"""Confidence intervals: whole subjects are drawn again, since the comparisons of one person are not independent.

Drawing comparisons instead gives intervals that are several times too narrow. In a fold, subject s has the weight w_s,
how often it was drawn. A genuine comparison counts w_s times. An impostor comparison of subjects s and u counts
w_s w_u times (two-way), and one of two hands of s counts w_s times. So a fold's counts are sums over the scores of
subject pairs, for all folds one matrix product a subject, and no score is looked at twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..errors import EvaluationError
from ..progress import Advance, no_progress
from .metrics import FMR_TARGETS, Array, Moments, Tally, at_fmr, d_prime, eer, steps
from .scores import Counted, Source, Tile

LEVELS = 1024
FOLDS = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A percentile interval.

    Attributes:
        low: ``nan`` without an interval.
        high: Likewise.
        reason: Why there is none; empty if there is one.
    """

    low: float
    high: float
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Replicates:
    """The scores of every fold, counted at some of the thresholds.

    Attributes:
        thresholds: (K,) ascending.
        genuine: (F, K) weights of genuine scores in [thresholds[k], thresholds[k + 1]).
        impostor: (F, K) of impostor scores.
        means: (2, K) mean of the genuine and of the impostor scores there, in the set itself.
        squares: (2, K) mean of their squares.
        weights: (F, S) how often each subject was drawn.
    """

    thresholds: Array
    genuine: Array
    impostor: Array
    means: Array
    squares: Array
    weights: Array

    @cached_property
    def tallies(self) -> list[Tally | None]:
        """One a fold; ``None`` for a fold without genuine or without impostor comparisons."""
        return [
            Tally(self.thresholds, genuine, impostor) if genuine.any() and impostor.any() else None
            for genuine, impostor in zip(self.genuine, self.impostor, strict=True)
        ]

    def values(self, figure: Callable[[Tally], float]) -> list[float]:
        """A figure that is read from a tally, of each fold; ``nan`` where there is none."""
        return [np.nan if counts is None else figure(counts) for counts in self.tallies]

    def d_primes(self) -> list[float]:
        """The d' of each fold."""
        return self.values(lambda counts: d_prime(self._moments(0, counts.genuine), self._moments(1, counts.impostor)))

    def _moments(self, row: int, weights: Array) -> Moments:
        share = weights / weights.sum()
        mean = float(share @ self.means[row])
        return Moments(len(weights), mean, max(float(share @ self.squares[row]) - mean**2, 0.0))


def percentile(values: list[float]) -> Interval:
    """The middle 95 % of the values of folds (Efron, 1979); none if more than a tenth of the folds has no value."""
    known = np.array([value for value in values if not np.isnan(value)])
    if len(known) < 0.9 * len(values) or not len(known):
        return Interval(np.nan, np.nan, f"{len(values) - len(known)} of {len(values)} folds have no value")
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(float(low), float(high))


def mean_interval(values: Array, subject: Array, weights: Array) -> Interval:
    """The interval of a mean over samples, when whole subjects are drawn.

    Args:
        values: (N,).
        subject: (N,) number of the person.
        weights: (F, S) how often each fold draws each subject; see :func:`draw`.
    """
    if len(np.unique(subject)) < 2:
        return Interval(np.nan, np.nan, "the samples are of one subject; two or more are needed to draw from")
    size = weights.shape[1]
    with np.errstate(invalid="ignore"):
        means = (weights @ np.bincount(subject, values, size)) / (weights @ np.bincount(subject, minlength=size))
    return percentile(means.tolist())


def draw(subjects: int, folds: int, seed: int) -> Array:
    """How often each subject is drawn (folds, subjects), with replacement, as many as there are."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(subjects, np.full(subjects, 1 / subjects), size=folds).astype(np.float32)


def subject_bootstrap(
    source: Source,
    counted: Counted,
    *,
    folds: int = FOLDS,
    seed: int = 0,
    thresholds: tuple[float, ...] = (),
    advance: Advance = no_progress,
) -> Replicates:
    """Draws subjects with replacement and counts the scores of each fold.

    Rates are followed at :data:`LEVELS` thresholds: all there are if they are fewer, else so many that from one to the
    next neither FMR nor FNMR changes by more than about 4 %. Time grows with the square of the number of subjects.

    Args:
        source: Scores of at least two known subjects.
        counted: What :func:`~pvzoo.evaluation.scores.count_scores` made of them.
        folds: How many.
        seed: Of the draws.
        thresholds: Thresholds to follow in any case.
        advance: Called with the number of comparisons done.

    Raises:
        EvaluationError: If the source does not say whose its scores are, or they are of one subject.
    """
    if source.first_subject is None or source.second_subject is None:
        raise EvaluationError("the scores do not say whose they are; subjects are needed to draw from")
    if source.subjects < 2:
        raise EvaluationError("the scores are of one subject; two or more are needed to draw from")
    picked = _levels(counted.tally, thresholds)
    weights = draw(source.subjects, folds, seed)
    folded = _Folds(torch.from_numpy(weights), counted.tally.thresholds[picked])
    for tile in source.tiles():
        folded.add(tile, source.first_subject[tile.first], source.second_subject[tile.second])
        advance(tile.scores.numel())
    means, squares = _level_moments(counted.tally, picked)
    return Replicates(counted.tally.thresholds[picked], *folded.counts(), means, squares, weights)


def _levels(counts: Tally, thresholds: tuple[float, ...]) -> Array:
    """Places of the thresholds to follow."""
    wanted = [*thresholds, eer(counts).point.threshold]
    wanted += [at_fmr(counts, target).threshold for target in (0.0, *FMR_TARGETS)]
    places = np.concatenate([steps(counts, LEVELS), np.searchsorted(counts.points, wanted)])
    return np.unique(places.clip(0, len(counts.thresholds) - 1))


def _level_moments(counts: Tally, picked: Array) -> tuple[Array, Array]:
    """Mean score and mean square of the scores between two levels, genuine and impostor: (2, K) each."""
    means = np.zeros((2, len(picked)))
    squares = means.copy()
    for row, each in enumerate((counts.genuine, counts.impostor)):
        totals = np.maximum(np.add.reduceat(each, picked), 1)
        means[row] = np.add.reduceat(each * counts.thresholds, picked) / totals
        squares[row] = np.add.reduceat(each * counts.thresholds**2, picked) / totals
    return means, squares


class _Folds:
    """Sums up the weighted counts of all folds, tile by tile."""

    def __init__(self, weights: Tensor, thresholds: Array) -> None:
        self.weights = weights
        self.levels = torch.from_numpy(thresholds)
        folds, self.subjects = weights.shape
        self.width = len(thresholds)
        # By subject: genuine comparisons, and impostor comparisons of its own two hands.
        self.genuine = torch.zeros(self.subjects * self.width)
        self.own = torch.zeros(self.subjects * self.width)
        self.impostor = torch.zeros(folds, self.width)

    def add(self, tile: Tile, first: Tensor, second: Tensor) -> None:
        levels = torch.bucketize(tile.scores, self.levels.to(tile.scores), right=True, out_int32=True).cpu()
        levels.sub_(1).clamp_(0)
        if tile.genuine is None or tile.impostor is None:
            start = 0
            for subject, count in zip(*_runs(first), strict=True):
                self._add_row(subject, levels[start : start + count], second)
                start += count
            return
        if levels.ndim == 2:
            first, second = first[:, None].expand(levels.shape), second.expand(levels.shape)
        genuine, impostor, same = tile.genuine.cpu(), tile.impostor.cpu(), first == second
        for sums, mask in ((self.genuine, genuine), (self.own, impostor & same)):
            places = first[mask] * self.width + levels[mask]
            sums += torch.bincount(places, minlength=len(sums))
        mask = impostor & ~same
        first, second, levels = first[mask], second[mask], levels[mask]
        order = torch.argsort(first, stable=True)
        first, second, levels = first[order], second[order], levels[order]
        start = 0
        for subject, count in zip(*_runs(first), strict=True):
            part = slice(start, start + count)
            self._add_row(subject, levels[part], second[part])
            start += count

    def _add_row(self, subject: int, levels: Tensor, others: Tensor) -> None:
        """Impostor scores of a subject with others: ``others`` (N,) for levels (N,), or (C,) for levels (R, C)."""
        low, high = int(others.min()), int(others.max()) + 1
        places = levels + ((others - low) * self.width).to(torch.int32)
        counts = torch.bincount(places.view(-1), minlength=(high - low) * self.width)
        summed = self.weights[:, low:high] @ counts.view(high - low, self.width).float()
        self.impostor.addcmul_(summed, self.weights[:, subject, None])

    def counts(self) -> tuple[Array, Array]:
        """Weighted genuine and impostor counts (F, K)."""
        by_subject = (self.weights @ sums.view(self.subjects, self.width) for sums in (self.genuine, self.own))
        genuine, own = by_subject
        return genuine.double().numpy(), (self.impostor + own).double().numpy()


def _runs(codes: Tensor) -> tuple[list[int], list[int]]:
    """Equal neighbours: their codes, and how many each."""
    values, counts = torch.unique_consecutive(codes, return_counts=True)
    return values.tolist(), counts.tolist()
