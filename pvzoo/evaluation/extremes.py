"""The comparisons that went most wrong: genuine pairs with the lowest scores, impostor pairs with the highest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..progress import Advance, no_progress
from .scorefile import ScoreSet
from .scores import Source, Tile


@dataclass(frozen=True)
class Scored:
    """One comparison.

    Attributes:
        score: Its score.
        first: Number of the one sample, as ``Tile.first`` has it.
        second: Of the other.
    """

    score: float
    first: int
    second: int


@dataclass(frozen=True)
class Extremes:
    """Comparisons at the wrong end.

    Attributes:
        genuine: Of one identity, the lowest score first.
        impostor: Of two identities, the highest score first.
    """

    genuine: tuple[Scored, ...]
    impostor: tuple[Scored, ...]


def extremes(source: Source, count: int = 6, *, advance: Advance = no_progress) -> Extremes:
    """Finds them in one pass, tile by tile; of equal scores, those that come first are kept.

    Args:
        source: The scores; of a source that does not say whose they are, there is nothing to find.
        count: How many of each kind, at most.
        advance: Called with the number of comparisons done.
    """
    if source.first_subject is None:
        return Extremes((), ())
    worst, closest = _Best(count, -1), _Best(count, 1)
    for tile in source.tiles():
        if tile.genuine is not None:
            worst.look(tile, tile.genuine)
        closest.look(tile, tile.impostor)
        advance(tile.scores.numel())
    return Extremes(worst.found(), closest.found())


class _Best:
    """The few scores that are highest, or lowest with ``sign`` -1."""

    def __init__(self, count: int, sign: int) -> None:
        self._count = count
        self._sign = sign
        self._kept: list[Scored] = []  # by sign * score
        self._bound = -torch.inf

    def look(self, tile: Tile, mask: Tensor | None) -> None:
        scores = tile.scores.reshape(-1)
        # After the first tiles hardly a score passes, and the mask is read for those alone.
        passes = scores > self._bound if self._sign > 0 else scores < -self._bound
        places = torch.nonzero(passes).view(-1)
        if mask is not None:
            places = places[mask.reshape(-1)[places]]
        if not len(places):
            return
        values = self._sign * scores[places]
        kept = torch.topk(values, min(self._count, len(values)))
        places = places[kept.indices].cpu()
        first, second = places, places
        if tile.scores.ndim == 2:
            first, second = places // tile.scores.shape[1], places % tile.scores.shape[1]
        found = zip(kept.values.tolist(), tile.first[first].tolist(), tile.second[second].tolist(), strict=True)
        self._kept += [Scored(score, a, b) for score, a, b in found]
        self._kept = sorted(self._kept, key=lambda pair: -pair.score)[: self._count]
        if len(self._kept) == self._count:
            self._bound = self._kept[-1].score

    def found(self) -> tuple[Scored, ...]:
        return tuple(Scored(self._sign * pair.score, pair.first, pair.second) for pair in self._kept)


@dataclass(frozen=True)
class Sample:
    """A sample as reports show it.

    Attributes:
        name: What it is called.
        pictures: JPEG files by modality; empty where images are not at hand.
    """

    name: str
    pictures: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Shown:
    """One comparison as reports show it."""

    score: float
    first: Sample
    second: Sample


@dataclass(frozen=True)
class Worst:
    """Extremes as reports show them.

    Attributes:
        genuine: Of one identity, the lowest score first.
        impostor: Of two identities, the highest score first.
    """

    genuine: tuple[Shown, ...] = ()
    impostor: tuple[Shown, ...] = ()


def shown(found: Extremes, first: Callable[[int], Sample], second: Callable[[int], Sample]) -> Worst:
    """Names the samples of extremes.

    Args:
        found: The comparisons.
        first: From the number of a first sample to what is shown of it.
        second: The same of a second sample.
    """

    def each(pairs: tuple[Scored, ...]) -> tuple[Shown, ...]:
        return tuple(Shown(pair.score, first(pair.first), second(pair.second)) for pair in pairs)

    return Worst(each(found.genuine), each(found.impostor))


def worst_of(scores: ScoreSet) -> Worst:
    """The comparisons of a file that went most wrong, by name; none if it does not say who was compared."""
    if scores.who is None:
        return Worst()
    probes, references = scores.who.probe.names, scores.who.reference.names
    return shown(extremes(scores), lambda number: Sample(probes[number]), lambda number: Sample(references[number]))
