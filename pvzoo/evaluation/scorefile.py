"""Scores in files: pvzoo's CSV, CCNet's ``score label`` lines, bob's four and five columns. Any matcher's can be read.

| format | a line |
| --- | --- |
| ``csv`` | ``score,genuine``, or ``score,probe,reference,probe_identity,reference_identity``; any order; a header |
| ``ccnet`` | ``score label``: label 1 is genuine, -1 impostor |
| ``bob4`` | ``claimed_identity real_identity probe score``; ``#`` starts a comment |
| ``bob5`` | ``claimed_identity reference real_identity probe score`` |
"""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import EvaluationError, did_you_mean
from ..progress import Advance, no_progress
from ..tensorfile import replacing
from .metrics import Array
from .scores import Comparisons, Counts, Tile

Format = Literal["csv", "ccnet", "bob4", "bob5"]
CHUNK = 2**20  # scores of a tile
LARGEST = 1e100  # beyond, sums of squares overflow

_GENUINE = {"1": True, "true": True, "0": False, "false": False}
_WHO = ("probe", "reference", "probe_identity", "reference_identity")
_PEOPLE = ("probe_subject", "reference_subject")
_COLUMNS = {2: "ccnet", 4: "bob4", 5: "bob5"}


@dataclass(frozen=True, eq=False)
class Side:
    """The probes, or the references, of N scores. Samples are numbered from 0.

    Attributes:
        sample: (N,) the sample that each score is of.
        names: (P,) names of the samples.
        identity: (P,) number of the identity of each sample.
    """

    sample: Array
    names: tuple[str, ...]
    identity: Array


@dataclass(frozen=True, eq=False)
class Who:
    """Whose samples were compared. Identities and subjects are numbered from 0.

    Attributes:
        probe: The samples that were compared,
        reference: and those that they were compared with.
        shared: Whether a name is the same sample on both sides.
        identities: (I,) their labels.
        subject: (I,) number of the subject of each identity.
        subjects: (S,) their labels.
    """

    probe: Side
    reference: Side
    shared: bool
    identities: tuple[str, ...]
    subject: Array
    subjects: tuple[str, ...]

    def people(self, side: Side) -> Array:
        """(P,) subjects of the samples of a side."""
        return np.asarray(self.subject[side.identity])


@dataclass(frozen=True, eq=False)
class ScoreSet:
    """Scores that were computed elsewhere: a source like :class:`~pvzoo.evaluation.scores.Comparisons`.

    Attributes:
        scores: (N,) float64; higher is more alike.
        genuine: (N,) whether both samples are of one identity.
        who: Whose they are; ``None`` if that is not known.
    """

    scores: Array
    genuine: Array
    who: Who | None = None

    def __post_init__(self) -> None:
        bad = np.flatnonzero(~(np.abs(self.scores) <= LARGEST))
        if len(bad):
            raise EvaluationError(f"score {bad[0]} is {self.scores[bad[0]]}, not a number that can be counted")
        for kind, count in (("genuine", self.counts.genuine), ("impostor", self.counts.impostor)):
            if not count:
                message = f"there is no {kind} comparison among {len(self.scores):,} scores"
                raise EvaluationError(f"{message}; error rates need both classes")

    @cached_property
    def counts(self) -> Counts:
        genuine = int(self.genuine.sum())
        impostor = len(self.genuine) - genuine
        if self.who is None:
            return Counts(None, None, genuine, impostor)
        return Counts(len(self.who.subjects), len(self.who.identities), genuine, impostor)

    @cached_property
    def limits(self) -> tuple[float, float]:
        return float(self.scores.min()), float(self.scores.max())

    @property
    def subjects(self) -> int:
        return self.counts.subjects or 0

    @cached_property
    def first_subject(self) -> Tensor | None:
        return None if self.who is None else torch.from_numpy(self.who.people(self.who.probe))

    @cached_property
    def second_subject(self) -> Tensor | None:
        return None if self.who is None else torch.from_numpy(self.who.people(self.who.reference))

    @cached_property
    def _order(self) -> Array:
        """Scores of one subject's probes together."""
        if self.who is None:
            return np.arange(len(self.scores))
        return np.argsort(self.who.people(self.who.probe)[self.who.probe.sample], kind="stable")

    def tiles(self) -> Iterator[Tile]:
        for start in range(0, len(self.scores), CHUNK):
            picked = self._order[start : start + CHUNK]
            scores, genuine = torch.from_numpy(self.scores[picked]), torch.from_numpy(self.genuine[picked])
            first = second = torch.empty(0, dtype=torch.int64)
            if self.who is not None:
                sides = (self.who.probe, self.who.reference)
                first, second = (torch.from_numpy(side.sample[picked]).long() for side in sides)
            yield Tile(scores, first, second, genuine, ~genuine)


