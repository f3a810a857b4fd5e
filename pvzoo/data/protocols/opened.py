"""Open set: the identities that are tested are not those that train."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from ..split import Split
from ..table import Pair, Table
from .base import OneTable, P, Protocol, ProtocolParams, Sides, those_of, without


class FoldParams(ProtocolParams):
    """Open set by person, in folds."""

    folds: int = Field(5, ge=2, description="parts of the subjects")
    fold: int = Field(0, ge=0, description="the part that is tested, from 0")


class Open(OneTable[P]):
    """The identities that are tested do not train; dev takes whole subjects of the rest."""

    shares = frozenset({"session"})

    @abstractmethod
    def tested(self, pairs: list[Pair]) -> list[Pair]:
        """The samples of the test."""

    def divide(self, pairs: list[Pair], table: Table) -> Sides:
        test = self.tested(pairs)
        train, dev = self.carved(without(pairs, test))
        return Sides(train, self.among(dev), self.among(test))


class OpenShare(Open[ProtocolParams]):
    """A share of the identities, whosever hands they are."""

    shares = frozenset({"subject", "session"})
    train_share: ClassVar[float]

    def tested(self, pairs: list[Pair]) -> list[Pair]:
        identities = self.ordered((pair.identity for pair in pairs), "test")
        return those_of(pairs, "identity", identities[int(self.train_share * len(identities)) :])

    def notes(self, sides: Sides) -> Iterable[str]:
        yield "a person's other hand may be on the other side; open_subject keeps them together"


class OpenHalf(OpenShare):
    name = "open_half"
    summary = "open set: half of the identities train, half are tested"
    train_share = 0.5


class Open1To3(OpenShare):
    name = "open_1_3"
    summary = "open set: a quarter of the identities train, three quarters are tested"
    train_share = 0.25


class OpenSubject(Open[FoldParams]):
    name = "open_subject"
    summary = "open set by person, k folds: no person has a hand on both sides"
    params_type = FoldParams

    def tested(self, pairs: list[Pair]) -> list[Pair]:
        folds, fold = self.params.folds, self.params.fold
        subjects = self.ordered((pair.subject for pair in pairs), "test")
        if fold >= folds:
            raise self.error(f"fold {fold} of {folds} does not exist; the last is {folds - 1}")
        if len(subjects) < folds:
            raise self.error(f"{len(subjects)} subjects cannot be split into {folds} folds")
        return those_of(pairs, "subject", subjects[fold::folds])

    def notes(self, sides: Sides) -> Iterable[str]:
        if not any(pair.hand for pair in sides.train):
            yield "the table tells no hands: if it has a person's two hands as two subjects, they may be apart"


class CrossDataset(Protocol[ProtocolParams]):
    name = "cross_dataset"
    summary = "trains on one data set, tests on all of another"
    shares = frozenset({"identity", "subject", "session"})  # equal labels of two data sets are different people

    def split(self, table: Table, tested: Table | None = None) -> Split:
        if tested is None:
            raise self.error("needs a second data set, which is tested")
        if table.modalities != tested.modalities:
            has = f"{' and '.join(table.modalities)}, the one to test {' and '.join(tested.modalities)}"
            raise self.error(f"the data set to train on has {has}")
        absolute = [replace(record, path=str(tested.file(record).absolute())) for record in tested]
        pairs, incomplete = self.usable(table)
        others, more = self.usable(Table(absolute, table.root))
        train, dev = self.carved(pairs)
        return self.made(table, Sides(train, self.among(dev), self.among(others)), [*incomplete, *more])

    def notes(self, sides: Sides) -> Iterable[str]:
        return ()
