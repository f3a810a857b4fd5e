"""From the samples that a protocol compares to trials over their embeddings."""

from __future__ import annotations

from torch import Tensor

from ..data import split
from .scores import Comparisons
from .trials import Population, all_pairs, gallery_probe, listed


def compared(embeddings: Tensor, part: split.Comparisons, *, cosine: bool = True) -> Comparisons:
    """The comparisons of dev or test.

    Args:
        embeddings: (N, D), one for each of ``part.samples``, in their order.
        part: Of a split.
        cosine: Whether the length of embeddings is left out.
    """
    samples = part.samples
    population = Population.of([pair.identity for pair in samples], [pair.subject for pair in samples])
    place = {pair: number for number, pair in enumerate(samples)}
    gallery, probes = ([place[pair] for pair in side] for side in (part.gallery, part.probes))
    if part.listed is not None:
        trials = listed((gallery[a], probes[b]) for a, b in part.listed)
        return Comparisons(embeddings, population, trials, cosine=cosine)
    grid = all_pairs(len(samples)) if part.symmetric else gallery_probe(gallery, probes)
    return Comparisons(embeddings, population, grid, cosine=cosine)
