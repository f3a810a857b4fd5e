"""Biometric metrics: pure functions of counted scores, with the names of ISO/IEC 19795-1.

A score is a similarity: higher is more alike, and a comparison is accepted if its score >= the threshold. Rates are
shares in [0, 1]. FAR and FRR are rates of transactions; with no failure to acquire they equal FMR and FNMR.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ..errors import EvaluationError

Array = NDArray[Any]

FMR_TARGETS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def power(target: float) -> str:
    """A rate as reports write it: ``1e-3``."""
    digits, exponent = f"{target:e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"


@dataclass(frozen=True, eq=False)
class Tally:
    """How many genuine and impostor scores there are at each threshold: all that error rates need.

    Attributes:
        thresholds: (M,) ascending. Scores that are equal stand at one threshold, so ties go together.
        genuine: (M,) genuine scores in [thresholds[i], thresholds[i + 1]); integers, or weights.
        impostor: (M,) impostor scores there.
        binned: (M,) whether different scores were counted as one there; without it, none were.
    """

    thresholds: Array
    genuine: Array
    impostor: Array
    binned: Array | None = None

    @cached_property
    def n_genuine(self) -> Any:
        """Genuine comparisons."""
        return self.genuine.sum().item()

    @cached_property
    def n_impostor(self) -> Any:
        """Impostor comparisons."""
        return self.impostor.sum().item()

    @cached_property
    def points(self) -> Array:
        """(M + 1,) the thresholds, and infinity, which rejects all."""
        return np.append(self.thresholds, np.inf)

    @cached_property
    def false_matches(self) -> Array:
        """(M + 1,) impostor scores that are accepted at each of the points."""
        return np.append(self.impostor[::-1].cumsum()[::-1], 0)

    @cached_property
    def false_non_matches(self) -> Array:
        """(M + 1,) genuine scores that are rejected at each of the points."""
        return np.append(0, self.genuine.cumsum())

    @cached_property
    def fmr(self) -> Array:
        """(M + 1,) false match rate: FMR(t) = impostor scores >= t / impostor scores (ISO/IEC 19795-1)."""
        return np.asarray(self.false_matches / self.n_impostor)

    @cached_property
    def fnmr(self) -> Array:
        """(M + 1,) false non-match rate: FNMR(t) = genuine scores < t / genuine scores (ISO/IEC 19795-1)."""
        return np.asarray(self.false_non_matches / self.n_genuine)


def tally(genuine: ArrayLike, impostor: ArrayLike) -> Tally:
    """Counts scores exactly, by sorting them.

    Raises:
        EvaluationError: If one of the sets is empty, or a score is not a finite number.
    """
    sets = {"genuine": np.asarray(genuine).ravel(), "impostor": np.asarray(impostor).ravel()}
    for kind, scores in sets.items():
        if not len(scores):
            raise EvaluationError(f"there are no {kind} scores; error rates need genuine and impostor comparisons")
        bad = np.flatnonzero(~np.isfinite(scores))
        if len(bad):
            raise EvaluationError(f"{kind} score {bad[0]} is {scores[bad[0]]}; scores are finite numbers")
    thresholds, place = np.unique(np.concatenate([*sets.values()]), return_inverse=True)
    split = len(sets["genuine"])
    counts = [np.bincount(part, minlength=len(thresholds)) for part in (place[:split], place[split:])]
    return Tally(thresholds, *counts)


@dataclass(frozen=True)
class Point:
    """The error rates at one threshold.

    Attributes:
        threshold: Infinite if nothing is accepted; ``nan`` if the point does not exist.
        fmr: The FMR there.
        fnmr: The FNMR there.
        reason: Why the rates are ``nan``; empty if they are not.
    """

    threshold: float
    fmr: float
    fnmr: float
    reason: str = ""

    @property
    def tar(self) -> float:
        """True accept rate, 1 - FNMR."""
        return 1 - self.fnmr

    @property
    def hter(self) -> float:
        """Half total error rate, (FMR + FNMR) / 2."""
        return (self.fmr + self.fnmr) / 2


def _point(counts: Tally, index: int) -> Point:
    return Point(float(counts.points[index]), float(counts.fmr[index]), float(counts.fnmr[index]))


@dataclass(frozen=True)
class EqualErrorRate:
    """The equal error rate and what it was read from.

    Attributes:
        value: (FMR + FNMR) / 2 at the threshold.
        low: The least FMR or FNMR at the two neighbours; the EER of any rule in use lies in [low, high].
        high: The greatest.
        point: The threshold and its rates.
    """

    value: float
    low: float
    high: float
    point: Point


def eer(counts: Tally) -> EqualErrorRate:
    """Equal error rate: (FMR + FNMR) / 2 at the threshold where they are closest (ISO/IEC 19795-1; bob.measure).

    FMR falls and FNMR grows with the threshold, so there are two neighbours, the last threshold with FMR >= FNMR and
    the next, and the closer one counts; of two equally close, the one with the lower sum. All equal scores are
    accepted or rejected together. Where FMR = FNMR is never met, no threshold has an error rate that is equal; the
    interval [low, high] spans the rates of both neighbours, and so holds the values of the other rules in use too:
    interpolation along the ROC, and FVC2000's (Maio et al., "FVC2000: Fingerprint Verification Competition", 2002).
    In a tally with bins, the exact value lies in [low, high].
    """
    balance = counts.false_matches * counts.n_genuine - counts.false_non_matches * counts.n_impostor
    after = int(np.argmax(balance < 0))
    before = after - 1
    first, second = _point(counts, before), _point(counts, after)
    if balance[before] == 0:
        return EqualErrorRate(first.hter, first.hter, first.hter, first)
    nearer = (balance[before], first.hter) <= (-balance[after], second.hter)
    chosen = first if nearer else second
    return EqualErrorRate(chosen.hter, min(first.fnmr, second.fmr), max(first.fmr, second.fnmr), chosen)


def at_fmr(counts: Tally, target: float) -> Point:
    """The lowest threshold whose FMR is at most ``target``: TAR at FMR, FMR100 (target 0.01), FMR1000, ZeroFMR (0).

    Conservative: the FMR that was achieved never exceeds the target; nothing is interpolated. FMR100 is the FNMR at
    the point (Maio et al., 2002). With N impostor comparisons no FMR between 0 and 1 / N can be seen, so for such a
    target the rates are ``nan``.
    """
    if 0 < target < 1 / counts.n_impostor:
        reason = f"{counts.n_impostor:,.0f} impostor comparisons cannot show an FMR of {power(target)}"
        return Point(np.nan, np.nan, np.nan, f"{reason}; {np.ceil(1 / target):,.0f} or more are needed")
    return _point(counts, int(np.argmax(counts.fmr <= target)))


def tar_at_fmr(counts: Tally, target: float) -> float:
    """True accept rate, 1 - FNMR, at the lowest threshold whose FMR is at most ``target``; see :func:`at_fmr`."""
    return at_fmr(counts, target).tar


def fmr100(counts: Tally) -> float:
    """The lowest FNMR with FMR <= 1 / 100 (Maio et al., "FVC2000", 2002)."""
    return at_fmr(counts, 1e-2).fnmr


def fmr1000(counts: Tally) -> float:
    """The lowest FNMR with FMR <= 1 / 1000 (Maio et al., "FVC2000", 2002)."""
    return at_fmr(counts, 1e-3).fnmr


def zero_fmr(counts: Tally) -> float:
    """The lowest FNMR at which no impostor is accepted (Maio et al., "FVC2000", 2002)."""
    return at_fmr(counts, 0.0).fnmr


def at_threshold(counts: Tally, threshold: float) -> Point:
    """The error rates at a threshold that was chosen elsewhere, such as on a dev set."""
    index = int(np.searchsorted(counts.points, threshold))
    return Point(threshold, float(counts.fmr[index]), float(counts.fnmr[index]))


def hter(counts: Tally, threshold: float) -> float:
    """Half total error rate: (FMR + FNMR) / 2 at a threshold chosen on a dev set (Bengio and Mariethoz, 2004)."""
    return at_threshold(counts, threshold).hter


def auc(counts: Tally) -> float:
    """Area under the ROC: P(genuine > impostor) + P(genuine = impostor) / 2 (Hanley and McNeil, 1982)."""
    above = counts.n_genuine - counts.false_non_matches[1:]
    return float((counts.impostor * (2 * above + counts.genuine)).sum() / (2 * counts.n_genuine * counts.n_impostor))


def auc_error(counts: Tally) -> float:
    """How far :func:`auc` may be off at most: scores that share a bin count as equal. 0 without bins."""
    if counts.binned is None:
        return 0.0
    shared = (counts.genuine * counts.impostor)[counts.binned].sum()
    return float(shared / (2 * counts.n_genuine * counts.n_impostor))


@dataclass(frozen=True)
class Moments:
    """Number, mean and variance (of the population) of a set of scores."""

    count: int
    mean: float
    variance: float

    @classmethod
    def of(cls, scores: ArrayLike) -> Moments:
        values = np.asarray(scores, np.float64)
        return cls(values.size, float(values.mean()), float(values.var()))


def d_prime(genuine: Moments, impostor: Moments) -> float:
    """Decidability |mean_g - mean_i| / sqrt((var_g + var_i) / 2) (Daugman, 2000); ``nan`` if neither set varies."""
    spread = np.sqrt((genuine.variance + impostor.variance) / 2)
    return abs(genuine.mean - impostor.mean) / float(spread) if spread > 0 else float("nan")


@dataclass(frozen=True, eq=False)
class Curve:
    """Points of a curve, from the threshold that rejects all to the one that accepts all.

    Attributes:
        thresholds: Descending, from infinity.
        x: Ascending.
        y: Of the same length.
    """

    thresholds: Array
    x: Array
    y: Array


def roc(counts: Tally) -> Curve:
    """Receiver operating characteristic: x = FMR, y = TAR = 1 - FNMR, one point a threshold."""
    return Curve(counts.points[::-1], counts.fmr[::-1], 1 - counts.fnmr[::-1])


def det(counts: Tally) -> Curve:
    """Detection error trade-off: x = FMR, y = FNMR, as normal deviates (Martin et al., 1997); 0 and 1 are infinite."""
    x, y = (torch.special.ndtri(torch.from_numpy(rate[::-1].copy())).numpy() for rate in (counts.fmr, counts.fnmr))
    return Curve(counts.points[::-1], x, y)


def steps(counts: Tally, most: int) -> Array:
    """Places of at most ``most`` points between which neither FMR nor FNMR changes by much; all, if they are fewer.

    The steps are even in the logarithm of both rates, down to one error: with 1,000 points for 10 million comparisons,
    from one to the next a rate changes by 4 % or by one error.
    """
    last = len(counts.thresholds)
    if last < most:
        return np.arange(last + 1)
    half = (most - 2) // 2
    falling = len(counts.fmr) - np.searchsorted(
        counts.fmr[::-1], np.geomspace(1 / counts.n_impostor, 1, half), side="right"
    )
    growing = np.searchsorted(counts.fnmr, np.geomspace(1 / counts.n_genuine, 1, half))
    return np.unique(np.concatenate([falling, growing, [0, last]]).clip(0, last))


def cmc(ranks: ArrayLike, identities: int) -> Array:
    """Cumulative match characteristic (identities,): the share of probes whose identity is within the best 1, 2, ...

    Args:
        ranks: (P,) of the probe's own identity among the *identities* of the gallery, from 1; an identity counts with
            its best score, and ties rank it last.
        identities: How many the gallery has.
    """
    found = np.bincount(np.asarray(ranks), minlength=identities + 1)[1:]
    return np.asarray(found.cumsum() / found.sum())


def rank_k(ranks: ArrayLike, k: int) -> float:
    """Share of probes whose own identity is among the ``k`` best: true-positive identification rate at rank k."""
    return float((np.asarray(ranks) <= k).mean())


def rank_of_label(logits: ArrayLike, labels: ArrayLike) -> Array:
    """Ranks (N,) of the right classes among the logits (N, C), from 1; ties rank them last."""
    values, right = np.asarray(logits), np.asarray(labels)
    if values.ndim != 2 or right.shape != values.shape[:1] or not len(values):
        shapes = f"logits {values.shape}, labels {right.shape}"
        raise EvaluationError(f"{shapes}; logits (N, C) and labels (N,) of one or more samples are needed")
    bad = np.flatnonzero(np.isnan(values).any(1) | (right < 0) | (right >= values.shape[1]))
    if len(bad):
        fault = f"label {right[bad[0]]} of {values.shape[1]} classes"
        fault = "a logit is NaN" if np.isnan(values[bad[0]]).any() else fault
        raise EvaluationError(f"row {bad[0]}: {fault}")
    return np.asarray((values >= values[np.arange(len(values)), right][:, None]).sum(1))


def accuracy(logits: ArrayLike, labels: ArrayLike, k: int = 1) -> float:
    """Closed-set classification accuracy of a head: the share of samples whose class is among the ``k`` best logits.

    The logits are those without labels, so without margin. Equal logits count against the right class, so that a
    constant head scores 0.
    """
    return rank_k(rank_of_label(logits, labels), k)


def fnir_at_fpir(mates: ArrayLike, strangers: ArrayLike, target: float) -> Point:
    """Open-set identification: FNIR at the lowest threshold whose FPIR is at most ``target`` (ISO/IEC 19795-1).

    FPIR(t) = share of probes without a mate in the gallery for which any identity scores >= t.
    FNIR(t) = share of probes with a mate whose own identity is not ranked first, or scores < t.

    Args:
        mates: (P,) best score of the own identity of each probe with a mate; -inf where it is not ranked first.
        strangers: (Q,) best score of any identity for each probe without a mate.
        target: The FPIR.

    Returns:
        The point; ``fmr`` is the FPIR, ``fnmr`` the FNIR.
    """
    own, others = np.asarray(mates, np.float64), np.sort(np.asarray(strangers, np.float64))
    if not len(own) or not len(others):
        which = "with" if not len(own) else "without"
        return Point(np.nan, np.nan, np.nan, f"no probe {which} a mate in the gallery")
    if 0 < target < 1 / len(others):
        reason = f"{len(others):,} probes without a mate cannot show an FPIR of {power(target)}"
        return Point(np.nan, np.nan, np.nan, f"{reason}; {np.ceil(1 / target):,.0f} or more are needed")
    points = np.append(np.unique(np.concatenate([own[np.isfinite(own)], others])), np.inf)
    fpir = (len(others) - np.searchsorted(others, points)) / len(others)
    threshold = points[np.argmax(fpir <= target)]
    return Point(float(threshold), float(fpir[np.argmax(fpir <= target)]), float((own < threshold).mean()))
