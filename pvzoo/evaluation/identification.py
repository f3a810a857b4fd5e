"""Identification: every probe is searched for in a gallery of identities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..errors import EvaluationError
from .metrics import Array
from .scorefile import ScoreSet
from .scores import Comparisons, Source
from .trials import Grid


@dataclass(frozen=True, eq=False)
class Searches:
    """What P searches found. An identity scores as its best sample does.

    Attributes:
        rank: (P,) rank of the probe's own identity, from 1, with ties against it; 0 without a mate in the gallery.
        mate: (P,) score of the own identity; -inf without a mate.
        other: (P,) best score of any other identity; -inf if there is none.
        subject: (P,) the probe's subject, as the source numbers it.
        identities: How many identities the gallery has.
    """

    rank: Array
    mate: Array
    other: Array
    subject: Array
    identities: int

    @property
    def mated(self) -> Array:
        """(P,) whether the probe's identity is in the gallery."""
        return self.rank > 0

    def open_set(self, weights: Array | None = None) -> tuple[Array, Array]:
        """The two score sets that FNIR at FPIR is read from; see :func:`pvzoo.evaluation.metrics.fnir_at_fpir`.

        Args:
            weights: How often each subject was drawn, in a fold.
        """
        times = np.ones(len(self.rank), np.int64) if weights is None else weights[self.subject].astype(np.int64)
        first = np.where(self.rank == 1, self.mate, -np.inf)
        return np.repeat(first[self.mated], times[self.mated]), np.repeat(self.other[~self.mated], times[~self.mated])


def search(source: Source) -> Searches:
    """Searches every probe in the gallery.

    Raises:
        EvaluationError: If the source is not one of probes against a gallery, each with each.
    """
    if isinstance(source, Comparisons) and isinstance(source.trials, Grid) and not source.trials.upper:
        best, own, subject = _best_of_grid(source)
    elif isinstance(source, ScoreSet):
        best, own, subject = _best_of_set(source)
    else:
        raise EvaluationError("identification needs a gallery, and every probe compared with all of it")
    rows = np.arange(len(own))
    mated = own >= 0
    mate = np.where(mated, best[rows, own], -np.inf)
    best[rows[mated], own[mated]] = -np.inf
    rank = np.where(mated, 1 + (best >= mate[:, None]).sum(1), 0)
    return Searches(rank, mate, best.max(1), subject, best.shape[1])


def _best_of_grid(source: Comparisons) -> tuple[Array, Array, Array]:
    """Best score of each identity of the gallery (P, I), and the probes' own (P,), -1 if it is not there."""
    identity = source.population.identity
    gallery = torch.unique(identity[source.trials.columns])  # type: ignore[union-attr]
    probes: list[torch.Tensor] = []
    rows: list[torch.Tensor] = []
    for tile in source.tiles():
        if not probes or not torch.equal(probes[-1], tile.first):
            probes.append(tile.first)
            rows.append(tile.scores.new_full((len(tile.first), len(gallery)), -torch.inf))
        place = torch.searchsorted(gallery, identity[tile.second]).to(tile.scores.device)
        rows[-1].scatter_reduce_(1, place.expand(tile.scores.shape), tile.scores, "amax")
    first = torch.cat(probes)
    own = torch.searchsorted(gallery, identity[first])
    found = gallery[own.clamp(max=len(gallery) - 1)] == identity[first]
    best = torch.cat(rows).cpu().numpy()
    return best, torch.where(found, own, -1).numpy(), source.first_subject[first].numpy()


def _best_of_set(scores: ScoreSet) -> tuple[Array, Array, Array]:
    who = scores.who
    if who is None:
        raise EvaluationError("the scores do not say whose they are")
    probes, place = np.unique(who.probe.sample, return_inverse=True)
    references = np.unique(who.reference.sample)
    if len(scores.scores) != len(probes) * len(references):
        message = f"{len(probes)} probes and {len(references)} references have {len(scores.scores)} scores"
        raise EvaluationError(f"identification needs every probe compared with every reference; {message}")
    gallery, column = np.unique(who.reference.identity[who.reference.sample], return_inverse=True)
    best = np.full((len(probes), len(gallery)), -np.inf)
    np.maximum.at(best, (place, column), scores.scores)
    identity = who.probe.identity[probes]
    own = np.searchsorted(gallery, identity).clip(max=len(gallery) - 1)
    return best, np.where(gallery[own] == identity, own, -1), who.subject[identity]
