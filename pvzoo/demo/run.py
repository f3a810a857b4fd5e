"""Draws people, enrols each with one sample, and compares samples of another day with all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch.nn.functional as F

from .. import __version__
from ..data.reading import SynthReader, synth_table
from ..data.table import Pair
from ..errors import InputError
from ..evaluation.metrics import Array
from ..evaluation.models import embed_part
from ..evaluation.results import Evaluation, evaluate
from ..evaluation.scores import Comparisons
from ..evaluation.trials import Population, gallery_probe
from ..model import Model
from ..progress import Track, silent
from ..synth import RELEASES, SynthConfig
from ..threshold import Threshold

SAMPLES = 2  # of each person on the second day


@dataclass(frozen=True, eq=False)
class Demo:
    """What came out, for N people and P probes.

    Attributes:
        model: What it is called.
        seed: Of the people.
        threshold: By which scores were decided.
        enrolled: (N) samples, one a person.
        probes: (P) samples of another day.
        scores: (P, N), how alike each probe is to each enrolled sample.
        result: The same comparisons as an evaluation, for its figures.
        reader: Where the pixels come from.
        weights: Which weights the model has: the file, and its digest.
    """

    model: str
    seed: int
    threshold: Threshold
    enrolled: tuple[Pair, ...]
    probes: tuple[Pair, ...]
    scores: Array
    result: Evaluation
    reader: SynthReader
    weights: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def own(self) -> Array:
        """(P,) the column of the probe's own person."""
        people = [pair.identity for pair in self.enrolled]
        return np.array([people.index(pair.identity) for pair in self.probes])

    @cached_property
    def accepted(self) -> Array:
        """(P, N) whether each probe is verified as each person."""
        return np.asarray(self.scores >= self.threshold.value)

    @cached_property
    def outcomes(self) -> tuple[Outcome, ...]:
        """One a probe."""
        found = []
        for row, own in enumerate(self.own):
            others = self.scores[row].copy()
            others[own] = -np.inf
            other, best = int(others.argmax()), int(self.scores[row].argmax())
            found.append(
                Outcome(
                    f"{person(self.probes[row])}, sample {self.probes[row].sample}",
                    float(self.scores[row, own]),
                    bool(self.accepted[row, own]),
                    person(self.enrolled[other]),
                    float(others[other]),
                    bool(self.accepted[row, other]),
                    person(self.enrolled[best]) if self.accepted[row, best] else "nobody",
                    bool(best == own and self.accepted[row, best]),
                )
            )
        return tuple(found)

    @property
    def summary(self) -> str:
        """One sentence: what was right and what was wrong."""
        mine = np.zeros_like(self.accepted)
        mine[np.arange(len(self.own)), self.own] = True
        right, wrong = int(self.accepted[mine].sum()), int(self.accepted[~mine].sum())
        named = sum(outcome.right for outcome in self.outcomes)
        text = f"{right} of {mine.sum()} true claims accepted, {wrong} of {(~mine).sum()} false claims accepted"
        return f"{text}, {named} of {len(self.probes)} identified among {len(self.enrolled)}"

    def to_json(self) -> dict[str, Any]:
        """The content of ``demo.json``."""
        return {
            "model": self.model,
            **self.weights,
            "seed": self.seed,
            "threshold": self.threshold.model_dump(),
            "enrolled": [person(pair) for pair in self.enrolled],
            "probes": [vars(outcome) for outcome in self.outcomes],
            "scores": self.scores.tolist(),
            "summary": self.summary,
            "pvzoo": __version__,
        }


@dataclass(frozen=True)
class Outcome:
    """What became of a probe.

    Attributes:
        probe: Who it is, and which sample.
        score: With its own person.
        verified: Whether that reaches the threshold.
        other: The person, not its own, that it is most like.
        other_score: How much.
        confused: Whether that reaches the threshold.
        identified: Whom a search among all finds.
        right: Whether that is who it is.
    """

    probe: str
    score: float
    verified: bool
    other: str
    other_score: float
    confused: bool
    identified: str
    right: bool


def person(pair: Pair) -> str:
    """What a person is called."""
    return f"person {pair.subject}"


def run_demo(model: Model, name: str, *, seed: int, identities: int, fmr: float, track: Track = silent) -> Demo:
    """Enrols, verifies and identifies.

    Args:
        model: In eval mode, with a threshold for the FMR.
        name: What it is called.
        seed: Of the people.
        identities: How many.
        fmr: Target of the threshold.
        track: Shows progress.

    Raises:
        InputError: If the seed is that of a release, or there are fewer than two people.
        EvaluationError: If the model has no such threshold.
        DataError: If it takes other images than palm and vein.
        MissingExtraError: If OpenCV is not installed.
    """
    config = people(seed, identities)
    threshold = model.threshold(fmr)
    reader = SynthReader(config)
    pairs = [pair for pair in synth_table(config).pairs() if pair.hand == "right"]
    enrolled = tuple(pair for pair in pairs if (pair.session, pair.sample) == (1, 1))
    probes = tuple(pair for pair in pairs if pair.session == 2)
    samples = [*enrolled, *probes]
    with track("drawing and embedding", len(samples)) as advance:
        embeddings = embed_part(model, samples, reader, batch_size=4, advance=advance).embeddings
    population = Population.of([pair.identity for pair in samples])
    first = len(enrolled)
    trials = gallery_probe(range(first), range(first, len(samples)))
    result = evaluate(Comparisons(embeddings, population, trials), dev=[threshold], folds=0)
    unit = F.normalize(embeddings)
    scores = (unit[first:] @ unit[:first].T).numpy()
    return Demo(name, seed, threshold, enrolled, probes, scores, result, reader)


def people(seed: int, identities: int) -> SynthConfig:
    """Who is drawn: as in synthpalm-v1, with another seed.

    Raises:
        InputError: If the seed is that of a release, or there are fewer than two people.
    """
    for name, release in RELEASES.items():
        if release.seed == seed:
            message = f"seed {seed} is that of {name}, whose people models are trained or tested on"
            raise InputError(f"{message}; the demo is of people that no model has seen: choose another")
    if identities < 2:
        raise InputError(f"{identities} identities: to tell people apart there have to be two or more")
    return replace(RELEASES["synthpalm-v1"], seed=seed, subjects=identities, samples=SAMPLES)
