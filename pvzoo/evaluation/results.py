"""A result: every figure with what it rests on, its interval, and what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np

from ..errors import EvaluationError
from ..threshold import Threshold
from . import metrics
from .bootstrap import CONFIDENCE, FOLDS, Interval, Replicates, percentile, subject_bootstrap
from .identification import Searches, search
from .metrics import FMR_TARGETS, Point, Tally
from .scores import Advance, Counted, Counts, Method, Source, count_scores, no_progress

FPIR_TARGETS = (1e-2,)
RANKS = (1, 5)
FEW_SUBJECTS = 20
FEW_ERRORS = 3


@dataclass(frozen=True)
class Figure:
    """One number of a result.

    Attributes:
        name: As in ``metrics.json``: ``eer``, ``tar_at_fmr``, ...
        value: ``nan`` if it cannot be had.
        interval: By subject bootstrap.
        counts: What it rests on.
        at: The FMR or FPIR that it was read at, where there is one.
        reason: Why the value is ``nan``.
        remarks: What a reader has to know of it, such as that it is below the resolution of the set.
    """

    name: str
    value: float
    interval: Interval
    counts: Counts
    at: float | None = None
    reason: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The name as people write it."""
        title = _TITLES.get(self.name, self.name)
        return title if self.at is None else f"{title} {metrics.power(self.at)}"


_TITLES = {
    "eer": "EER",
    "auc": "AUC",
    "d_prime": "d'",
    "tar_at_fmr": "TAR at FMR",
    "fmr100": "FMR100",
    "fmr1000": "FMR1000",
    "zero_fmr": "ZeroFMR",
    "hter": "HTER",
    "rank_1": "rank-1",
    "rank_5": "rank-5",
    "fnir_at_fpir": "FNIR at FPIR",
}


