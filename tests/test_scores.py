"""Embeddings to scores to counts: what is compared, the two ways of counting, and the subject bootstrap."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pvzoo import EvaluationError, PvzooError
from pvzoo.evaluation import metrics, scores
from pvzoo.evaluation.bootstrap import LEVELS, percentile, subject_bootstrap
from pvzoo.evaluation.identification import search
from pvzoo.evaluation.metrics import FMR_TARGETS, tally
from pvzoo.evaluation.scorefile import ScoreSet, Side, Who, score_set
from pvzoo.evaluation.scores import Comparisons, as_embeddings, count_scores
from pvzoo.evaluation.trials import Listed, Population, Trials, all_pairs, gallery_probe, listed


def people(subjects: int, hands: int = 2, samples: int = 3) -> tuple[Population, Any]:
    """A population in mixed order, and the identity of each sample."""
    identity = np.random.default_rng(1).permutation(np.repeat(np.arange(subjects * hands), samples))
    return Population.of(identity.tolist(), (identity // hands).tolist()), identity


def embeddings(identity: Any, noise: float = 1.5, dim: int = 16, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    centres = torch.randn(int(identity.max()) + 1, dim, generator=generator, dtype=dtype)
    return centres[identity] + noise * torch.randn(len(identity), dim, generator=generator, dtype=dtype)


def pairs_of(trials: Trials) -> list[tuple[int, int]]:
    if isinstance(trials, Listed):
        return list(zip(trials.first.tolist(), trials.second.tolist(), strict=True))
    rows, columns = trials.rows.tolist(), trials.columns.tolist()
    return list(itertools.combinations(rows, 2) if trials.upper else itertools.product(rows, columns))


def plans(count: int) -> dict[str, Trials]:
    order = np.random.default_rng(3).permutation(count)
    some = [(int(a), int(b)) for a, b in zip(order[: count // 2], order[count // 2 :], strict=False)]
    some += [(int(a), int(b)) for a, b in itertools.pairwise(order)]
    return {
        "all pairs": all_pairs(count),
        "gallery and probes": gallery_probe(order[: count // 3].tolist(), order[count // 3 :].tolist()),
        "listed": listed(dict.fromkeys(some)),
    }


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few samples make many tiles."""
    monkeypatch.setattr(scores, "ROWS", 16)
    monkeypatch.setattr(scores, "COLUMNS", 24)
    monkeypatch.setattr(scores, "LISTED", 20)


PLANS = ["all pairs", "gallery and probes", "listed"]


