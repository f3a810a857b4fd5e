"""The metrics, against their definitions written out and against scikit-learn, torchmetrics, bob.measure and FVC."""

from __future__ import annotations

import itertools
from fractions import Fraction
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve
from torchmetrics.functional.classification import binary_auroc, binary_eer

from pvzoo import EvaluationError
from pvzoo.evaluation import metrics
from pvzoo.evaluation.metrics import Moments, Tally, tally

# Distinct scores, heavily tied ones, and a constant.
NUMBERS = [st.floats(0, 1, width=32), st.integers(0, 8).map(lambda n: n / 8), st.just(0.5)]


@st.composite
def score_sets(draw: Any) -> tuple[list[float], list[float]]:
    """Genuine and impostor scores in [0, 1]: tiny or larger, tied or not, either way round."""
    numbers = draw(st.sampled_from(NUMBERS))
    genuine, impostor = (draw(st.lists(numbers, min_size=1, max_size=30)) for _ in range(2))
    if draw(st.booleans()):
        genuine = [min(1.0, score + 0.25) for score in genuine]
    return genuine, impostor


def rates(genuine: list[float], impostor: list[float], threshold: float) -> tuple[Fraction, Fraction]:
    """FMR and FNMR by counting, exact."""
    accepted = sum(score >= threshold for score in impostor)
    rejected = sum(score < threshold for score in genuine)
    return Fraction(accepted, len(impostor)), Fraction(rejected, len(genuine))


def all_rates(genuine: list[float], impostor: list[float]) -> list[tuple[Fraction, Fraction]]:
    return [rates(genuine, impostor, t) for t in [*sorted({*genuine, *impostor}), float("inf")]]


# --- against definitions ----------------------------------------------------------------------------------------------


@given(score_sets())
def test_rates_are_counted(sets: tuple[list[float], list[float]]) -> None:
    counts = tally(*sets)
    assert (counts.n_genuine, counts.n_impostor) == tuple(map(len, sets))
    assert list(zip(counts.fmr, counts.fnmr, strict=True)) == [tuple(map(float, pair)) for pair in all_rates(*sets)]


@given(score_sets())
def test_eer_is_the_mean_where_fmr_and_fnmr_are_closest(sets: tuple[list[float], list[float]]) -> None:
    found = metrics.eer(tally(*sets))
    every = all_rates(*sets)
    least = min(abs(fmr - fnmr) for fmr, fnmr in every)
    lowest = min(fmr + fnmr for fmr, fnmr in every if abs(fmr - fnmr) == least)
    assert found.value == pytest.approx(float(lowest) / 2, abs=1e-15)
    fmr, fnmr = rates(*sets, found.point.threshold)
    assert abs(fmr - fnmr) == least
    assert (found.point.fmr, found.point.fnmr) == (float(fmr), float(fnmr))


def interpolated(genuine: list[float], impostor: list[float]) -> float:
    """CompNet's and CCNet's rule: where the ROC, joined by straight lines, meets FMR = FNMR."""
    points = all_rates(genuine, impostor)
    for (fmr, fnmr), (next_fmr, next_fnmr) in itertools.pairwise(points):
        before, after = fmr - fnmr, next_fmr - next_fnmr
        if before >= 0 >= after:
            return float(fmr + (next_fmr - fmr) * (before / (before - after)))
    raise AssertionError("FMR falls from 1 to 0 and FNMR grows from 0 to 1")


def fvc2000(genuine: list[float], impostor: list[float]) -> tuple[float, float]:
    """EERlow and EERhigh (Maio et al., 2002), with the threshold that rejects all, which pyeer lacks."""
    points = all_rates(genuine, impostor)
    second = next(i for i, (fmr, fnmr) in enumerate(points) if fmr <= fnmr)
    first = second if points[second][0] == points[second][1] else second - 1
    if sum(points[first]) <= sum(points[second]):
        return float(points[first][1]), float(points[first][0])
    return float(points[second][0]), float(points[second][1])


