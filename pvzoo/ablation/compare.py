"""What several seeds of two arms say about each other: differences with intervals, paired by subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..evaluation.bootstrap import Interval, percentile
from ..evaluation.metrics import Array


@dataclass(frozen=True, eq=False)
class Measured:
    """A figure of one arm.

    Attributes:
        values: (S,) of each seed, on all test subjects.
        folds: (S, F) of each seed, in each fold of the subject bootstrap. Fold f has the same subjects in all arms.
    """

    values: Array
    folds: Array

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(self.values.mean())

    @property
    def interval(self) -> Interval:
        """Of the mean over the seeds, for other subjects: it does not show the spread of the seeds."""
        return percentile(self.folds.mean(0).tolist())


@dataclass(frozen=True)
class Difference:
    """An arm against the reference.

    Attributes:
        value: Mean of the arm less that of the reference.
        interval: For other subjects.
        p: Two-sided: how often folds contradict the sign of the difference, twice; at least 2 / (F + 1).
    """

    value: float
    interval: Interval
    p: float


def difference(arm: Measured, reference: Measured) -> Difference:
    """The difference of two arms over the same folds (Efron and Tibshirani 1993, chapter 15, for the p-value).

    Both were tested on the same subjects, so what is hard about a fold is hard for both and cancels: the interval of a
    difference is much narrower than two intervals next to each other suggest.
    """
    folds = arm.folds.mean(0) - reference.folds.mean(0)
    known = folds[~np.isnan(folds)]
    below, above = (int((known <= 0).sum()), int((known >= 0).sum()))
    p = min(1.0, 2 * (min(below, above) + 1) / (len(known) + 1))
    return Difference(arm.mean - reference.mean, percentile(folds.tolist()), p)


def holm(p: Sequence[float]) -> list[float]:
    """p-values that hold for all comparisons at once (Holm 1979): the k-th smallest of n times n - k + 1, ascending."""
    order = np.argsort(p, kind="stable")
    found = np.maximum.accumulate([min(1.0, (len(p) - rank) * p[place]) for rank, place in enumerate(order)])
    adjusted = np.empty(len(p))
    adjusted[order] = found
    return [float(value) for value in adjusted]