# --- what is compared -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", PLANS)
def test_tiles_hold_each_comparison_once(small_tiles: None, plan: str) -> None:
    population, identity = people(12)
    vectors = embeddings(identity, dtype=torch.float64)
    trials = plans(len(identity))[plan]
    source = Comparisons(vectors, population, trials)
    unit = torch.nn.functional.normalize(vectors)
    expected = {(a, b): float(unit[a] @ unit[b]) for a, b in pairs_of(trials)}
    found = score_set(source, [str(number) for number in range(len(identity))])
    assert found.who is not None
    seen = list(zip(found.who.probe.sample.tolist(), found.who.reference.sample.tolist(), strict=True))
    if plan == "all pairs":
        seen = [(min(pair), max(pair)) for pair in seen]
    assert sorted(seen) == sorted(expected)
    assert np.allclose(found.scores, [expected[pair] for pair in seen], atol=1e-12)
    assert found.genuine.tolist() == [identity[a] == identity[b] for a, b in seen]
    assert source.counts.genuine == found.genuine.sum() == found.counts.genuine
    assert source.counts.impostor == len(expected) - found.genuine.sum()
    taking_part = {number for pair in expected for number in pair}
    assert source.counts.identities == len({int(identity[number]) for number in taking_part})
    assert source.counts.subjects == source.subjects == len({int(identity[number]) // 2 for number in taking_part})
    assert sum(tile.scores.numel() for tile in source.tiles()) >= len(expected)
    assert sum(1 for _ in source.tiles()) >= 4


def test_tiles_without_masks_are_of_different_subjects(small_tiles: None) -> None:
    population, identity = people(12)
    source = Comparisons(embeddings(identity), population, all_pairs(len(identity)))
    plain = [tile for tile in source.tiles() if tile.genuine is None]
    assert plain
    for tile in plain:
        first, second = source.first_subject[tile.first], source.second_subject[tile.second]
        assert not set(first.tolist()) & set(second.tolist())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Population.of(["a", "", "b"]), "row 1: the identity is missing"),
        (lambda: Population.of(["a", "b"], ["x", None]), "row 1: the subject is missing"),
        (lambda: Population.of([1.0, float("nan")]), "row 1: the identity is missing"),
        (lambda: Population.of(["a", "b"], ["x"]), "2 identities and 1 subjects; one of each a sample is needed"),
        (
            lambda: Population.of(["a", "b", "a"], ["x", "x", "y"]),
            "row 2: identity 'a' is of subject 'x' in row 0 and of 'y'",
        ),
        (lambda: gallery_probe([], [1]), "the gallery is empty"),
        (lambda: gallery_probe([1], []), "the list of probes is empty"),
        (
            lambda: gallery_probe([1, 2], [3, 2]),
            "sample 2 is in the gallery and a probe; it would be compared with itself or counted twice",
        ),
        (
            lambda: gallery_probe([1, 1], [2]),
            "sample 1 is twice in the gallery; it would be compared with itself or counted twice",
        ),
        (lambda: listed([]), "the list of pairs is empty"),
        (lambda: listed([(0, 1), (2, 2)]), "row 1: 2 is paired with itself"),
        (lambda: listed([(0, 1), (2, 0), (1, 0)]), "row 2: 1 and 0 are a pair already, in row 0"),
        (
            lambda: listed([("anna_1", "ben_1"), ("anna_1", "ben2")], ["anna_1", "ben_1", "ben_2"]),
            "row 1: there is no sample 'ben2'; did you mean 'ben_2'?",
        ),
    ],
)
def test_labels_and_trials_are_checked(make: Callable[[], object], message: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        make()
    assert str(caught.value) == message


def test_pairs_by_name() -> None:
    trials = listed([("b", "a"), ("c", "b")], ["a", "b", "c"])
    assert pairs_of(trials) == [(1, 0), (2, 1)]


NAN, ZERO = torch.eye(3), torch.eye(3)
NAN[1, 2], ZERO[2] = float("nan"), 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (NAN, "embeddings: row 1 holds NaN or infinite values"),
        (np.full((2, 3), np.inf), "embeddings: row 0 holds NaN or infinite values"),
        (ZERO, "embeddings: row 2 is all zeros, which has no direction"),
        (torch.zeros(0, 4), "embeddings have shape (0, 4); (N, D) of one or more is needed"),
        ([], "embeddings have shape (0, 1); (N, D) of one or more is needed"),
        (torch.ones(3), "embeddings have shape (3,); (N, D) of one or more is needed"),
        (
            [torch.ones(4), torch.ones(4), torch.ones(5)],
            "embeddings: row 2 has shape (5,), and row 0 has (4,); all come from one model",
        ),
    ],
)
def test_embeddings_are_checked(values: Any, message: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        as_embeddings(values)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("labels", "trials", "message"),
    [
        ("aabb", all_pairs(3), None),
        ("aab", all_pairs(4), "there is no sample 3; the 3 samples are numbered from 0"),
        ("aabb", listed([(0, -1)]), "there is no sample -1; the 4 samples are numbered from 0"),
        ("aaabb", all_pairs(4), "4 embeddings and 5 labels; one each is needed"),
        (
            "abcd",
            all_pairs(4),
            "there is no genuine comparison: no pair to compare has two samples of one identity",
        ),
        (
            "aaaa",
            all_pairs(4),
            "there is no impostor comparison: no pair to compare has samples of two identities",
        ),
    ],
)
def test_comparisons_are_checked(labels: str, trials: Trials, message: str | None) -> None:
    vectors = torch.eye(4)[: 3 if len(labels) == 3 else 4]
    if message is None:
        assert Comparisons(vectors, Population.of(labels), trials).counts.genuine == 1
        return
    with pytest.raises(EvaluationError) as caught:
        Comparisons(vectors, Population.of(labels), trials)
    assert str(caught.value) == message


# --- two ways of counting ---------------------------------------------------------------------------------------------


