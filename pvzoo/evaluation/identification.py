"""Identification: every probe is searched for in a gallery of identities."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

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
        return _search_grid(source, source.trials)
    if isinstance(source, ScoreSet):
        return _search_set(source)
    raise EvaluationError("identification needs a gallery, and every probe compared with all of it")


def _ranked(best: Array, own: Array, subject: Array) -> Searches:
    """Ranks the own identity of each probe.

    Args:
        best: (P, I) best score of each identity of the gallery; changed.
        own: (P,) the column of the own identity, -1 if it is not there.
        subject: (P,) the probes' subjects.
    """
    rows = np.flatnonzero(own >= 0)
    mate = np.full(len(own), -np.inf, best.dtype)
    mate[rows] = best[rows, own[rows]]
    best[rows, own[rows]] = -np.inf
    rank = np.where(own >= 0, 1 + (best >= mate[:, None]).sum(1), 0)
    return Searches(rank, mate, best.max(1), subject, best.shape[1])


def _search_grid(source: Comparisons, grid: Grid) -> Searches:
    identity = source.population.identity
    gallery = torch.unique(identity[grid.columns])
    found: list[Searches] = []
    for first, tiles in groupby(source.tiles(), key=lambda tile: tile.first.tolist()):
        best = source.embeddings.new_full((len(first), len(gallery)), -torch.inf)
        for tile in tiles:
            column = torch.searchsorted(gallery, identity[tile.second]).to(best.device)
            best.scatter_reduce_(1, column.expand(tile.scores.shape), tile.scores, "amax")
        mine = identity[first]
        own = torch.searchsorted(gallery, mine).clamp_(max=len(gallery) - 1)
        own[gallery[own] != mine] = -1
        found.append(_ranked(best.cpu().numpy(), own.numpy(), source.first_subject[first].numpy()))
    names = ("rank", "mate", "other", "subject")
    columns = {name: np.concatenate([getattr(each, name) for each in found]) for name in names}
    return Searches(**columns, identities=len(gallery))


def _search_set(scores: ScoreSet) -> Searches:
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
    return _ranked(best, np.where(gallery[own] == identity, own, -1), who.subject[identity])