@dataclass(frozen=True)
class Applied:
    """A threshold of a dev set on this set."""

    threshold: Threshold
    point: Point


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All figures of one set of scores.

    Attributes:
        counts: What the figures rest on.
        figures: In the order of reports.
        eer: The EER with its threshold.
        counted: The scores by threshold, for curves and histograms.
        applied: Thresholds of a dev set, and the rates that they have here.
        searches: What identification found; ``None`` where scores are not of a gallery and probes.
        protocol: What was compared: data set, split, gallery rule, or a file.
        bootstrap: Folds, seed and confidence of the intervals.
        warnings: What a reader has to know of all figures.
    """

    counts: Counts
    figures: tuple[Figure, ...]
    eer: metrics.EqualErrorRate
    counted: Counted
    applied: tuple[Applied, ...] = ()
    searches: Searches | None = None
    protocol: Mapping[str, Any] = field(default_factory=dict)
    bootstrap: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def figure(self, name: str, at: float | None = None) -> Figure:
        """The figure of this name.

        Raises:
            KeyError: If there is none.
        """
        for figure in self.figures:
            if (figure.name, figure.at) == (name, at):
                return figure
        raise KeyError(name if at is None else (name, at))


def choose_thresholds(source: Source, targets: Sequence[float] = FMR_TARGETS, *, name: str = "") -> list[Threshold]:
    """Thresholds of a dev set: at its EER, and for each FMR that it can show without rejecting everything.

    Args:
        source: The dev scores.
        targets: FMRs.
        name: What the scores are of, for reports.

    Raises:
        EvaluationError: If the scores seem to be reversed.
    """
    tally = count_scores(source, targets=targets).tally
    points: list[tuple[Literal["eer", "fmr"], float | None, Point]] = [("eer", None, _checked_eer(tally).point)]
    points += [("fmr", target, metrics.at_fmr(tally, target)) for target in targets]
    rests = source.counts
    return [
        Threshold(
            value=point.threshold,
            rule=rule,
            target=target,
            fmr=point.fmr,
            fnmr=point.fnmr,
            genuine=rests.genuine,
            impostor=rests.impostor,
            subjects=rests.subjects,
            measured_on=name,
        )
        for rule, target, point in points
        if math.isfinite(point.threshold)
    ]


def evaluate(
    source: Source,
    *,
    targets: Sequence[float] = FMR_TARGETS,
    dev: Sequence[Threshold] = (),
    folds: int = FOLDS,
    seed: int = 0,
    protocol: Mapping[str, Any] | None = None,
    method: Method = "auto",
    advance: Advance = no_progress,
) -> Evaluation:
    """Computes all figures with their intervals.

    Args:
        source: Comparisons of embeddings, or scores of a file.
        targets: FMRs to read the TAR at.
        dev: Thresholds that were chosen on other subjects; see :func:`choose_thresholds`.
        folds: Of the subject bootstrap; 0 for none.
        seed: Of its draws.
        protocol: What is compared, for the report.
        method: How scores are counted.
        advance: Called with the number of comparisons done, in each of :func:`passes`.

    Raises:
        EvaluationError: If the scores seem to be reversed: EER > 0.5.
    """
    cuts = tuple(threshold.value for threshold in dev)
    counted = count_scores(source, targets=targets, thresholds=cuts, method=method, advance=advance)
    counts, tally = source.counts, counted.tally
    rate = _checked_eer(tally)
    folded, reason = None, "no bootstrap was asked for"
    if folds:
        try:
            folded = subject_bootstrap(source, counted, folds=folds, seed=seed, thresholds=cuts, advance=advance)
        except EvaluationError as error:
            reason = str(error)

    def interval(of: Callable[[Tally], float]) -> Interval:
        return Interval(math.nan, math.nan, reason) if folded is None else folded.interval(of)

    d_primes = Interval(math.nan, math.nan, reason) if folded is None else percentile(folded.d_primes())
    figures = [
        Figure("eer", rate.value, interval(lambda c: metrics.eer(c).value), counts, remarks=_few(rate.point, counts)),
        Figure("auc", metrics.auc(tally), interval(metrics.auc), counts, remarks=_auc_remark(tally)),
        _d_prime(counted, d_primes, counts),
    ]
    for target in targets:
        figures.append(_at(tally, "tar_at_fmr", target, lambda point: point.tar, interval, counts, target))
    for name, target in (("fmr100", 1e-2), ("fmr1000", 1e-3), ("zero_fmr", 0.0)):
        figures.append(_at(tally, name, target, lambda point: point.fnmr, interval, counts, None))
    applied = tuple(Applied(each, metrics.at_threshold(tally, each.value)) for each in dev)
    for each in applied:
        if each.threshold.rule == "eer":
            spread = interval(partial(metrics.hter, threshold=each.threshold.value))
            figures.append(Figure("hter", each.point.hter, spread, counts, remarks=_few(each.point, counts)))
    searches = None
    try:
        searches = search(source)
        figures += _identification(searches, folded, reason, counts)
    except EvaluationError as error:
        nothing = Interval(math.nan, math.nan, str(error))
        figures.append(Figure("rank_1", math.nan, nothing, counts, reason=str(error)))
    about = {"folds": folds, "seed": seed, "confidence": CONFIDENCE, "unit": "subject"}
    warnings = _warnings(source, folded is not None)
    return Evaluation(counts, tuple(figures), rate, counted, applied, searches, dict(protocol or {}), about, warnings)


def passes(source: Source, folds: int = FOLDS) -> int:
    """How often :func:`evaluate` goes through all scores at most, for a progress bar."""
    return 2 + (folds > 0 and source.first_subject is not None)


def _checked_eer(counts: Tally) -> metrics.EqualErrorRate:
    rate = metrics.eer(counts)
    if rate.value > 0.5:
        message = f"the EER is {rate.value:.4f}, above 0.5: impostors score higher than genuine pairs"
        raise EvaluationError(f"{message}; if lower is more alike, say so (--distances), else the scores tell nothing")
    return rate


def _few(point: Point, counts: Counts) -> tuple[str, ...]:
    """Says that a rate is below the resolution of the set."""
    errors = {
        "false match": (round(point.fmr * counts.impostor), counts.impostor),
        "false non-match": (round(point.fnmr * counts.genuine), counts.genuine),
    }
    return tuple(
        _rule_of_three(count, of, what, counts.subjects) for what, (count, of) in errors.items() if count < FEW_ERRORS
    )


def _rule_of_three(count: int, of: int, what: str, subjects: int | None) -> str:
    """With no error in N independent trials, the rate is below 3 / N at 95 % (Hanley and Lippman-Hand, 1983)."""
    word = what if count == 1 else f"{what}es"
    text = f"{count} {word} in {of:,}: below the resolution; none in N shows a rate below 3 / N, here {3 / of:.1e}"
    return (
        text if subjects is None else f"{text}, or {3 / subjects:.1e} if only the {subjects} subjects are independent"
    )


def _auc_remark(counts: Tally) -> tuple[str, ...]:
    off = metrics.auc_error(counts)
    return (f"binned: off by {off:.1e} at most",) if off else ()


def _d_prime(counted: Counted, interval: Interval, counts: Counts) -> Figure:
    value = metrics.d_prime(counted.genuine, counted.impostor)
    reason = "neither genuine nor impostor scores vary" if math.isnan(value) else ""
    return Figure("d_prime", value, interval, counts, reason=reason)


def _at(
    counts: Tally,
    name: str,
    target: float,
    read: Callable[[Point], float],
    interval: Callable[[Callable[[Tally], float]], Interval],
    rest: Counts,
    at: float | None,
) -> Figure:
    """A figure at an FMR."""
    point = metrics.at_fmr(counts, target)
    if point.reason:
        return Figure(name, math.nan, Interval(math.nan, math.nan, point.reason), rest, at, point.reason)
    spread = interval(lambda c: read(metrics.at_fmr(c, target)))
    remarks = []
    if target and target * rest.impostor < FEW_ERRORS:
        needed = f"{math.ceil(FEW_ERRORS / target):,}"
        remarks.append(f"{rest.impostor:,} impostor comparisons; by the rule of three this FMR needs {needed}")
    missed = round(point.fnmr * rest.genuine)
    if missed < FEW_ERRORS:
        remarks.append(_rule_of_three(missed, rest.genuine, "false non-match", rest.subjects))
    return Figure(name, read(point), spread, rest, at, remarks=tuple(remarks))


def _identification(searches: Searches, folded: Replicates | None, reason: str, counts: Counts) -> list[Figure]:
    mated = searches.mated
    figures = []
    none = Interval(math.nan, math.nan, reason)
    about = (f"{int(mated.sum()):,} searches of {searches.identities:,} identities",)
    if mated.any():
        for k in RANKS:
            hits = (searches.rank <= k) & mated
            spread = none if folded is None else percentile(_shares(hits, mated, searches.subject, folded.weights))
            figures.append(Figure(f"rank_{k}", metrics.rank_k(searches.rank[mated], k), spread, counts, remarks=about))
    if mated.any() and not mated.all():
        for target in FPIR_TARGETS:
            point = metrics.fnir_at_fpir(*searches.open_set(), target)
            spread = (
                none
                if folded is None
                else percentile([metrics.fnir_at_fpir(*searches.open_set(w), target).fnmr for w in folded.weights])
            )
            strangers = f"{int((~mated).sum()):,} searches without a mate"
            figures.append(
                Figure("fnir_at_fpir", point.fnmr, spread, counts, target, point.reason, (*about, strangers))
            )
    return figures


def _shares(hits: metrics.Array, of: metrics.Array, subject: metrics.Array, weights: metrics.Array) -> list[float]:
    """Share of hits in each fold."""
    each = [np.bincount(subject, mask, weights.shape[1]) for mask in (hits, of)]
    with np.errstate(invalid="ignore"):
        return list(map(float, (weights @ each[0]) / (weights @ each[1])))


def _warnings(source: Source, intervals: bool) -> tuple[str, ...]:
    counts = source.counts
    found = []
    if counts.subjects is None:
        found.append("the scores do not say whose they are: no intervals, and no check that pairs are there once")
    elif intervals and counts.subjects < FEW_SUBJECTS:
        found.append(f"intervals from {counts.subjects} subjects are too narrow; take {FEW_SUBJECTS} or more")
    if counts.subjects is not None and counts.subjects == counts.identities:
        found.append(
            "each identity counts as a person of its own; if some are two hands of one, intervals are too narrow"
        )
    return tuple(found)
