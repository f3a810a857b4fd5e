"""What models trained on SynthPalm rest on: no shortcut, a difficulty that k sets, identities that differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from biometrics import draw_all, eer, low_pass_scores, split_scores

from pvzoo.evaluation.baselines import CompCode, MaximumCurvature
from pvzoo.synth import Generator, SynthConfig

pytestmark = pytest.mark.slow
MATCHERS = {"palm": CompCode(), "vein": MaximumCurvature()}
K = (0.0, 0.5, 1.0, 1.5)


@pytest.fixture(scope="module")
def drawn() -> dict[float, tuple[dict[str, list[Any]], list[int]]]:
    """Of synthpalm-v1's seed: 40 hands, four images each."""
    return {k: draw_all(SynthConfig(seed=1, subjects=20, sessions=2, samples=2, k=k)) for k in K}


@pytest.mark.parametrize("modality", ["palm", "vein"])
@pytest.mark.parametrize("k", K)
def test_tone_and_background_say_nothing_about_identity(drawn: Any, modality: str, k: float) -> None:
    images, labels = drawn[k]
    assert 0.45 <= eer(*split_scores(low_pass_scores(images[modality]), labels)) <= 0.55


@pytest.mark.parametrize(("modality", "low", "high"), [("palm", 0.08, 0.20), ("vein", 0.03, 0.15)])
def test_difficulty_is_as_promised_and_grows_with_k(drawn: Any, modality: str, low: float, high: float) -> None:
    rates = []
    for k in (0.5, 1.0, 1.5):
        images, labels = drawn[k]
        templates = MATCHERS[modality].extract(images[modality])
        rates.append(eer(*split_scores(MATCHERS[modality].scores(templates, templates), labels)))
    assert low <= rates[1] <= high
    assert rates[0] < rates[1] - 0.02
    assert rates[1] < rates[2] - 0.02


def assert_no_duplicates(subjects: int) -> None:
    """Scores of images of different hands at k = 0, where duplicates would stand out most."""
    config = SynthConfig(seed=1, subjects=subjects, sessions=1, samples=1, k=0, size=112)
    generator = Generator(config)
    samples = [generator.sample(subject, hand, 1, 1) for subject, hand in config.identities()]
    again = Generator(SynthConfig(seed=1, subjects=subjects, sessions=1, samples=2, k=0, size=112))
    seconds = [again.sample(subject, "left", 1, 2) for subject in range(1, min(subjects, 50) + 1)]
    for modality, matcher in MATCHERS.items():
        first = matcher.extract([getattr(sample, modality) for sample in samples])
        second = matcher.extract([getattr(sample, modality) for sample in seconds])
        genuine = np.diag(matcher.scores(first[::2][: len(second)], second))
        blocks = [matcher.scores(first[start : start + 200], first[start:]) for start in range(0, len(first), 200)]
        impostor = np.concatenate([block[np.triu_indices_from(block, k=1)] for block in blocks])  # each pair once
        assert len(impostor) == len(first) * (len(first) - 1) // 2
        # A duplicate would score as a genuine pair does.
        assert impostor.max() < np.median(genuine) - 0.05, (modality, impostor.max(), np.sort(genuine)[:5])


def test_identities_differ() -> None:
    assert_no_duplicates(40)


def test_two_thousand_identities_differ() -> None:
    assert_no_duplicates(1000)
