"""A result: every figure with what it rests on, its interval, and what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np

from ..errors import EvaluationError
from ..progress import Advance, no_progress
from ..threshold import Threshold
from . import metrics
from .bootstrap import CONFIDENCE, FOLDS, Interval, Replicates, draw, percentile, subject_bootstrap
from .identification import Searches, search
from .metrics import FMR_TARGETS, Point, Tally
from .scores import Counted, Counts, Method, Source, count_scores

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
    "accuracy": "accuracy of the head",
}


@dataclass(frozen=True)
class Applied:
    """A threshold that was chosen on another set, on this set."""

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
        carried: Those that the model came with.
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
    carried: tuple[Applied, ...] = ()
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


def choose_thresholds(
    source: Source, targets: Sequence[float] = FMR_TARGETS, *, name: str = "", modalities: Sequence[str] = ()
) -> list[Threshold]:
    """Thresholds of a dev set: at its EER, and for each FMR that it can show without rejecting everything.

    Args:
        source: The dev scores.
        targets: FMRs.
        name: What the scores are of, for reports.
        modalities: Those that were used, if not all that the model takes.

    Raises:
        EvaluationError: If the scores seem to be reversed.
    """
    tally, rests = count_scores(source, targets=targets).tally, source.counts
    points: list[tuple[Literal["eer", "fmr"], float | None, Point]] = [("eer", None, _checked_eer(tally, rests).point)]
    points += [("fmr", target, metrics.at_fmr(tally, target)) for target in targets]
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
            modalities=tuple(modalities),
        )
        for rule, target, point in points
        if math.isfinite(point.threshold)
    ]


def evaluate(
    source: Source,
    *,
    targets: Sequence[float] = FMR_TARGETS,
    dev: Sequence[Threshold] = (),
    carried: Sequence[Threshold] = (),
    folds: int = FOLDS,
    seed: int = 0,
    protocol: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
    method: Method = "auto",
    advance: Advance = no_progress,
) -> Evaluation:
    """Computes all figures with their intervals.

    Args:
        source: Comparisons of embeddings, or scores of a file.
        targets: FMRs to read the TAR at.
        dev: Thresholds that were chosen on other subjects; see :func:`choose_thresholds`.
        carried: Thresholds that the model came with.
        folds: Of the subject bootstrap; 0 for none.
        seed: Of its draws.
        protocol: What is compared, for the report.
        warnings: What a reader has to know beside what the scores themselves show.
        method: How scores are counted.
        advance: Called with the number of comparisons done, in each of :func:`passes`.

    Raises:
        EvaluationError: If the scores seem to be reversed: the EER is above 0.5, and not by chance; or a target is not
            between 0 and 1.
    """
    for target in targets:
        if not 0 < target < 1:
            raise EvaluationError(f"an FMR to read the TAR at lies between 0 and 1, not at {target}")
    cuts = tuple(threshold.value for threshold in (*dev, *carried))
    counted = count_scores(source, targets=(*targets, 1e-2, 1e-3), thresholds=cuts, method=method, advance=advance)
    rate = _checked_eer(counted.tally, source.counts)
    folded, reason = None, "no bootstrap was asked for"
    if folds:
        try:
            folded = subject_bootstrap(source, counted, folds=folds, seed=seed, thresholds=cuts, advance=advance)
        except EvaluationError as error:
            reason = str(error)
    maker = _Maker(source.counts, counted, folded, reason)
    figures = [maker.eer(rate), maker.auc(), maker.d_prime()]
    figures += [maker.at_fmr("tar_at_fmr", target, lambda point: point.tar, at=target) for target in targets]
    for name, target in (("fmr100", 1e-2), ("fmr1000", 1e-3), ("zero_fmr", 0.0)):
        figures.append(maker.at_fmr(name, target, lambda point: point.fnmr))
    applied, came = (
        tuple(Applied(each, metrics.at_threshold(counted.tally, each.value)) for each in chosen)
        for chosen in (dev, carried)
    )
    figures += [maker.hter(each) for each in applied if each.threshold.rule == "eer"]
    searches = None
    try:
        searches = search(source)
        figures += maker.identification(searches)
    except EvaluationError as error:
        figures.append(maker.missing("rank_1", str(error)))
    about = {"folds": folds, "seed": seed, "confidence": CONFIDENCE, "unit": "subject"}
    told = (*warnings, *_warnings(source.counts, rate, folded is not None))
    what = dict(protocol or {})
    return Evaluation(source.counts, tuple(figures), rate, counted, applied, came, searches, what, about, told)


@dataclass(frozen=True, eq=False)
class Classified:
    """What a head made of samples of the classes that it was trained on.

    Attributes:
        rank: (P,) rank of the right class among the logits, from 1.
        subject: (P,) number of the person of each sample, from 0.
        classes: How many classes the head has.
    """

    rank: metrics.Array
    subject: metrics.Array
    classes: int


def accuracy(
    found: Classified | None, counts: Counts, *, reason: str = "", folds: int = FOLDS, seed: int = 0
) -> Figure:
    """The share of samples whose class has the highest logit.

    Args:
        found: What the head made of them; ``None`` if it cannot be had.
        counts: Of the result that the figure goes with.
        reason: Why it cannot be had.
        folds: Of the subject bootstrap; 0 for none.
        seed: Of its draws.
    """
    if found is None:
        return Figure("accuracy", math.nan, Interval(math.nan, math.nan, reason), counts, reason=reason)
    interval = Interval(math.nan, math.nan, "no bootstrap was asked for")
    subjects = int(found.subject.max()) + 1
    if folds:
        hits, every = found.rank == 1, np.ones(len(found.rank), bool)
        interval = percentile(_shares(draw(subjects, folds, seed), hits=hits, of=every, subject=found.subject))
    about = f"{len(found.rank):,} samples of {found.classes:,} classes"
    return Figure("accuracy", metrics.rank_k(found.rank, 1), interval, counts, remarks=(about,))


def passes(source: Source, folds: int = FOLDS) -> int:
    """How often :func:`evaluate` goes through all scores at most, for a progress bar."""
    return 2 + (folds > 0 and source.first_subject is not None)


def _checked_eer(counts: Tally, rests: Counts) -> metrics.EqualErrorRate:
    """The EER, if the scores are not reversed.

    A matcher that guesses has an EER around 0.5. Two standard errors of a share of 0.5 in n trials are 1 / sqrt(n); the
    trials that count are the subjects, since comparisons of one person are not independent, or the rarer kind of
    comparison where subjects are unknown.
    """
    rate = metrics.eer(counts)
    trials = rests.subjects or min(rests.genuine, rests.impostor)
    if rate.value > 0.5 + 1 / math.sqrt(trials):
        message = f"the EER is {rate.value:.4f}, above 0.5: impostors score higher than genuine pairs"
        raise EvaluationError(f"{message}; if lower is more alike, say so (--distances), else the scores tell nothing")
    return rate


@dataclass(frozen=True)
class _Maker:
    """Makes figures of one set of scores."""

    counts: Counts
    counted: Counted
    folded: Replicates | None
    no_interval: str

    def eer(self, rate: metrics.EqualErrorRate) -> Figure:
        spread = self._interval(lambda folded: folded.values(lambda tally: metrics.eer(tally).value))
        return Figure("eer", rate.value, spread, self.counts, remarks=self._few(rate.point))

    def auc(self) -> Figure:
        spread = self._interval(lambda folded: folded.values(metrics.auc))
        off = metrics.auc_error(self.counted.tally)
        remarks = (f"binned: off by {off:.1e} at most",) if off else ()
        return Figure("auc", metrics.auc(self.counted.tally), spread, self.counts, remarks=remarks)

    def d_prime(self) -> Figure:
        value = metrics.d_prime(self.counted.genuine, self.counted.impostor)
        if math.isnan(value):
            return self.missing("d_prime", "neither genuine nor impostor scores vary")
        return Figure("d_prime", value, self._interval(Replicates.d_primes), self.counts)

    def hter(self, applied: Applied) -> Figure:
        at = applied.threshold.value
        spread = self._interval(lambda folded: folded.values(lambda tally: metrics.hter(tally, at)))
        return Figure("hter", applied.point.hter, spread, self.counts, remarks=self._few(applied.point))

    def at_fmr(self, name: str, target: float, read: Callable[[Point], float], *, at: float | None = None) -> Figure:
        point = metrics.at_fmr(self.counted.tally, target)
        if point.reason:
            return self.missing(name, point.reason, at)
        spread = self._interval(lambda folded: folded.values(lambda tally: read(metrics.at_fmr(tally, target))))
        remarks = self._few(point, of_impostors=False)
        if target and target * self.counts.impostor < FEW_ERRORS:
            needed = f"{math.ceil(FEW_ERRORS / target):,}"
            about = f"{self.counts.impostor:,} impostor comparisons; by the rule of three this FMR needs {needed}"
            remarks = (about, *remarks)
        return Figure(name, read(point), spread, self.counts, at, remarks=remarks)

    def identification(self, searches: Searches) -> list[Figure]:
        mated = searches.mated
        about = f"{int(mated.sum()):,} searches of {searches.identities:,} identities"
        figures = []
        for k in RANKS if mated.any() else ():
            hits = (searches.rank <= k) & mated
            spread = self._interval(partial(_fold_shares, hits=hits, of=mated, subject=searches.subject))
            rate = metrics.rank_k(searches.rank[mated], k)
            figures.append(Figure(f"rank_{k}", rate, spread, self.counts, remarks=(about,)))
        for target in FPIR_TARGETS if not mated.all() else ():
            point = metrics.fnir_at_fpir(*searches.open_set(), target)
            if point.reason:
                figures.append(self.missing("fnir_at_fpir", point.reason, target))
                continue
            spread = self._interval(partial(_fnirs, searches=searches, target=target))
            remarks = (about, f"{int((~mated).sum()):,} searches without a mate")
            figures.append(Figure("fnir_at_fpir", point.fnmr, spread, self.counts, target, remarks=remarks))
        return figures

    def missing(self, name: str, reason: str, at: float | None = None) -> Figure:
        return Figure(name, math.nan, Interval(math.nan, math.nan, reason), self.counts, at, reason)

    def _interval(self, values: Callable[[Replicates], list[float]]) -> Interval:
        if self.folded is None:
            return Interval(math.nan, math.nan, self.no_interval)
        return percentile(values(self.folded))

    def _few(self, point: Point, *, of_impostors: bool = True) -> tuple[str, ...]:
        """Says that a rate is below the resolution of the set."""
        kinds = [("false non-match", point.fnmr, self.counts.genuine)]
        if of_impostors:
            kinds.insert(0, ("false match", point.fmr, self.counts.impostor))
        found = [(what, round(rate * of), of) for what, rate, of in kinds]
        return tuple(self._rule_of_three(what, count, of) for what, count, of in found if count < FEW_ERRORS)

    def _rule_of_three(self, what: str, count: int, of: int) -> str:
        """With no error in N independent trials, the rate is below 3 / N at 95 % (Hanley and Lippman-Hand, 1983)."""
        errors = f"{count} {what}{'' if count == 1 else 'es'} in {of:,}"
        text = f"{errors}: below the resolution; none in N shows a rate below 3 / N, here {_bound(of)}"
        people = self.counts.subjects
        return text if people is None else f"{text}, or {_bound(people)} if only the {people} subjects are independent"


def _bound(trials: int) -> str:
    """The bound of the rule of three, where it is one: every rate is below 1."""
    return f"{3 / trials:.1e}" if trials > 3 else "nothing"


def _shares(weights: metrics.Array, *, hits: metrics.Array, of: metrics.Array, subject: metrics.Array) -> list[float]:
    """Share of hits in each fold, of weights (F, S)."""
    each = [np.bincount(subject, mask, weights.shape[1]) for mask in (hits, of)]
    with np.errstate(invalid="ignore"):
        return list(map(float, (weights @ each[0]) / (weights @ each[1])))


def _fold_shares(folded: Replicates, **which: metrics.Array) -> list[float]:
    return _shares(folded.weights, **which)


def _fnirs(folded: Replicates, *, searches: Searches, target: float) -> list[float]:
    return [metrics.fnir_at_fpir(*searches.open_set(weights), target).fnmr for weights in folded.weights]


def _warnings(counts: Counts, rate: metrics.EqualErrorRate, intervals: bool) -> tuple[str, ...]:
    found = []
    if rate.value >= 0.5:
        found.append(f"the EER of {rate.value:.4f} is that of guessing: the scores tell nobody apart")
    if counts.subjects is None:
        found.append("the scores do not say whose they are: no intervals, and no check that pairs are there once")
    elif intervals and counts.subjects < FEW_SUBJECTS:
        found.append(f"intervals from {counts.subjects} subjects are too narrow; take {FEW_SUBJECTS} or more")
    if counts.subjects is not None and counts.subjects == counts.identities:
        found.append(
            "each identity counts as a person of its own; if some are two hands of one, intervals are too narrow"
        )
    return tuple(found)
