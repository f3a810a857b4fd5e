"""Protocols by name: how a data set is split, and what is compared with what.

Published results under one name differ by two orders of magnitude, because the name covers several protocols. Here a
name, its parameters and a table give one split, whatever the order of the files. Every split carves its dev part out
of the training side, and one that leaks is refused.

*Closed set*: every identity trains with some of its samples and is tested with others. *Open set*: the identities that
are tested are not those that train.
"""

from __future__ import annotations

import csv
import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import yaml
from pydantic import BeforeValidator, Field

from ..errors import DataError, UnknownNameError, nearest
from ..registry import Params
from .params import checked
from .split import Comparisons, Excluded, Shared, Split, by_identity, count_identities
from .table import Pair, Table


def _number_first_or_all(value: Any) -> Any:
    if value in ("first", "all") or (type(value) is int and value >= 1):
        return value
    raise ValueError(f"should be first, all, or a number from 1, got {value!r}")


Gallery = Annotated[
    int | str,
    BeforeValidator(_number_first_or_all, json_schema_input_type=Literal["first", "all"] | Annotated[int, Field(ge=1)]),
]


class ProtocolParams(Params):
    """What every protocol takes."""

    seed: int = Field(0, ge=0, description="of all that is chosen; the same seed gives the same split")
    dev: float = Field(
        0.1, gt=0, lt=1, description="share of the training side that chooses the model and the threshold"
    )
    gallery: Gallery = Field(
        "all", description="samples of each identity to enrol: first, a number, or all; in an open set, all with all"
    )
    incomplete: Literal["drop", "keep", "refuse"] = Field(
        "drop", description="samples that lack a modality: drop and list them, keep them, or refuse the table"
    )


class ClosedKParams(ProtocolParams):
    """Closed set by number of samples."""

    k: int = Field(5, ge=1, description="samples that train")


class ClosedMixedParams(ProtocolParams):
    """Closed set by number of samples in each session."""

    k: int | None = Field(None, ge=1, description="samples of each session that train; half of them if left out")


class FewShotParams(ProtocolParams):
    """Few samples of each identity."""

    k: int = Field(1, ge=1, description="samples of each identity that train, chosen from its first session")


class FoldParams(ProtocolParams):
    """Open set by person, in folds."""

    folds: int = Field(5, ge=2, description="parts of the subjects")
    fold: int = Field(0, ge=0, description="the part that is tested, from 0")


class PairListParams(ProtocolParams):
    """A list of comparisons."""

    file: str = Field(description="CSV of path, path, and 1 (genuine) or 0; paths start from the table's folder")


P = TypeVar("P", bound=ProtocolParams)


@dataclass(frozen=True)
class Sides:
    """What a protocol makes of the samples that it can use."""

    train: list[Pair]
    dev: Comparisons
    test: Comparisons
    excluded: Sequence[Excluded] = ()