def assert_same_figures(source: Any, thresholds: tuple[float, ...] = ()) -> None:
    exact = count_scores(source, method="sorted")
    binned = count_scores(source, method="histogram", thresholds=thresholds)
    assert metrics.eer(binned.tally) == metrics.eer(exact.tally)
    for target in (0.0, *FMR_TARGETS):
        first, second = (metrics.at_fmr(counted.tally, target) for counted in (binned, exact))
        assert first == second or (first.reason and first.reason == second.reason)
    for threshold in thresholds:
        first, second = (metrics.at_threshold(counted.tally, threshold) for counted in (binned, exact))
        assert first == second
    assert (binned.genuine, binned.impostor) == (exact.genuine, exact.impostor)
    off = metrics.auc_error(binned.tally)
    assert abs(metrics.auc(binned.tally) - metrics.auc(exact.tally)) <= off + 1e-12
    assert np.all(np.diff(binned.tally.thresholds) > 0)
    # Without the second pass, the interval of the EER is the error bound.
    coarse = metrics.eer(count_scores(source, method="histogram", refine=False).tally)
    assert coarse.low - 1e-12 <= metrics.eer(exact.tally).value <= coarse.high + 1e-12


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("noise", [0.1, 1.5, 50])
def test_both_ways_agree_on_embeddings(small_tiles: None, plan: str, noise: float) -> None:
    population, identity = people(20)
    source = Comparisons(embeddings(identity, noise), population, plans(len(identity))[plan])
    assert_same_figures(source, (-0.3, 0.0, 0.123, 0.9, 2.0))


SCORES = {
    "distinct": st.floats(-1e6, 1e6),
    "tied": st.integers(-3, 3).map(float),
    "constant": st.just(0.25),
    "close": st.integers(0, 40).map(lambda n: 1 + n * 2.0**-52),
    "with an outlier": st.sampled_from([1e9, *(n * 1e-5 for n in range(30))]),
    "tiny": st.floats(0, 1e-300),
}


def test_thresholds_on_the_edges_of_bins() -> None:
    """In float32, a score and an edge may be rounded to either side."""
    population, identity = people(20)
    source = Comparisons(embeddings(identity, 0.7), population, all_pairs(len(identity)))
    every = np.unique(score_set(source, list(map(str, identity))).scores)
    edges = (np.arange(scores.BINS) / scores.BINS * 2 - 1)[::1500]
    near = [every[np.abs(every - edge).argmin()] for edge in edges]
    assert_same_figures(source, (*edges, *near))


@pytest.mark.parametrize("kind", list(SCORES))
@given(st.data())
def test_both_ways_agree_on_any_scores(kind: str, data: Any) -> None:
    genuine, impostor = (data.draw(st.lists(SCORES[kind], min_size=1, max_size=60)) for _ in range(2))
    values = np.array([*genuine, *impostor])
    flags = np.repeat([True, False], [len(genuine), len(impostor)])
    picked = data.draw(st.lists(st.sampled_from([*genuine, *impostor, 0.1, -1e9]), max_size=3))
    assert_same_figures(ScoreSet(values, flags), tuple(picked))


def test_d_prime_keeps_its_digits_when_scores_are_close() -> None:
    population, identity = people(20)
    vectors = torch.ones(len(identity), 16) * 30 + embeddings(identity) * 0.2
    found = count_scores(Comparisons(vectors, population, all_pairs(len(identity))), method="histogram")
    unit = torch.nn.functional.normalize(vectors)
    values = (unit @ unit.T).double().numpy()
    impostor = values[np.triu(identity[:, None] != identity, 1)]
    assert impostor.min() > 0.9995
    # Of float32 scores in steps of 6e-8.
    assert found.impostor.variance == pytest.approx(impostor.var(), rel=1e-3)
    same = ScoreSet(np.full(10, 0.1), np.arange(10) < 5)
    assert np.isnan(metrics.d_prime(*(getattr(count_scores(same), kind) for kind in ("genuine", "impostor"))))


def test_scores_that_change_between_the_passes_are_noticed() -> None:
    population, identity = people(6)
    source = Comparisons(embeddings(identity), population, all_pairs(len(identity)))

    def drift(count: int) -> None:
        source.embeddings.mul_(-1)
        source.embeddings[:3] = 1

    with pytest.raises(PvzooError, match=r"^the scores were not the same in both passes"):
        count_scores(source, method="histogram", advance=drift)


def test_small_sets_are_sorted_and_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    population, identity = people(6)
    source = Comparisons(embeddings(identity), population, gallery_probe(range(12), range(12, 36)))
    done: list[int] = []
    assert count_scores(source, advance=done.append).tally.binned is None
    assert sum(done) == 12 * 24
    monkeypatch.setattr(scores, "SORTED_LIMIT", 12 * 24 - 1)
    done.clear()
    assert count_scores(source, advance=done.append).tally.binned is not None
    assert sum(done) == 2 * 12 * 24