def bob_measure(genuine: list[float], impostor: list[float]) -> float:
    """The threshold that minimises abs(FAR - FRR), half-way between scores; then (FAR + FRR) / 2 there."""
    scores = sorted({*genuine, *impostor})
    between = [(a + b) / 2 for a, b in itertools.pairwise(scores)]
    thresholds = [scores[0], *between, np.nextafter(scores[-1], np.inf)]
    far, frr = min(
        (rates(genuine, impostor, t) for t in thresholds), key=lambda pair: (abs(pair[0] - pair[1]), sum(pair))
    )
    return float(far + frr) / 2


@given(score_sets())
def test_the_rules_of_others_lie_in_the_interval(sets: tuple[list[float], list[float]]) -> None:
    found = metrics.eer(tally(*sets))
    for value in (found.value, interpolated(*sets), *fvc2000(*sets)):
        assert found.low - 1e-12 <= value <= found.high + 1e-12
    assert 0 <= found.low <= found.high <= 1
    scores = sorted({*sets[0], *sets[1]})
    # Neighbouring floats leave bob no room for a threshold between them.
    assume(all(a < (a + b) / 2 < b for a, b in itertools.pairwise(scores)))
    assert found.value == pytest.approx(bob_measure(*sets), abs=1e-12)


@given(score_sets(), st.sampled_from([0.0, 0.05, 0.1, 0.3, 1 / 3, 1.0]))
def test_tar_at_fmr_is_conservative(sets: tuple[list[float], list[float]], target: float) -> None:
    point = metrics.at_fmr(tally(*sets), target)
    if 0 < target < 1 / len(sets[1]):
        assert np.isnan(point.tar) and f"cannot show an FMR of {metrics.power(target)}" in point.reason
        return
    allowed = [fnmr for fmr, fnmr in all_rates(*sets) if float(fmr) <= target]
    assert point.fmr <= target
    assert point.fnmr == float(min(allowed))
    assert (point.fmr, point.fnmr) == tuple(map(float, rates(*sets, point.threshold)))


@given(score_sets(), st.floats(-0.5, 1.5))
def test_rates_at_a_threshold_from_elsewhere(sets: tuple[list[float], list[float]], threshold: float) -> None:
    fmr, fnmr = map(float, rates(*sets, threshold))
    assert metrics.hter(tally(*sets), threshold) == (fmr + fnmr) / 2


def test_fmr100_fmr1000_and_zero_fmr() -> None:
    # 1,000 impostors at 0.000 ... 0.999; genuine at 0.5, 0.991, 0.9985 and 2.
    counts = tally([0.5, 0.991, 0.9985, 2.0], np.arange(1000) / 1000)
    assert metrics.fmr100(counts) == 0.25  # ten impostors are at or above 0.990
    assert metrics.fmr1000(counts) == 0.5  # one is at or above 0.9985
    assert metrics.zero_fmr(counts) == 0.75
    assert metrics.tar_at_fmr(counts, 1e-2) == 0.75
    assert metrics.at_fmr(counts, 1e-2).threshold == 0.99
    assert metrics.at_fmr(counts, 1e-4).reason == (
        "1,000 impostor comparisons cannot show an FMR of 1e-4; 10,000 or more are needed"
    )


@pytest.mark.parametrize(
    ("genuine", "impostor", "value", "low", "high"),
    [
        ([3, 4], [1, 2], 0, 0, 0),
        ([1, 2], [3, 4], 1, 1, 1),
        ([1, 1], [1, 1, 1], 0.5, 0, 1),  # constant; pyeer says 1.0
        ([1], [1], 0.5, 0, 1),
        ([1, 3, 4, 5], [0, 1, 2, 3.5], 0.25, 0.25, 0.25),
        # Tied at 0.5: FMR 0.75 or 0.25, FNMR 0 or 0.5. Reading FMR alone would give 0.25.
        ([0.5, 0.5, 1, 1], [0, 0.5, 0.5, 1], 0.375, 0, 0.75),
    ],
)
def test_worked_examples(genuine: Any, impostor: Any, value: float, low: float, high: float) -> None:
    found = metrics.eer(tally(genuine, impostor))
    assert (found.value, found.low, found.high) == (value, low, high)