class _Row(NamedTuple):
    """One line as it stands."""

    line: int
    score: str
    genuine: bool | None
    names: tuple[str, ...] = ()  # as _WHO, then perhaps as _PEOPLE


def read_scores(path: Path, *, distances: bool = False, advance: Advance = no_progress) -> ScoreSet:
    """Reads a score file; its format is seen from its first line.

    Args:
        path: The file.
        distances: Whether lower is more alike, as in the files that CCNet writes; such scores are negated.
        advance: Called with the number of bytes read.

    Raises:
        EvaluationError: If the file cannot be read, or a line is wrong; names the file and the line.
    """
    try:
        with path.open("rb") as raw, io.TextIOWrapper(raw, newline="", encoding="utf-8-sig") as file:
            number, first = next(((n, text) for n, text in enumerate(file, 1) if not _skipped(text)), (0, ""))
            shared = "," in first
            rows = (_csv_rows if shared else _plain_rows)(chain([first] if first else [], file), number - 1)
            collector = _Collector(shared)
            told = 0
            for count, row in enumerate(rows, 1):
                collector.add(row, -1 if distances else 1)
                if not count % 8192:
                    advance(raw.tell() - told)
                    told = raw.tell()
            advance(raw.tell() - told)
        return collector.score_set()
    except EvaluationError as error:
        raise EvaluationError(f"{path}: {error}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise EvaluationError(f"{path}: not a text file of scores: {error}") from error
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read: {error.strerror or error}") from error


def _skipped(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _csv_rows(lines: Iterator[str], before: int) -> Iterator[_Row]:
    reader = csv.reader(lines)
    header = [column.strip() for column in next(reader)]
    place = {column: header.index(column) for column in dict.fromkeys(header)}
    named = any(column in place for column in _WHO)
    wanted = ("score", *(_WHO if named else ("genuine",)))
    for column in wanted:
        if column not in place:
            hint = did_you_mean(column, header) or f"; it has {', '.join(header)}"
            raise EvaluationError(f"there is no column {column!r}{hint}")
    columns = [place[column] for column in (*_WHO, *_PEOPLE) if named and column in place]
    if named and sum(column in place for column in _PEOPLE) == 1:
        raise EvaluationError(f"{' and '.join(_PEOPLE)} go together, and one of them is missing")
    score, genuine = place["score"], place.get("genuine")
    for row in reader:
        line = before + reader.line_num
        if len(row) != len(header):
            if not row:
                continue
            raise EvaluationError(f"line {line}: {len(row)} columns, and the header has {len(header)}")
        label = None
        if genuine is not None:
            label = _GENUINE.get(row[genuine].strip().lower())
            if label is None:
                raise EvaluationError(f"line {line}: genuine must be 1 or 0, not {row[genuine]!r}")
        yield _Row(line, row[score], label, tuple(row[column].strip() for column in columns))


def _plain_rows(lines: Iterator[str], before: int) -> Iterator[_Row]:
    width = 0
    for line, text in enumerate(lines, before + 1):
        if _skipped(text):
            continue
        parts = text.split()
        if len(parts) != width:
            if width or len(parts) not in _COLUMNS:
                known = "a score file has 2 (CCNet), 4 or 5 (bob), or commas"
                known = f"the lines before have {width}" if width else known
                raise EvaluationError(f"line {line}: {len(parts)} columns; {known}")
            width = len(parts)
        if width == 2:
            if _number(parts[1]) not in (1.0, -1.0):
                raise EvaluationError(f"line {line}: the label must be 1 or -1, not {parts[1]!r}")
            yield _Row(line, parts[0], _number(parts[1]) == 1)
        elif width == 4:
            claimed, real, probe, score = parts
            yield _Row(line, score, None, (probe, claimed, real, claimed))
        else:
            claimed, reference, real, probe, score = parts
            yield _Row(line, score, None, (probe, reference, real, claimed))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


class _Names:
    """Numbers the samples of one side, or of both, and holds each to its identity."""

    def __init__(self) -> None:
        self.number: dict[str, int] = {}
        self.identity = array("q")
        self.line = array("q")

    def find(self, name: str, identity: int, line: int) -> int:
        """The number of a sample; new names get the next one."""
        number = self.number.setdefault(name, len(self.number))
        if number == len(self.identity):
            self.identity.append(identity)
            self.line.append(line)
        elif self.identity[number] != identity:
            raise EvaluationError(f"line {line}: the identity of {name!r} was another in line {self.line[number]}")
        return number


class _Collector:
    """Gathers the rows of a file.

    Args:
        shared: Whether a name is the same sample in both columns.
    """

    def __init__(self, shared: bool) -> None:
        self.scores, self.genuine, self.lines = array("d"), array("b"), array("q")
        self.shared = shared
        self.samples = (array("q"), array("q"))
        probes = _Names()
        self.names = (probes, probes if shared else _Names())
        self.identities: dict[str, int] = {}
        self.subjects: dict[str, int] = {}
        self.subject = array("q")

    def add(self, row: _Row, sign: int) -> None:
        value = _number(row.score)
        if not abs(value) <= LARGEST:
            text = row.score.strip()
            fault = f"is {text!r}; a finite number is needed" if text else "is missing"
            raise EvaluationError(f"line {row.line}: the score {fault}")
        genuine = row.genuine
        if row.names:
            same = self._add_names(row)
            if genuine not in (None, same):
                says, whose = ("genuine" if genuine else "impostor"), f"{row.names[2]!r} and {row.names[3]!r}"
                raise EvaluationError(f"line {row.line}: says {says}, and the identities are {whose}")
            genuine = same
        assert genuine is not None
        self.scores.append(sign * value)
        self.genuine.append(genuine)
        self.lines.append(row.line)

    def _add_names(self, row: _Row) -> bool:
        """Notes who was compared; returns whether they are of one identity."""
        if not all(row.names):
            raise EvaluationError(f"line {row.line}: {(*_WHO, *_PEOPLE)[row.names.index('')]} is missing")
        labels = row.names[2:4]
        for side in (0, 1):
            identity = self.identities.setdefault(labels[side], len(self.identities))
            person = row.names[4 + side] if len(row.names) > 4 else labels[side]
            subject = self.subjects.setdefault(person, len(self.subjects))
            if identity == len(self.subject):
                self.subject.append(subject)
            elif self.subject[identity] != subject:
                message = f"identity {labels[side]!r} is of subject {person!r}, and was of another before"
                raise EvaluationError(f"line {row.line}: {message}")
            self.samples[side].append(self.names[side].find(row.names[side], identity, row.line))
        return labels[0] == labels[1]

    def score_set(self) -> ScoreSet:
        """What was gathered, checked as a whole."""
        if not self.scores:
            raise EvaluationError("there are no scores in it")
        who = None
        if self.identities:
            sides = [
                Side(_array(samples), tuple(names.number), _array(names.identity))
                for samples, names in zip(self.samples, self.names, strict=True)
            ]
            people = (tuple(self.identities), _array(self.subject), tuple(self.subjects))
            who = Who(sides[0], sides[1], self.shared, *people)
            _check_pairs(who, self.lines)
        return ScoreSet(np.frombuffer(self.scores), np.frombuffer(self.genuine, np.int8).astype(bool), who)


def _array(numbers: array[int]) -> Array:
    return np.frombuffer(numbers, np.int64)


def _check_pairs(who: Who, lines: Sequence[int]) -> None:
    """Refuses pairs that are there twice, and samples compared with themselves."""
    first, second = who.probe.sample, who.reference.sample
    if who.shared:
        itself = np.flatnonzero(first == second)
        if len(itself):
            name = who.probe.names[first[itself[0]]]
            raise EvaluationError(f"line {lines[itself[0]]}: {name!r} is compared with itself")
        first, second = np.minimum(first, second), np.maximum(first, second)
    pairs = first * len(who.reference.names) + second
    order = np.argsort(pairs, kind="stable")
    again = np.flatnonzero(np.diff(pairs[order]) == 0)
    if len(again):
        at = again[np.argmin(order[again + 1])]
        earlier, row = order[at], order[at + 1]
        names = (side.names[side.sample[row]] for side in (who.probe, who.reference))
        message = f"{' and '.join(map(repr, names))} were compared in line {lines[earlier]} already"
        if not who.shared:
            message += "; if the identity has several references, five columns tell them apart"
        raise EvaluationError(f"line {lines[row]}: {message}")


def score_set(source: Comparisons, names: Sequence[str], advance: Advance = no_progress) -> ScoreSet:
    """All scores of comparisons at once, to be written to a file; takes memory for each.

    Args:
        source: Comparisons of embeddings.
        names: Names of its samples.
        advance: Called with the number of comparisons done.
    """
    columns: tuple[list[Array], ...] = ([], [], [], [])
    for tile in source.tiles():
        first, second = tile.first, tile.second
        if tile.scores.ndim == 2:
            first, second = first[:, None].expand(tile.scores.shape), second.expand(tile.scores.shape)
        genuine = torch.zeros_like(tile.scores, dtype=torch.bool) if tile.genuine is None else tile.genuine
        counted = torch.ones_like(genuine) if tile.impostor is None else genuine | tile.impostor
        for column, values in zip(columns, (tile.scores.double(), genuine, first, second), strict=True):
            column.append(values.cpu()[counted.cpu()].numpy())
        advance(tile.scores.numel())
    scores, genuine, probe, reference = (np.concatenate(column) for column in columns)  # type: ignore[assignment]
    people = source.population
    identity = people.identity.numpy()
    subject = np.zeros(len(people.identities), np.int64)
    subject[identity] = people.subject.numpy()
    sides = [Side(sample, tuple(map(str, names)), identity) for sample in (probe, reference)]
    return ScoreSet(scores, genuine, Who(sides[0], sides[1], True, people.identities, subject, people.subjects))  # type: ignore[arg-type]


def write_scores(path: Path, scores: ScoreSet, format: Format) -> None:
    """Writes a score file; it appears whole or not at all.

    Args:
        path: The file.
        scores: Higher is more alike. CCNet's own files hold distances; its tools see the direction from the means.
        format: ``bob4`` and ``bob5`` need to know who was compared, and names without white space.

    Raises:
        EvaluationError: If the format cannot hold the scores, or the file cannot be written.
    """
    lines = _WRITERS[format](path, scores)
    try:
        with replacing(path) as new, new.open("w", newline="", encoding="utf-8") as file:
            if format == "csv":
                csv.writer(file, lineterminator="\n").writerows(lines)
            else:
                file.writelines(f"{' '.join(map(str, line))}\n" for line in lines)
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be written: {error.strerror or error}") from error


def _names(who: Who) -> Iterator[tuple[str, str, int, int]]:
    """Probe, reference, and the numbers of their identities, line by line."""
    for probe, reference in zip(who.probe.sample.tolist(), who.reference.sample.tolist(), strict=True):
        mine, other = int(who.probe.identity[probe]), int(who.reference.identity[reference])
        yield who.probe.names[probe], who.reference.names[reference], mine, other


def _csv_lines(path: Path, scores: ScoreSet) -> Iterator[tuple[object, ...]]:
    who = scores.who
    if who is None:
        yield "score", "genuine"
        yield from zip(scores.scores.tolist(), scores.genuine.astype(int).tolist(), strict=True)
        return
    told = who.subjects != who.identities  # else each identity is taken for a subject anyway
    yield ("score", *_WHO, *_PEOPLE * told)
    for score, (probe, reference, *whose) in zip(scores.scores.tolist(), _names(who), strict=True):
        people = (who.subjects[who.subject[identity]] for identity in whose * told)
        yield (score, probe, reference, *(who.identities[identity] for identity in whose), *people)


def _ccnet_lines(path: Path, scores: ScoreSet) -> Iterator[tuple[object, ...]]:
    labels = np.where(scores.genuine, 1, -1).tolist()
    return zip(scores.scores.tolist(), labels, strict=True)


def _bob_lines(path: Path, scores: ScoreSet, *, five: bool) -> Iterator[tuple[object, ...]]:
    who = scores.who
    if who is None:
        raise EvaluationError(f"{path}: bob's files say who was compared, and these scores do not")
    names = (*who.identities, *who.probe.names, *who.reference.names * five)
    bad = next((name for name in names if len(name.split()) != 1 or name.startswith("#")), None)
    if bad is not None:
        message = f"{bad!r} has white space or starts with '#'"
        raise EvaluationError(f"{path}: bob's files separate columns by white space and know comments; {message}")
    if not five:
        pairs = np.unique([who.probe.sample, who.reference.identity[who.reference.sample]], axis=1)
        if pairs.shape[1] != len(who.probe.sample):
            raise EvaluationError(
                f"{path}: an identity has several references, and four columns cannot tell; write bob5"
            )
    return _bob_columns(who, scores.scores.tolist(), five)


def _bob_columns(who: Who, scores: list[float], five: bool) -> Iterator[tuple[object, ...]]:
    for score, (probe, reference, mine, other) in zip(scores, _names(who), strict=True):
        yield (who.identities[other], *(reference,) * five, who.identities[mine], probe, score)


_WRITERS: dict[Format, Callable[[Path, ScoreSet], Iterator[tuple[object, ...]]]] = {
    "csv": _csv_lines,
    "ccnet": _ccnet_lines,
    "bob4": lambda path, scores: _bob_lines(path, scores, five=False),
    "bob5": lambda path, scores: _bob_lines(path, scores, five=True),
}
