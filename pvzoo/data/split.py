"""What a protocol makes of a table: samples that train, choose and test, and which of them are compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from ..errors import DataError
from .table import PAIRINGS, Pair, Pairing, Record, Table, natural

Shared = Literal["identity", "subject", "session"]


class LeakError(DataError):
    """Training and test share what the protocol keeps apart."""


@dataclass(frozen=True)
class Comparisons:
    """Samples, and which of them are compared.

    Attributes:
        gallery: Enrolled references.
        probes: Compared with the gallery. Where both are the same samples, each two are compared once, and none with
            itself.
        listed: The comparisons as (gallery index, probe index), where a list names them; else all are made.
    """

    gallery: tuple[Pair, ...]
    probes: tuple[Pair, ...]
    listed: tuple[tuple[int, int], ...] | None = None

    @property
    def symmetric(self) -> bool:
        """Whether all samples are compared with all others."""
        return self.listed is None and self.gallery == self.probes

    @property
    def samples(self) -> tuple[Pair, ...]:
        """Gallery and probes, each sample once."""
        return tuple(dict.fromkeys((*self.gallery, *self.probes)))

    @property
    def genuine(self) -> int:
        """Number of comparisons of an identity with itself."""
        if self.listed is not None:
            return sum(self.gallery[g].identity == self.probes[p].identity for g, p in self.listed)
        enrolled = Counter(pair.identity for pair in self.gallery)
        if self.symmetric:
            return sum(count * (count - 1) // 2 for count in enrolled.values())
        return sum(enrolled[pair.identity] for pair in self.probes)

    @property
    def impostor(self) -> int:
        """Number of comparisons of two identities."""
        if self.listed is not None:
            return len(self.listed) - self.genuine
        count = len(self.gallery)
        return (count * (count - 1) // 2 if self.symmetric else count * len(self.probes)) - self.genuine


@dataclass(frozen=True)
class Excluded:
    """A sample that a protocol cannot use, and why."""

    pair: Pair
    reason: str


@dataclass(frozen=True)
class Split:
    """A data set, split by a protocol. A split with a leak cannot be made.

    Attributes:
        protocol: Name and all parameters, ``"open_subject(fold=0, ...)"``: with the table, it gives this split again.
        root: Folder that relative paths start from.
        train: Samples to learn from.
        dev: Carved out of the training side, to choose a model and a threshold.
        test: To report.
        excluded: Samples that the protocol cannot use; listed, never dropped in silence.
        shares: What training and test have in common by definition of the protocol.
        notes: What a reader of results should know.

    Raises:
        LeakError: If training or dev shares a file, a file's bytes (where the table has digests), or what is not in
            ``shares``, with the test.
    """

    protocol: str
    root: Path
    train: tuple[Pair, ...]
    dev: Comparisons
    test: Comparisons
    excluded: tuple[Excluded, ...] = ()
    shares: frozenset[Shared] = frozenset()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.train:
            raise DataError(f"{self.protocol}: no sample is left to train on")
        for part, comparisons in (("dev", self.dev), ("test", self.test)):
            for kind in ("genuine", "impostor"):
                if not getattr(comparisons, kind):
                    what = f"{len(comparisons.samples)} samples of {count_identities(comparisons.samples)} identities"
                    raise DataError(f"{self.protocol}: {part} has no {kind} comparison in {what}")
        # Where identities are shared, the gallery may be enrolled from the training samples.
        tested = self.test.probes if "identity" in self.shares else self.test.samples
        chosen = self.dev.probes if "identity" in self.shares else self.dev.samples
        _refuse_leaks(self.protocol, "training", self.train, "test", tested, self.shares)
        _refuse_leaks(self.protocol, "dev", chosen, "test", tested, self.shares)
        _refuse_leaks(self.protocol, "training", self.train, "dev", chosen, self.shares | {"session"})

    @property
    def classes(self) -> tuple[str, ...]:
        """The training identities, in natural order: class n of a head is the n-th."""
        return tuple(sorted({pair.identity for pair in self.train}, key=natural))

    @property
    def closed(self) -> bool:
        """Whether every identity that is tested trains."""
        return {pair.identity for pair in self.test.samples} <= {pair.identity for pair in self.train}

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.train[0].images)

    @property
    def pairing(self) -> Pairing:
        """That of the least sure image that is tested."""
        records = (record for pair in self.test.samples for record in pair.records)
        return max((record.pairing for record in records), key=PAIRINGS.index)

    def counts(self) -> dict[str, dict[str, int]]:
        """By part, its identities, subjects, samples and comparisons: what belongs beside every result."""
        parts = {"train": self.train, "dev": self.dev.samples, "test": self.test.samples}
        found = {
            part: {
                "identities": count_identities(samples),
                "subjects": len({pair.subject for pair in samples}),
                "samples": len(samples),
            }
            for part, samples in parts.items()
        }
        for part, made in (("dev", self.dev), ("test", self.test)):
            found[part] |= {"genuine": made.genuine, "impostor": made.impostor}
        return found

    def write(self, path: Path) -> None:
        """Writes a table of every image, ``.csv`` or ``.parquet``, with four columns more.

        ``part`` is train, dev, test or excluded; ``dev_role`` and ``test_role`` are gallery, probe, both or nothing;
        ``protocol`` is that of the split.
        """
        parts = {
            "excluded": [item.pair for item in self.excluded],
            "test": self.test.samples,
            "dev": self.dev.samples,
            "train": self.train,
        }
        part_of = {record.path: part for part, pairs in parts.items() for pair in pairs for record in pair.records}
        dev_role, test_role = _roles(self.dev), _roles(self.test)
        records = {r.path: r for pairs in parts.values() for pair in pairs for r in pair.records}
        Table(records.values(), self.root).write(
            path,
            {
                "part": lambda record: part_of[record.path],
                "dev_role": lambda record: dev_role.get(record.path, ""),
                "test_role": lambda record: test_role.get(record.path, ""),
                "protocol": lambda record: self.protocol,
            },
        )


def by_identity(pairs: Iterable[Pair]) -> dict[str, list[Pair]]:
    """Samples by identity, in the order of a table: by session, then sample."""
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.identity, []).append(pair)
    return groups


def count_identities(pairs: Iterable[Pair]) -> int:
    return len({pair.identity for pair in pairs})


def reasons(excluded: Iterable[Excluded]) -> dict[str, list[Pair]]:
    """Excluded samples by reason."""
    ordered = sorted(excluded, key=lambda item: item.reason)
    return {reason: [item.pair for item in items] for reason, items in groupby(ordered, key=lambda item: item.reason)}


def _roles(comparisons: Comparisons) -> dict[str, str]:
    """By path, what an image is in some comparisons."""
    roles = {record.path: "gallery" for pair in comparisons.gallery for record in pair.records}
    for record in (record for pair in comparisons.probes for record in pair.records):
        roles[record.path] = "both" if record.path in roles else "probe"
    return roles


def _refuse_leaks(
    protocol: str, first: str, a: Sequence[Pair], second: str, b: Sequence[Pair], shares: frozenset[str]
) -> None:
    for what in ("identity", "subject", "session"):
        if what in shares:
            continue
        common = sorted({str(getattr(pair, what)) for pair in a} & {str(getattr(pair, what)) for pair in b})
        if common:
            message = f"{first} and {second} share {what} {common[0]}"
            raise LeakError(f"{protocol}: {message}{f' and {len(common) - 1} more' if common[1:] else ''}")
    files = {name: record for pair in a for record in pair.records for name in _names(record)}
    for pair in b:
        for record in pair.records:
            for name in _names(record):
                if name in files:
                    other = files[name]
                    same = "file" if other.path == record.path else "bytes of a file"
                    message = f"{first} and {second} share the {same}: {other.path} ({other.identity})"
                    message += "" if other.path == record.path else f" and {record.path} ({record.identity})"
                    raise LeakError(f"{protocol}: {message}; remove one from the table")


def _names(record: Record) -> tuple[str, ...]:
    return (record.path, record.digest) if record.digest else (record.path,)


__all__ = ["Comparisons", "Excluded", "LeakError", "Split", "by_identity", "count_identities", "reasons"]
