"""Scores of embeddings or of score files, tile by tile, and how they are counted: the whole matrix is never in memory.

Two ways of counting give the same error rates. Small sets are sorted. Large ones go through a histogram of 65,536
bins; a second pass takes apart the bins in which an operating point lies, so that its threshold and rates are exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import EvaluationError, PvzooError
from ..progress import Advance, no_progress
from .metrics import FMR_TARGETS, Array, Moments, Tally, tally
from .trials import Grid, Population, Trials

BINS = 65_536
SORTED_LIMIT = 2**21  # comparisons that are sorted rather than binned
ROWS, COLUMNS = 2048, 1024  # of a tile of a score matrix; 8 MiB of float32
DIAGONAL = 256  # rows and columns of a tile on its diagonal, where half of the work is lost
LISTED = 8192  # pairs of a tile of listed pairs

Method = Literal["auto", "sorted", "histogram"]


@dataclass(frozen=True)
class Counts:
    """How much a figure rests on.

    Attributes:
        subjects: Persons; ``None`` if the scores do not say whose they are.
        identities: Hands; ``None`` likewise.
        genuine: Comparisons of one identity with itself.
        impostor: Comparisons of two identities.
    """

    subjects: int | None
    identities: int | None
    genuine: int
    impostor: int


@dataclass(frozen=True, eq=False)
class Tile:
    """Some scores. They are overwritten when the next tile is made.

    Attributes:
        scores: (R, C) of rows and columns, or (N,) one by one.
        first: Numbers of the row samples (R,), or (N,).
        second: Numbers of the column samples (C,), or (N,).
        genuine: Mask like the scores; ``None`` where rows and columns have no subject in common, so that all scores
            are impostor scores and count.
        impostor: Mask like the scores; a score that is neither does not count.
    """

    scores: Tensor
    first: Tensor
    second: Tensor
    genuine: Tensor | None = None
    impostor: Tensor | None = None

    def split(self) -> tuple[Tensor, Tensor]:
        """Genuine scores (G,) and impostor scores."""
        if self.genuine is None or self.impostor is None:
            return self.scores[:0].view(-1), self.scores
        return self.scores[self.genuine], self.scores[self.impostor]


class Source(Protocol):
    """Where scores come from: :class:`Comparisons` or a :class:`~pvzoo.evaluation.scorefile.ScoreSet`.

    Attributes:
        limits: No score is below the first or above the second.
        subjects: Number of persons that take part; 0 if unknown.
        first_subject: The person, from 0, of each sample that ``Tile.first`` counts; ``None`` if unknown.
        second_subject: The same of ``Tile.second``.
    """

    @property
    def limits(self) -> tuple[float, float]: ...
    @property
    def subjects(self) -> int: ...
    @property
    def first_subject(self) -> Tensor | None: ...
    @property
    def second_subject(self) -> Tensor | None: ...
    @property
    def counts(self) -> Counts: ...
    def tiles(self) -> Iterator[Tile]:
        """All scores, the same in the same tiles each time."""


def as_embeddings(values: Any, names: Sequence[object] | None = None) -> Tensor:
    """Embeddings as a tensor (N, D), checked; float32 unless they are float64.

    Args:
        values: A tensor or array (N, D), or one vector (D,) a sample.
        names: What the samples are called in errors; by their row if left out.

    Raises:
        EvaluationError: If there are none, they have different dimensions, or one of them holds NaN or infinities or
            has no direction; names the sample.
    """
    if not isinstance(values, (Tensor, np.ndarray)):
        rows = [torch.as_tensor(value) for value in values]
        for number, vector in enumerate(rows):
            if vector.shape != rows[0].shape:
                message = f"has shape {tuple(vector.shape)}, and row 0 has {tuple(rows[0].shape)}"
                raise EvaluationError(f"embeddings: row {number} {message}; all come from one model")
        values = torch.stack(rows) if rows else torch.empty(0, 1)
    embeddings = torch.as_tensor(values).detach()
    if embeddings.ndim != 2 or not embeddings.numel():
        raise EvaluationError(f"embeddings have shape {tuple(embeddings.shape)}; (N, D) of one or more is needed")
    if embeddings.dtype not in (torch.float32, torch.float64):
        embeddings = embeddings.float()
    norms = torch.linalg.vector_norm(embeddings, dim=1)
    bad = torch.nonzero(~torch.isfinite(norms) | (norms == 0))
    if len(bad):
        row = int(bad[0, 0])
        fault = "is all zeros, which has no direction" if norms[row] == 0 else "holds NaN or infinite values"
        who = f"row {row}" if names is None else f"that of {names[row]}"
        raise EvaluationError(f"embeddings: {who} {fault}")
    return embeddings


class Comparisons:
    """Scores of embeddings, computed when they are asked for: their cosine, or their dot product.

    Samples are sorted by subject and identity, so that genuine pairs lie in few tiles.

    Args:
        embeddings: (N, D), any length; see :func:`as_embeddings`.
        population: Whose they are.
        trials: Which are compared.
        cosine: Whether the length of embeddings is left out.

    Attributes:
        limits: Between which all scores lie.

    Raises:
        EvaluationError: If the embeddings cannot be used, do not fit the population, or give no genuine or no
            impostor comparison.
    """

    def __init__(self, embeddings: Any, population: Population, trials: Trials, *, cosine: bool = True) -> None:
        self.embeddings = as_embeddings(embeddings)
        self.population = population
        self.trials = trials
        sides = (trials.rows, trials.columns) if isinstance(trials, Grid) else (trials.first, trials.second)
        if len(self.embeddings) != len(population):
            raise EvaluationError(f"{len(self.embeddings)} embeddings and {len(population)} labels; one each is needed")
        both = torch.cat(sides)
        outside = both[(both < 0) | (both >= len(population))].tolist()
        if outside:
            raise EvaluationError(f"there is no sample {outside[0]}; the {len(population)} samples are numbered from 0")
        lengths = torch.linalg.vector_norm(self.embeddings, dim=1)
        self._scale = 1 / lengths if cosine else torch.ones_like(lengths)
        longest = 1.0 if cosine else float(lengths.max())
        self.limits = (-(longest**2), longest**2)
        self._people = torch.unique(population.subject[both])
        self._subject = torch.searchsorted(self._people, population.subject)
        self.counts = self._count(sides)
        for kind in ("genuine", "impostor"):
            if not getattr(self.counts, kind):
                shares = "two samples of one identity" if kind == "genuine" else "samples of two identities"
                raise EvaluationError(f"there is no {kind} comparison: no pair to compare has {shares}")

    @property
    def subjects(self) -> int:
        return len(self._people)

    @property
    def first_subject(self) -> Tensor:
        return self._subject

    second_subject = first_subject

    def _count(self, sides: tuple[Tensor, Tensor]) -> Counts:
        whose = [self.population.identity[side] for side in sides]
        if isinstance(self.trials, Grid):
            each, other = (torch.bincount(side, minlength=int(self.population.identity.max()) + 1) for side in whose)
            total, genuine = len(sides[0]) * len(sides[1]), int((each * other).sum())
            if self.trials.upper:
                total, genuine = (total - len(sides[0])) // 2, (genuine - len(sides[0])) // 2
        else:
            total, genuine = len(sides[0]), int((whose[0] == whose[1]).sum())
        return Counts(self.subjects, len(torch.unique(torch.cat(whose))), genuine, total - genuine)

    def _sorted(self, samples: Tensor) -> Tensor:
        """Samples by subject, then by identity."""
        by_identity = samples[torch.argsort(self.population.identity[samples], stable=True)]
        return by_identity[torch.argsort(self._subject[by_identity], stable=True)]

    def tiles(self) -> Iterator[Tile]:
        yield from self._grid(self.trials) if isinstance(self.trials, Grid) else self._list()

    def _grid(self, grid: Grid) -> Iterator[Tile]:
        rows, columns = self._sorted(grid.rows), self._sorted(grid.columns)
        buffer = self.embeddings.new_empty(ROWS * COLUMNS)

        def tile(left: Tensor, right: Tensor, first: Tensor, second: Tensor, diagonal: bool = False) -> Tile:
            scores = buffer[: len(first) * len(second)].view(len(first), len(second))
            torch.mm(left, right.T, out=scores)
            return self._tile(scores, first, second, diagonal)

        for start, end in self._spans(rows, ROWS):
            mine = rows[start:end]
            left = self._unit(mine)
            for low, high in self._spans(mine, DIAGONAL) if grid.upper else ():
                yield tile(left[low:high], left[low:high], mine[low:high], mine[low:high], diagonal=True)
                for edge in range(high, len(mine), COLUMNS):
                    beside = slice(edge, edge + COLUMNS)
                    yield tile(left[low:high], left[beside], mine[low:high], mine[beside])
            for edge in range(end if grid.upper else 0, len(columns), COLUMNS):
                others = columns[edge : edge + COLUMNS]
                yield tile(left, self._unit(others), mine, others)

    def _spans(self, rows: Tensor, longest: int) -> Iterator[tuple[int, int]]:
        """Cuts sorted rows into spans, at the end of a subject if one ends in the second half of the span."""
        people = self._subject[rows]
        ends = torch.nonzero(people[1:] != people[:-1]).view(-1) + 1
        start = 0
        while start < len(rows):
            end = min(start + longest, len(rows))
            nearest = int(torch.searchsorted(ends, end, right=True))
            if end < len(rows) and nearest and ends[nearest - 1] > start + longest // 2:
                end = int(ends[nearest - 1])
            yield start, end
            start = end

    def _tile(self, scores: Tensor, first: Tensor, second: Tensor, diagonal: bool) -> Tile:
        mine, others = self._subject[first], self._subject[second]
        if mine[-1] < others[0] or others[-1] < mine[0]:
            return Tile(scores, first, second)
        device = scores.device
        same = (self.population.identity[first][:, None] == self.population.identity[second]).to(device)
        counted = torch.ones_like(same)
        if diagonal:
            counted = counted.triu_(1)
        return Tile(scores, first, second, same & counted, ~same & counted)

    def _list(self) -> Iterator[Tile]:
        assert not isinstance(self.trials, Grid)
        order = torch.argsort(self._subject[self.trials.first], stable=True)
        for start in range(0, len(order), LISTED):
            picked = order[start : start + LISTED]
            first, second = self.trials.first[picked], self.trials.second[picked]
            scores = (self._unit(first) * self._unit(second)).sum(1)
            same = (self.population.identity[first] == self.population.identity[second]).to(scores.device)
            yield Tile(scores, first, second, same, ~same)

    def _unit(self, samples: Tensor) -> Tensor:
        """The embeddings of some samples, of unit length."""
        samples = samples.to(self.embeddings.device)
        return self.embeddings.index_select(0, samples).mul_(self._scale[samples][:, None])


@dataclass(frozen=True)
class Counted:
    """Scores as counted.

    Attributes:
        tally: All that error rates need.
        genuine: Mean and variance of the genuine scores.
        impostor: Of the impostor scores.
    """

    tally: Tally
    genuine: Moments
    impostor: Moments


def count_scores(
    source: Source,
    *,
    targets: Sequence[float] = FMR_TARGETS,
    thresholds: Sequence[float] = (),
    method: Method = "auto",
    refine: bool = True,
    advance: Advance = no_progress,
) -> Counted:
    """Counts all scores of a source.

    The histogram is exact at the EER, at ZeroFMR, at FMR ``targets`` and at ``thresholds``. Elsewhere it counts the
    scores of one bin as equal; for cosines a bin is 2 / 65,536 = 3.1e-5 wide.

    Args:
        source: The scores.
        targets: FMRs to be exact at.
        thresholds: Thresholds to be exact at.
        method: ``"sorted"`` takes memory for every score; ``"auto"`` sorts up to 2 million.
        refine: Whether to make the second pass. Without it, the exact EER lies between the ``low`` and ``high`` of
            the EER of the tally.
        advance: Called with the number of comparisons done in each pass.
    """
    total = source.counts.genuine + source.counts.impostor
    if method == "sorted" or (method == "auto" and total <= SORTED_LIMIT):
        return _sort(source, advance)
    bins = _Bins(*source.limits)
    sums = _Sums(), _Sums()
    histograms = torch.zeros(2, BINS, dtype=torch.int64)
    for tile in source.tiles():
        for scores, histogram, moments in zip(tile.split(), histograms, sums, strict=True):
            if scores.numel():
                moments.add(scores)
                histogram += torch.bincount(bins.of(scores).view(-1), minlength=BINS).cpu()
        advance(tile.scores.numel())
    coarse = _coarse(histograms.numpy(), bins)
    if refine:
        coarse = _refined(source, coarse, bins, _wanted(coarse, targets, bins, thresholds), advance)
    return Counted(coarse.tally(), sums[0].moments(), sums[1].moments())


def _sort(source: Source, advance: Advance) -> Counted:
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    sums = _Sums(), _Sums()
    for tile in source.tiles():
        for scores, kept, moments in zip(tile.split(), parts, sums, strict=True):
            if scores.numel():
                moments.add(scores)
                kept.append(scores.reshape(-1).to("cpu", copy=True))
        advance(tile.scores.numel())
    return Counted(tally(*(torch.cat(kept).numpy() for kept in parts)), sums[0].moments(), sums[1].moments())


class _Sums:
    """Sums for a mean and a variance; deviations from the first score, so that close scores keep their digits."""

    def __init__(self) -> None:
        self.count, self.total, self.squares, self.shift = 0, 0.0, 0.0, 0.0

    def add(self, scores: Tensor) -> None:
        if not self.count:
            self.shift = float(scores.view(-1)[0])
        away = scores - self.shift if scores.ndim == 2 else scores.double() - self.shift
        self.count += away.numel()
        self.total += float(away.sum(-1).double().sum())
        self.squares += float(away.square_().sum(-1).double().sum())

    def moments(self) -> Moments:
        mean = self.total / self.count
        return Moments(self.count, self.shift + mean, max(self.squares / self.count - mean**2, 0.0))


class _Bins:
    """Equal bins from ``low`` to ``high``, but none so narrow that rounding could reorder its edges."""

    def __init__(self, low: float, high: float) -> None:
        self.low = low
        finest = 8 * max(abs(low), abs(high)) * torch.finfo(torch.float64).eps
        self.width = max((high - low) / BINS, finest, 1e-300)

    def of(self, scores: Tensor) -> Tensor:
        """The bin of each score, int32. A higher score never has a lower bin."""
        return (scores - self.low).mul_(1 / self.width).to(torch.int32).clamp_(0, BINS - 1)


@dataclass(frozen=True, eq=False)
class _Binned:
    """Counts by bin, some of them taken apart: columns of one table, sorted by bin and threshold."""

    bin: Array
    threshold: Array
    genuine: Array
    impostor: Array
    exact: Array

    def tally(self) -> Tally:
        thresholds = self.threshold.copy()
        # An edge may be a rounding below the last score of a bin that was taken apart.
        for place in np.flatnonzero(np.diff(thresholds) <= 0) + 1:
            thresholds[place] = np.nextafter(thresholds[place - 1], np.inf)
        return Tally(thresholds, self.genuine, self.impostor, ~self.exact)


def _coarse(histograms: Array, bins: _Bins) -> _Binned:
    used = np.flatnonzero(histograms.any(0))
    genuine, impostor = histograms[:, used]
    return _Binned(used, bins.low + used * bins.width, genuine, impostor, np.zeros(len(used), bool))


def _wanted(coarse: _Binned, targets: Sequence[float], bins: _Bins, thresholds: Sequence[float]) -> Tensor:
    """The bins with an operating point in them (BINS,) bool."""
    counts = coarse.tally()
    crossings = [counts.false_matches * counts.n_genuine <= counts.false_non_matches * counts.n_impostor]
    crossings += [counts.fmr <= target for target in (0.0, *targets)]
    after = {int(np.argmax(crossed)) for crossed in crossings}
    for own in bins.of(torch.tensor(thresholds, dtype=torch.float64)).tolist():
        # Scores of another precision may have been rounded into the bin beside.
        first, last = np.searchsorted(coarse.bin, (own - 1, own + 2))
        after |= set(range(int(first), int(last) + 1))
    # The point lies in the bin before the crossing, or at the lowest score behind it.
    places = [place for point in after for place in (point - 1, point) if 0 <= place < len(coarse.bin)]
    wanted = torch.zeros(BINS, dtype=torch.bool)
    wanted[coarse.bin[places]] = True
    return wanted


def _refined(source: Source, coarse: _Binned, bins: _Bins, wanted: Tensor, advance: Advance) -> _Binned:
    """Takes the wanted bins apart in a second pass over the scores."""
    low = bins.low + (int(torch.nonzero(wanted)[0]) - 1) * bins.width
    found = _Distinct(), _Distinct()
    for tile in source.tiles():
        # Few scores are near, so the masks are read for those alone.
        flat = tile.scores.reshape(-1)
        near = torch.nonzero(flat >= low).view(-1)
        near = near[wanted.to(flat.device)[bins.of(flat[near]).long()]]
        for mask, distinct in zip((tile.genuine, tile.impostor), found, strict=True):
            if mask is not None:
                distinct.add(flat[near[mask.view(-1)[near]]])
            elif distinct is found[1]:
                distinct.add(flat[near])
        advance(tile.scores.numel())
    sets = [distinct.counts() for distinct in found]
    # An empty set has no type of its own, and bins depend on it.
    thresholds = np.unique(np.concatenate([values for values, _ in sets if len(values)]))
    columns = []
    for values, each in sets:
        column = np.zeros(len(thresholds), np.int64)
        column[np.searchsorted(thresholds, values)] = each
        columns.append(column)
    own = bins.of(torch.from_numpy(thresholds)).numpy()
    apart = wanted.numpy()[coarse.bin]
    for column, counted in zip(columns, (coarse.genuine, coarse.impostor), strict=True):
        if not np.array_equal(np.bincount(own, column, BINS)[coarse.bin[apart]], counted[apart]):
            raise PvzooError("the scores were not the same in both passes; they must not change while they are counted")
    keep = ~apart
    merged = [
        np.concatenate(pair)
        for pair in (
            (coarse.bin[keep], own),
            (coarse.threshold[keep], thresholds),
            (coarse.genuine[keep], columns[0]),
            (coarse.impostor[keep], columns[1]),
            (coarse.exact[keep], np.ones(len(own), bool)),
        )
    ]
    order = np.lexsort((merged[1], merged[0]))
    return _Binned(*(column[order] for column in merged))


class _Distinct:
    """Distinct values and how often each came; merged when the buffer is full, so that ties take no room."""

    def __init__(self) -> None:
        self._buffer = np.empty(0)
        self._used = 0
        self._values, self._each = np.empty(0), np.empty(0, np.int64)

    def add(self, scores: Tensor) -> None:
        values = scores.cpu().numpy()
        if not len(self._buffer):
            # One buffer for all tiles: small arrays kept from each would cut up the memory that the next tile wants.
            self._buffer = np.empty(2**20, values.dtype)
            self._values = self._buffer[:0]
        if self._used + len(values) > len(self._buffer):
            self._merge(self._buffer[: self._used])
            self._used = 0
        if len(values) > len(self._buffer):
            self._merge(values)
        else:
            self._buffer[self._used : self._used + len(values)] = values
            self._used += len(values)

    def _merge(self, values: Array) -> None:
        distinct, each = np.unique(values, return_counts=True)
        self._values, place = np.unique(np.concatenate([self._values, distinct]), return_inverse=True)
        self._each = np.bincount(place, np.concatenate([self._each, each])).astype(np.int64)

    def counts(self) -> tuple[Array, Array]:
        self._merge(self._buffer[: self._used])
        self._used = 0
        return self._values, self._each