def test_rules_differ_on_small_sets_and_agree_on_large_ones() -> None:
    generator = np.random.default_rng(0)
    for genuine, impostor, apart in ((20, 100, 0.06), (50, 5000, 0.02), (900, 90_000, 2e-3)):
        sets = generator.normal(2, 1, genuine), generator.normal(0, 1, impostor)
        found = metrics.eer(tally(*sets))
        assert found.high - found.low < apart
        fpr, tpr, _ = roc_curve(np.repeat([1, 0], [genuine, impostor]), np.concatenate(sets))
        crossing = np.argmin(np.abs(1 - tpr - fpr))
        assert found.value == pytest.approx((fpr[crossing] + 1 - tpr[crossing]) / 2, abs=1e-12)


# --- against scikit-learn and torchmetrics ----------------------------------------------------------------------------


def labelled(sets: tuple[list[float], list[float]]) -> tuple[Any, Any]:
    return np.repeat([1, 0], list(map(len, sets))), np.concatenate(sets)


@given(score_sets())
def test_roc_and_auc_are_those_of_scikit_learn(sets: tuple[list[float], list[float]]) -> None:
    curve = metrics.roc(tally(*sets))
    fpr, tpr, thresholds = roc_curve(*labelled(sets), drop_intermediate=False)
    assert np.array_equal(curve.thresholds, thresholds)
    assert np.allclose(curve.x, fpr, atol=1e-12)
    assert np.allclose(curve.y, tpr, atol=1e-12)
    assert metrics.auc(tally(*sets)) == pytest.approx(roc_auc_score(*labelled(sets)), abs=1e-12)


@given(score_sets())
def test_eer_and_auc_are_those_of_torchmetrics(sets: tuple[list[float], list[float]]) -> None:
    labels, scores = (torch.from_numpy(np.asarray(array)) for array in labelled(sets))
    # It computes in float32, where two thresholds may seem equally close that are not, or the other way round.
    distances = sorted(abs(fmr - fnmr) for fmr, fnmr in all_rates(*sets))
    found = metrics.eer(tally(*sets))
    if len(distances) == 1 or distances[1] - distances[0] > 1e-4:
        assert float(binary_eer(scores, labels)) == pytest.approx(found.value, abs=1e-6)
    assert float(binary_auroc(scores, labels)) == pytest.approx(metrics.auc(tally(*sets)), abs=1e-6)


# --- the others -------------------------------------------------------------------------------------------------------


def test_det_is_in_normal_deviates() -> None:
    curve = metrics.det(tally([1, 3, 4, 5], [0, 1, 2, 3.5]))
    deviate = NormalDist().inv_cdf
    assert curve.thresholds.tolist() == [np.inf, 5, 4, 3.5, 3, 2, 1, 0]
    assert curve.x[0] == -np.inf and curve.y[0] == np.inf
    assert np.allclose(curve.x[3:7], [deviate(x) for x in (0.25, 0.25, 0.5, 0.75)])
    assert np.allclose(curve.y[1:6], [deviate(y) for y in (0.75, 0.5, 0.5, 0.25, 0.25)])


def test_d_prime() -> None:
    assert metrics.d_prime(Moments.of([3, 5]), Moments.of([0, 2])) == 3.0
    assert np.isnan(metrics.d_prime(Moments.of([1, 1]), Moments.of([0, 0])))


def test_auc_of_bins_says_how_far_it_may_be_off() -> None:
    exact = tally([1, 3, 4, 5], [0, 1, 2, 3.5])
    binned = Tally(np.array([0, 2, 4]), np.array([1, 1, 2]), np.array([2, 2, 0]), np.array([True, True, True]))
    assert metrics.auc_error(exact) == 0
    assert metrics.auc_error(binned) == (1 * 2 + 1 * 2) / (2 * 16)
    assert abs(metrics.auc(binned) - metrics.auc(exact)) <= metrics.auc_error(binned)