MEMORY = """
import resource, sys, torch
from pvzoo.evaluation.metrics import eer
from pvzoo.evaluation.scores import Comparisons, count_scores
from pvzoo.evaluation.trials import Population, all_pairs

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

def count(n):
    identity = [i // 10 for i in range(n)]
    source = Comparisons(vectors[:n], Population.of(identity), all_pairs(n))
    return eer(count_scores(source, method="histogram").tally).value

torch.manual_seed(0)
vectors = torch.randn(8000, 32)
count(2500)  # libraries load what they need
before = peak()
assert 0.45 < count(8000) < 0.55
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_matrix() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    # The matrix would take 256 MB.
    assert int(done.stdout) < 80e6


# --- the bootstrap ----------------------------------------------------------------------------------------------------


def assert_folds_are_what_repeated_subjects_give(source: Any, who: Any, first: Any, second: Any) -> None:
    """Counts each fold anew, comparison by comparison."""
    counted = count_scores(source, method="sorted")
    folded = subject_bootstrap(source, counted, folds=20, seed=4)
    values, genuine = who.scores, who.genuine
    for weights, of_genuine, of_impostor in zip(folded.weights, folded.genuine, folded.impostor, strict=True):
        times = np.where(first == second, weights[first], weights[first] * weights[second])
        for flags, found in ((genuine, of_genuine), (~genuine, of_impostor)):
            place = np.searchsorted(folded.thresholds, values[flags], side="right") - 1
            assert np.array_equal(found, np.bincount(place, times[flags], len(folded.thresholds)))
    everybody = folded.weights.sum(1)
    assert (everybody == source.subjects).all()


@pytest.mark.parametrize("plan", PLANS)
def test_folds_of_embeddings(small_tiles: None, plan: str) -> None:
    population, identity = people(8)
    source = Comparisons(embeddings(identity), population, plans(len(identity))[plan])
    every = score_set(source, list(map(str, identity)))
    assert every.who is not None
    # More thresholds than are followed, so coarse counts are compared.
    sides = [source.first_subject.numpy()[side.sample] for side in (every.who.probe, every.who.reference)]
    assert_folds_are_what_repeated_subjects_give(source, every, *sides)


def test_folds_of_a_score_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pvzoo.evaluation.scorefile.CHUNK", 100)
    population, identity = people(8)
    source = score_set(
        Comparisons(embeddings(identity), population, all_pairs(len(identity))), list(map(str, identity))
    )
    assert source.who is not None
    sides = [source.who.people(side)[side.sample] for side in (source.who.probe, source.who.reference)]
    assert_folds_are_what_repeated_subjects_give(source, source, *sides)


def subject_effect(subjects: int = 40, pairs: int = 15) -> ScoreSet:
    """Some people are harder than others: field practice draws pairs, and its intervals are too narrow."""
    generator = np.random.default_rng(5)
    person = np.repeat(np.arange(subjects), pairs)
    genuine = 2.4 + np.repeat(generator.normal(0, 1, subjects), pairs) + generator.normal(0, 0.5, len(person))
    a, b = np.triu_indices(subjects, 1)
    impostor = generator.normal(0, 1, len(a))
    values, flags = np.concatenate([genuine, impostor]), np.repeat([True, False], [len(genuine), len(a)])
    probe, reference = np.concatenate([person, a]), np.concatenate([person, b])
    names = tuple(map(str, range(subjects)))
    sides = [Side(sample, names, np.arange(subjects)) for sample in (probe, reference)]
    return ScoreSet(values, flags, Who(sides[0], sides[1], False, names, np.arange(subjects), names))


def test_intervals_by_subject_are_wider_than_by_pair() -> None:
    source = subject_effect()
    counted = count_scores(source)
    folded = subject_bootstrap(source, counted, folds=400)
    found = percentile(folded.values(lambda counts: metrics.eer(counts).value))
    generator = np.random.default_rng(6)
    genuine, impostor = source.scores[source.genuine], source.scores[~source.genuine]
    by_pair = percentile(
        [metrics.eer(tally(generator.choice(genuine, 600), generator.choice(impostor, 780))).value for _ in range(400)]
    )
    assert found.low < metrics.eer(counted.tally).value < found.high
    assert found.high - found.low > 1.8 * (by_pair.high - by_pair.low)


def test_many_thresholds_are_thinned_out_without_moving_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    population, identity = people(30, samples=5)
    source = Comparisons(embeddings(identity, 1.0), population, all_pairs(len(identity)))
    counted = count_scores(source)
    assert len(counted.tally.thresholds) > 20 * LEVELS
    thin = subject_bootstrap(source, counted, folds=100)
    assert len(thin.thresholds) <= LEVELS + 20
    monkeypatch.setattr("pvzoo.evaluation.bootstrap.LEVELS", 10**9)
    full = subject_bootstrap(source, counted, folds=100)
    assert np.array_equal(thin.weights, full.weights)
    for figure in (
        lambda counts: metrics.eer(counts).value,
        metrics.auc,
        lambda counts: metrics.tar_at_fmr(counts, 1e-2),
        lambda counts: metrics.tar_at_fmr(counts, 1e-3),
    ):
        first, second = (percentile(folded.values(figure)) for folded in (thin, full))
        width = second.high - second.low
        assert abs(first.low - second.low) < 0.05 * width
        assert abs(first.high - second.high) < 0.05 * width
    assert np.allclose(thin.d_primes(), full.d_primes(), rtol=1e-3)


def test_d_primes_of_folds() -> None:
    source = subject_effect(subjects=6, pairs=4)
    counted = count_scores(source)
    folded = subject_bootstrap(source, counted, folds=30)
    assert source.who is not None
    probe, reference = source.who.probe.sample, source.who.reference.sample
    for weights, found in zip(folded.weights, folded.d_primes(), strict=True):
        times = np.where(source.genuine, weights[probe], weights[probe] * weights[reference]).astype(int)
        sets = [np.repeat(source.scores[flags], times[flags]) for flags in (source.genuine, ~source.genuine)]
        assert found == pytest.approx(metrics.d_prime(*map(metrics.Moments.of, sets)), rel=1e-6)


def test_folds_without_a_value() -> None:
    # With two subjects, every other fold draws one of them twice, and has no impostor comparison.
    source = subject_effect(subjects=2, pairs=4)
    folded = subject_bootstrap(source, count_scores(source), folds=100)
    missing = sum(np.isnan(folded.values(metrics.auc)))
    assert missing == sum((folded.weights == 2).any(1)) > 30
    assert percentile(folded.values(metrics.auc)).reason == f"{missing} of 100 folds have no value"
    assert percentile([1.0, float("nan"), 2.0]).reason == "1 of 3 folds have no value"
    assert percentile([1.0] * 19 + [float("nan")]).low == 1


# --- identification ---------------------------------------------------------------------------------------------------


def test_searches_of_embeddings_and_of_their_scores_agree(small_tiles: None) -> None:
    population, identity = people(12)
    vectors = embeddings(identity, 2.0)
    # Some identities are not in the gallery.
    gallery = [number for number in range(len(identity)) if number % 3 == 0 and identity[number] < 18]
    probes = [number for number in range(len(identity)) if number not in gallery]
    source = Comparisons(vectors, population, gallery_probe(gallery, probes))
    unit = torch.nn.functional.normalize(vectors)
    known = sorted({int(identity[number]) for number in gallery})
    expected = {}
    for probe in probes:
        best = {i: max(float(unit[probe] @ unit[g]) for g in gallery if identity[g] == i) for i in known}
        own = best.pop(int(identity[probe]), -np.inf)
        rank = 0 if own == -np.inf else 1 + sum(score >= own for score in best.values())
        expected[probe] = (rank, own, max(best.values()))
    assert {rank for rank, _, _ in expected.values()} >= {0, 1, 2}
    order = [int(number) for tile in source.tiles() for number in tile.first]
    found = search(source)
    for number, probe in enumerate(dict.fromkeys(order)):
        assert found.rank[number] == expected[probe][0]
        assert (found.mate[number], found.other[number]) == pytest.approx(expected[probe][1:], abs=1e-6)
        assert source.first_subject[probe] == found.subject[number]
    assert found.identities == len(known)
    again = search(score_set(source, list(map(str, range(len(identity))))))
    for each in ("rank", "mate", "other", "subject"):
        assert sorted(getattr(again, each)) == sorted(getattr(found, each))
    own, strangers = found.open_set()
    assert len(own) == (found.rank > 0).sum() and len(strangers) == (found.rank == 0).sum()
    assert (np.isneginf(own) == (found.rank[found.rank > 0] > 1)).all()


def test_ties_rank_the_own_identity_last() -> None:
    population = Population.of("abcabc")
    source = Comparisons(torch.ones(6, 4), population, gallery_probe([0, 1, 2], [3, 4, 5]))
    assert search(source).rank.tolist() == [3, 3, 3]


def test_identification_needs_a_gallery_and_all_of_it() -> None:
    population, identity = people(4)
    everyone = Comparisons(embeddings(identity), population, all_pairs(len(identity)))
    with pytest.raises(EvaluationError, match=r"^identification needs a gallery, and every probe compared with all"):
        search(everyone)
    with pytest.raises(EvaluationError, match=r"compared with every reference; 23 probes and 23 references have 276"):
        search(score_set(everyone, list(map(str, range(len(identity))))))
