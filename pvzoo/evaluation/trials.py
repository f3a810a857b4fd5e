"""Whose samples they are, and which of them are compared."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import EvaluationError, did_you_mean


@dataclass(frozen=True, eq=False)
class Population:
    """The identity and the subject of N samples. Samples are numbered from 0.

    Attributes:
        identity: (N,) number of the identity: subject and hand.
        subject: (N,) number of the person.
        identities: Their labels, by number.
        subjects: Likewise.
    """

    identity: Tensor
    subject: Tensor
    identities: tuple[str, ...]
    subjects: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.identity)

    @classmethod
    def of(cls, identities: Iterable[Hashable], subjects: Iterable[Hashable] | None = None) -> Population:
        """Numbers labels.

        Args:
            identities: One label a sample.
            subjects: One label a sample; without them each identity is taken for a person of its own, and intervals
                are too narrow if some are two hands of one person.

        Raises:
            EvaluationError: If a label is missing, or an identity belongs to two subjects; names the row.
        """
        whose = _labels(identities, "identity")
        people = whose if subjects is None else _labels(subjects, "subject")
        if len(people) != len(whose):
            raise EvaluationError(f"{len(whose)} identities and {len(people)} subjects; one of each a sample is needed")
        first: dict[Hashable, int] = {}
        for row, (identity, subject) in enumerate(zip(whose, people, strict=True)):
            at = first.setdefault(identity, row)
            if people[at] != subject:
                message = f"identity {identity!r} is of subject {people[at]!r} in row {at} and of {subject!r}"
                raise EvaluationError(f"row {row}: {message}")
        number = {label: i for i, label in enumerate(first)}
        person = {label: i for i, label in enumerate(dict.fromkeys(people))}
        return cls(
            torch.tensor([number[label] for label in whose], dtype=torch.int64),
            torch.tensor([person[label] for label in people], dtype=torch.int64),
            tuple(map(str, number)),
            tuple(map(str, person)),
        )


def _labels(labels: Iterable[Hashable], what: str) -> list[Hashable]:
    found = labels.tolist() if isinstance(labels, (Tensor, np.ndarray)) else list(labels)
    for row, label in enumerate(found):
        if label is None or label == "" or label != label:
            raise EvaluationError(f"row {row}: the {what} is missing")
    return found


@dataclass(frozen=True, eq=False)
class Grid:
    """Every row sample with every column sample, or each unordered pair once.

    Attributes:
        rows: (R,) numbers of samples.
        columns: (C,) numbers of samples.
        upper: Rows and columns are the same samples, and each pair of two of them counts once.
    """

    rows: Tensor
    columns: Tensor
    upper: bool = False


@dataclass(frozen=True, eq=False)
class Listed:
    """Pairs one by one.

    Attributes:
        first: (P,) numbers of samples.
        second: (P,) numbers of samples.
    """

    first: Tensor
    second: Tensor


Trials = Grid | Listed


def all_pairs(count: int) -> Grid:
    """Every sample with every other, each unordered pair once: count * (count - 1) / 2 comparisons."""
    samples = torch.arange(count)
    return Grid(samples, samples, upper=True)


def gallery_probe(gallery: Sequence[int], probes: Sequence[int]) -> Grid:
    """Every probe with every sample of the gallery.

    Raises:
        EvaluationError: If one of them is empty, or a sample is there twice or in both.
    """
    found: dict[int, str] = {}
    for what, samples in (("gallery", gallery), ("probes", probes)):
        if not len(samples):
            raise EvaluationError(f"the {what if what == 'gallery' else 'list of probes'} is empty")
        for number in map(int, samples):
            if number in found:
                twice = f"twice in the {what}" if found[number] == what else "in the gallery and a probe"
                raise EvaluationError(f"sample {number} is {twice}; it would be compared with itself or counted twice")
            found[number] = what
    return Grid(torch.as_tensor(probes).long(), torch.as_tensor(gallery).long())


def listed(pairs: Iterable[tuple[Any, Any]], ids: Sequence[str] | None = None) -> Listed:
    """Pairs that a protocol lists.

    Args:
        pairs: Numbers of samples, or their ids.
        ids: The ids of the samples, by number.

    Raises:
        EvaluationError: If there are no pairs, an id is unknown, a sample is paired with itself, or a pair is there
            twice, in either order; names the row of the list.
    """
    number = {name: i for i, name in enumerate(ids)} if ids is not None else None
    seen: dict[tuple[int, int], int] = {}
    rows: list[tuple[int, int]] = []
    for row, pair in enumerate(pairs):
        if number is not None:
            for name in pair:
                if name not in number:
                    raise EvaluationError(f"row {row}: there is no sample {name!r}{did_you_mean(str(name), number)}")
        a, b = (int(name) if number is None else number[name] for name in pair)
        if a == b:
            raise EvaluationError(f"row {row}: {pair[0]!r} is paired with itself")
        other = seen.setdefault((min(a, b), max(a, b)), row)
        if other != row:
            raise EvaluationError(f"row {row}: {pair[0]!r} and {pair[1]!r} are a pair already, in row {other}")
        rows.append((a, b))
    if not rows:
        raise EvaluationError("the list of pairs is empty")
    first, second = torch.tensor(rows).T
    return Listed(first, second)