def test_long_curves_are_thinned_where_nothing_changes() -> None:
    generator = np.random.default_rng(0)
    counts = tally(generator.normal(3, 1, 3000), generator.normal(0, 1, 100_000))
    places = metrics.steps(counts, 2000)
    assert len(places) <= 2000
    assert np.array_equal(metrics.steps(counts, 10**6), np.arange(len(counts.points)))
    assert places[0] == 0 and places[-1] == len(counts.points) - 1
    for rate, number in ((counts.fmr[places], 100_000), (counts.fnmr[places], 3000)):
        assert np.all(np.abs(np.diff(rate)) <= 0.03 * np.minimum(rate[1:], rate[:-1]) + 1 / number + 1e-12)


def test_power() -> None:
    assert [metrics.power(rate) for rate in (1e-2, 1e-6, 0.015, 0.5, 1)] == ["1e-2", "1e-6", "1.5e-2", "5e-1", "1e0"]


def test_cmc_and_rank() -> None:
    ranks = [1, 1, 3, 2]
    assert metrics.cmc(ranks, 4).tolist() == [0.5, 0.75, 1, 1]
    assert (metrics.rank_k(ranks, 1), metrics.rank_k(ranks, 2)) == (0.5, 0.75)


def test_accuracy_counts_ties_against_the_head() -> None:
    logits = [[3.0, 1, 2], [1, 1, 1], [0, 5, 6], [2, 9, 1]]
    assert metrics.rank_of_label(logits, [0, 0, 1, 1]).tolist() == [1, 3, 2, 1]
    assert metrics.accuracy(logits, [0, 0, 1, 1]) == 0.5
    assert metrics.accuracy(logits, [0, 0, 1, 1], k=2) == 0.75


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[1.0, 2]], [2], "row 0: label 2 of 2 classes"),
        ([[1.0, 2], [1, 2]], [0, -1], "row 1: label -1 of 2 classes"),
        ([[1.0, 2], [float("nan"), 2]], [0, 1], "row 1: a logit is NaN"),
        ([[1.0, 2]], [1, 1], r"logits (1, 2), labels (2,); logits (N, C) and labels (N,) of one or more samples"),
    ],
)
def test_accuracy_refuses(logits: Any, labels: Any, message: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        metrics.accuracy(logits, labels)
    assert str(caught.value).startswith(message)


def test_open_set_identification() -> None:
    # Four probes with a mate, one of them not ranked first; ten without.
    mates, strangers = [0.9, 0.7, 0.4, -np.inf], np.arange(10) / 10
    point = metrics.fnir_at_fpir(mates, strangers, 0.3)
    assert (point.threshold, point.fmr, point.fnmr) == (0.7, 0.3, 0.5)
    assert metrics.fnir_at_fpir(mates, strangers, 0).fnmr == 1  # the highest stranger scores 0.9 too
    assert metrics.fnir_at_fpir(mates, strangers, 0.01).reason.startswith("10 probes without a mate cannot show")
    assert metrics.fnir_at_fpir([], strangers, 0.3).reason == "no probe with a mate in the gallery"


@pytest.mark.parametrize(
    ("genuine", "impostor", "message"),
    [
        ([], [1], "there are no genuine scores; error rates need genuine and impostor comparisons"),
        ([1], [], "there are no impostor scores; error rates need genuine and impostor comparisons"),
        ([1, float("nan")], [1], "genuine score 1 is nan; scores are finite numbers"),
        ([1], [float("-inf")], "impostor score 0 is -inf; scores are finite numbers"),
    ],
)
def test_tally_refuses(genuine: Any, impostor: Any, message: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        tally(genuine, impostor)
    assert str(caught.value) == message