class Protocol(ABC, Generic[P]):
    """A named way to split a table.

    Attributes:
        name: What it is called.
        summary: One line for lists.
        shares: What training and test have in common by definition.
        params_type: Model of its parameters.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    shares: ClassVar[frozenset[Shared]]
    params_type: ClassVar[type[ProtocolParams]] = ProtocolParams

    def __init__(self, params: P) -> None:
        self.params = params

    def __str__(self) -> str:
        values = ", ".join(f"{name}={value}" for name, value in sorted(self.params.model_dump().items()))
        return f"{self.name}({values})"

    def split(self, table: Table, tested: Table | None = None) -> Split:
        """Splits a table.

        Args:
            table: The data set. With digests (``table.hashed()``), equal files on both sides are found too.
            tested: The data set that ``cross_dataset`` tests on; no other protocol takes one.

        Raises:
            LeakError: If training and test share what the protocol keeps apart.
            DataError: If the table cannot be split so: says what there is too little of.
        """
        if tested is not None:
            raise self.error("takes one data set; only cross_dataset trains on one and tests on another")
        pairs, incomplete = self.usable(table)
        sides = self.divide(pairs, table)
        return self.made(table, sides, incomplete)

    def made(self, table: Table, sides: Sides, incomplete: Sequence[Excluded]) -> Split:
        excluded = (*incomplete, *sides.excluded)
        notes = tuple(self.notes(sides))
        return Split(str(self), table.root, tuple(sides.train), sides.dev, sides.test, excluded, self.shares, notes)

    @abstractmethod
    def divide(self, pairs: list[Pair], table: Table) -> Sides:
        """Divides samples, which come in the order of a table: by identity, session and number."""

    def notes(self, sides: Sides) -> Iterable[str]:
        """What a reader of results must know."""
        trained = {(pair.identity, pair.session) for pair in sides.train}
        if any((pair.identity, pair.session) in trained for pair in sides.test.probes):
            yield "leaks sessions: images that one identity gave in one session both train and are tested"

    def error(self, message: str) -> DataError:
        return DataError(f"{self}: {message}")

    def usable(self, table: Table) -> tuple[list[Pair], list[Excluded]]:
        """The samples of a table, and those that are left out since they lack a modality."""
        pairs = table.pairs()
        lacking = [Excluded(pair, f"no {' and no '.join(pair.missing)} image") for pair in pairs if pair.missing]
        if self.params.incomplete == "keep" or not lacking:
            return pairs, []
        if self.params.incomplete == "refuse":
            first = f"{lacking[0].pair}: {lacking[0].reason}"
            raise self.error(f"{len(lacking)} of {len(pairs)} samples lack a modality, the first {first}")
        return [pair for pair in pairs if not pair.missing], lacking

    def ordered(self, names: Iterable[str], purpose: str) -> list[str]:
        """Names in an order that depends on the seed alone: not on the order of files, nor on the other names."""
        key = f"{self.params.seed}\0{purpose}\0"
        return sorted(set(names), key=lambda name: hashlib.sha256((key + name).encode()).digest())

    def enrolled(self, pairs: Iterable[Pair]) -> tuple[Pair, ...]:
        """The samples of each identity that the gallery rule takes."""
        rule = self.params.gallery
        count = rule if isinstance(rule, int) else {"all": None, "first": 1}[rule]
        return tuple(pair for samples in by_identity(pairs).values() for pair in samples[:count])

    def among(self, pairs: Sequence[Pair]) -> Comparisons:
        """Comparisons of identities that did not train: all with all, or a gallery with the rest."""
        gallery = self.enrolled(pairs)
        return Comparisons(gallery, gallery if self.params.gallery == "all" else tuple(_without(pairs, gallery)))

    def carved(self, pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
        """Takes whole subjects, of at least two identities, out of the training side for dev."""
        subjects = self.ordered((pair.subject for pair in pairs), "dev")
        count = max(1, round(self.params.dev * len(subjects)))
        while count < len(subjects) and count_identities(_of(pairs, "subject", subjects[:count])) < 2:
            count += 1
        if count >= len(subjects):
            raise self.error(f"{len(subjects)} training subjects are too few to carve dev out of them")
        return _of(pairs, "subject", subjects[count:]), _of(pairs, "subject", subjects[:count])


class Closed(Protocol[P]):
    """All identities train; dev is held out of the training samples of each."""

    shares = frozenset({"identity", "subject"})

    @abstractmethod
    def divided(self, samples: list[Pair], sessions: Sequence[int]) -> tuple[list[Pair], list[Pair]]:
        """The samples of one identity that train, and those that are tested."""

    def divide(self, pairs: list[Pair], table: Table) -> Sides:
        sessions = sorted({pair.session for pair in pairs})
        train: list[Pair] = []
        probes: list[Pair] = []
        excluded: list[Excluded] = []
        for samples in by_identity(pairs).values():
            first, second = self.divided(samples, sessions)
            if first and second:
                train += first
                probes += second
                excluded += [Excluded(pair, "a session that is not used") for pair in _without(samples, first + second)]
            else:
                reason = f"an identity without a sample to {'test' if first else 'train'}"
                excluded += [Excluded(pair, reason) for pair in samples]
        if not train:
            raise self.error(f"there is nothing to divide: the first of the samples is of {excluded[0].reason}")
        return self.with_dev(train, probes, excluded)

    def with_dev(self, train: list[Pair], probes: list[Pair], excluded: list[Excluded]) -> Sides:
        dev: list[Pair] = []
        for samples in by_identity(train).values():
            by_name = {str(pair): pair for pair in samples}
            count = min(max(1, round(self.params.dev * len(samples))), len(samples) - 1)
            dev += [by_name[name] for name in self.ordered(by_name, "dev")[:count]]
        kept = _without(train, dev)
        return Sides(
            kept,
            Comparisons(self.enrolled(kept), tuple(dev)),
            Comparisons(self.enrolled(train), tuple(probes)),
            excluded,
        )


class ClosedSessions(Closed[ProtocolParams]):
    """One session trains and is the gallery, another is tested."""

    train_session: ClassVar[int]

    def divided(self, samples: list[Pair], sessions: Sequence[int]) -> tuple[list[Pair], list[Pair]]:
        if len(sessions) < 2:
            raise self.error(f"needs two sessions, and the table has {', '.join(map(str, sessions))} (0: not known)")
        train, test = sessions[self.train_session], sessions[1 - self.train_session]
        return _of(samples, "session", [train]), _of(samples, "session", [test])


class ClosedS1S2(ClosedSessions):
    name = "closed_s1_s2"
    summary = "closed set: session 1 trains and is the gallery, session 2 is tested"
    train_session = 0


class ClosedS2S1(ClosedSessions):
    name = "closed_s2_s1"
    summary = "closed set: session 2 trains and is the gallery, session 1 is tested"
    train_session = 1


class ClosedFirstK(Closed[ClosedKParams]):
    name = "closed_first_k"
    summary = "closed set: the first k samples of each identity train, the rest are tested; may leak sessions"
    shares = frozenset({"identity", "subject", "session"})
    params_type = ClosedKParams

    def divided(self, samples: list[Pair], sessions: Sequence[int]) -> tuple[list[Pair], list[Pair]]:
        return samples[: self.params.k], samples[self.params.k :]


class ClosedMixed(Closed[ClosedMixedParams]):
    name = "closed_mixed"
    summary = "closed set that leaks sessions: the first k samples of each session train, the rest are tested"
    shares = frozenset({"identity", "subject", "session"})
    params_type = ClosedMixedParams

    def divided(self, samples: list[Pair], sessions: Sequence[int]) -> tuple[list[Pair], list[Pair]]:
        parts = [_of(samples, "session", [session]) for session in sessions]
        first = [pair for part in parts for pair in part[: self.params.k or len(part) // 2]]
        return first, _without(samples, first)


class FewShotK(Closed[FewShotParams]):
    """Nothing can be held out of so few samples, so dev takes whole subjects, which are then not tested."""

    name = "few_shot_k"
    summary = "closed set: k samples of each identity's first session train and are the gallery, the rest are tested"
    shares = frozenset({"identity", "subject", "session"})
    params_type = FewShotParams

    def divided(self, samples: list[Pair], sessions: Sequence[int]) -> tuple[list[Pair], list[Pair]]:
        by_name = {str(pair): pair for pair in samples if pair.session == samples[0].session}
        first = [by_name[name] for name in self.ordered(by_name, "shots")[: self.params.k]]
        return first, _without(samples, first)

    def with_dev(self, train: list[Pair], probes: list[Pair], excluded: list[Excluded]) -> Sides:
        kept, dev = self.carved(train)
        chosen = {pair.identity for pair in dev}
        dev_probes = tuple(pair for pair in probes if pair.identity in chosen)
        tested = tuple(pair for pair in probes if pair.identity not in chosen)
        return Sides(
            kept, Comparisons(self.enrolled(dev), dev_probes), Comparisons(self.enrolled(kept), tested), excluded
        )


class Open(Protocol[P]):
    """The identities that are tested do not train; dev takes whole subjects of the rest."""

    shares = frozenset({"session"})

    @abstractmethod
    def tested(self, pairs: list[Pair]) -> list[Pair]:
        """The samples of the test."""

    def divide(self, pairs: list[Pair], table: Table) -> Sides:
        test = self.tested(pairs)
        train, dev = self.carved(_without(pairs, test))
        return Sides(train, self.among(dev), self.among(test))


class OpenShare(Open[ProtocolParams]):
    """A share of the identities, whosever hands they are."""

    shares = frozenset({"subject", "session"})
    train_share: ClassVar[float]

    def tested(self, pairs: list[Pair]) -> list[Pair]:
        identities = self.ordered((pair.identity for pair in pairs), "test")
        return _of(pairs, "identity", identities[int(self.train_share * len(identities)) :])

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
        return _of(pairs, "subject", subjects[fold::folds])

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

    def divide(self, pairs: list[Pair], table: Table) -> Sides:
        raise AssertionError("split does it all")

    def notes(self, sides: Sides) -> Iterable[str]:
        return ()


class PairList(Protocol[PairListParams]):
    name = "pairs"
    summary = "open set: the comparisons of a CSV are tested, the identities that it does not name train"
    shares = frozenset({"session"})
    params_type = PairListParams

    def divide(self, pairs: list[Pair], table: Table) -> Sides:
        file = table.root / self.params.file
        places = {record.path: pair for pair in pairs for record in pair.records}
        listed = list(self._listed(file, places))
        gallery, probes = (list(dict.fromkeys(line[side] for line in listed)) for side in (0, 1))
        rows, columns = ({pair: number for number, pair in enumerate(side)} for side in (gallery, probes))
        test = Comparisons(tuple(gallery), tuple(probes), tuple((rows[a], columns[b]) for a, b in listed))
        named = {pair.subject for pair in test.samples}
        untested = [pair for pair in pairs if pair.subject in named and pair not in rows and pair not in columns]
        train, dev = self.carved([pair for pair in pairs if pair.subject not in named])
        return Sides(
            train, self.among(dev), test, [Excluded(p, "a tested subject's, and not listed") for p in untested]
        )

    def _listed(self, file: Path, places: Mapping[str, Pair]) -> Iterable[tuple[Pair, Pair]]:
        seen: set[frozenset[Pair]] = set()
        try:
            with file.open(newline="", encoding="utf-8-sig") as lines:
                for line, row in enumerate(csv.reader(lines), 1):
                    if not row:
                        continue
                    if len(row) != 3 or row[2].strip() not in ("0", "1"):
                        raise DataError(f"{file}:{line}: a line is path,path,1 (genuine) or 0, not {','.join(row)}")
                    for path in row[:2]:
                        if path.strip() not in places:
                            raise DataError(f"{file}:{line}: {path.strip()} is not in the table, or lacks a modality")
                    a, b = (places[path.strip()] for path in row[:2])
                    if (a.identity == b.identity) != (row[2].strip() == "1"):
                        says = "genuine" if row[2].strip() == "1" else "impostor"
                        raise DataError(
                            f"{file}:{line}: listed as {says}, but the table has {a.identity}, {b.identity}"
                        )
                    if a == b or frozenset((a, b)) in seen:
                        what = "a sample with itself" if a == b else "two samples a second time"
                        raise DataError(f"{file}:{line}: compares {what}; remove the line")
                    seen.add(frozenset((a, b)))
                    yield a, b
        except FileNotFoundError as error:
            raise self.error(f"{file}: no such file") from error
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise self.error(f"{file}: cannot be read: {error}") from error


PROTOCOLS: Mapping[str, type[Protocol[Any]]] = {
    protocol.name: protocol
    for protocol in (
        ClosedS1S2,
        ClosedS2S1,
        ClosedFirstK,
        ClosedMixed,
        OpenHalf,
        Open1To3,
        OpenSubject,
        FewShotK,
        CrossDataset,
        PairList,
    )
}


def open_protocol(name: str, params: Mapping[str, Any] | None = None) -> Protocol[Any]:
    """Returns a protocol.

    Args:
        name: Such as ``"open_subject"``.
        params: Its parameters.

    Raises:
        UnknownNameError: There is no such protocol; with a suggestion.
        DataError: If the parameters do not fit.
    """
    if name not in PROTOCOLS:
        near = nearest(name, PROTOCOLS)
        hint = f"did you mean {near!r}?" if near else f"there are {', '.join(PROTOCOLS)}"
        message = f"no protocol named {name!r}; {hint}"
        raise UnknownNameError(message, kind="protocol", name=name, suggestions=[near] if near else [])
    protocol = PROTOCOLS[name]
    return protocol(checked(f"protocol {name!r}", protocol.params_type, params))


def read_protocol(text: str) -> Protocol[Any]:
    """The protocol that :attr:`Split.protocol` names: ``"open_subject(fold=1, ...)"``, or its name alone.

    Raises:
        UnknownNameError: There is no such protocol; with a suggestion.
        DataError: If the text is no protocol, or the parameters do not fit.
    """
    found = re.fullmatch(r"(\w+)(?:\((.*)\))?", text.strip())
    pairs = [part.partition("=") for part in re.split(r", (?=\w+=)", found[2])] if found and found[2] else []
    if found is None or not all(equals for _, equals, _ in pairs):
        raise DataError(f"{text!r} is no protocol; it is written as name(parameter=value, ...)")
    values = {name: None if value == "None" else yaml.safe_load(value) for name, _, value in pairs}
    return open_protocol(found[1], values)


def _of(pairs: Iterable[Pair], what: Literal["identity", "subject", "session"], values: Iterable[object]) -> list[Pair]:
    wanted = set(values)
    return [pair for pair in pairs if getattr(pair, what) in wanted]


def _without(pairs: Iterable[Pair], others: Iterable[Pair]) -> list[Pair]:
    left_out = set(others)
    return [pair for pair in pairs if pair not in left_out]
