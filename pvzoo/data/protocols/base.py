"""What every protocol does: leave out what it cannot use, order by seed alone, carve dev, say what it shares."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BeforeValidator, Field

from ...errors import DataError
from ...registry import Params
from ..split import Comparisons, Excluded, Shared, Split, by_identity, count_identities
from ..table import Pair, Table


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

    @abstractmethod
    def split(self, table: Table, tested: Table | None = None) -> Split:
        """Splits a table.

        Args:
            table: The data set. With digests (``table.hashed()``), equal files on both sides are found too.
            tested: The data set that ``cross_dataset`` tests on; no other protocol takes one.

        Raises:
            LeakError: If training and test share what the protocol keeps apart.
            DataError: If the table cannot be split so: says what there is too little of.
        """

    def made(self, table: Table, sides: Sides, incomplete: Sequence[Excluded]) -> Split:
        excluded = (*incomplete, *sides.excluded)
        notes = (*table.doubts, *self.notes(sides))
        return Split(str(self), table.root, tuple(sides.train), sides.dev, sides.test, excluded, self.shares, notes)

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
        return Comparisons(gallery, gallery if self.params.gallery == "all" else tuple(without(pairs, gallery)))

    def carved(self, pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
        """Takes whole subjects, of at least two identities, out of the training side for dev."""
        subjects = self.ordered((pair.subject for pair in pairs), "dev")
        count = max(1, round(self.params.dev * len(subjects)))
        while count < len(subjects) and count_identities(those_of(pairs, "subject", subjects[:count])) < 2:
            count += 1
        if count >= len(subjects):
            raise self.error(f"{len(subjects)} training subjects are too few to carve dev out of them")
        return those_of(pairs, "subject", subjects[count:]), those_of(pairs, "subject", subjects[:count])


class OneTable(Protocol[P]):
    """A protocol that divides one data set."""

    def split(self, table: Table, tested: Table | None = None) -> Split:
        if tested is not None:
            raise self.error("takes one data set; only cross_dataset trains on one and tests on another")
        pairs, incomplete = self.usable(table)
        return self.made(table, self.divide(pairs, table), incomplete)

    @abstractmethod
    def divide(self, pairs: list[Pair], table: Table) -> Sides:
        """Divides samples, which come in the order of a table: by identity, session and number."""


def those_of(
    pairs: Iterable[Pair], what: Literal["identity", "subject", "session"], values: Iterable[object]
) -> list[Pair]:
    wanted = set(values)
    return [pair for pair in pairs if getattr(pair, what) in wanted]


def without(pairs: Iterable[Pair], others: Iterable[Pair]) -> list[Pair]:
    left_out = set(others)
    return [pair for pair in pairs if pair not in left_out]
