"""What adapters share: a walk that keeps account of every file, and errors that say which layout was expected."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from ...errors import DataError
from ...plugins import host
from ...registry import Dataset, Params
from ..params import checked
from ..table import Pairing, Record, Table, natural

P = TypeVar("P", bound=Params)


@dataclass(frozen=True)
class Expected:
    """Published counts; ``None`` where none is published, or where it differs between identities.

    Attributes:
        identities: Palms.
        sessions: Sessions of each.
        samples: Images of each identity in each session, of each modality.
        images: Images of each modality in all.
    """

    identities: int | None = None
    sessions: int | None = None
    samples: int | None = None
    images: int | None = None


class Unused:
    """Marks a file that belongs to the layout and was not asked for."""


UNUSED = Unused()


class Adapter(Generic[P]):
    """A layout. A subclass sets the class attributes and says in :meth:`parse` what a path means.

    Attributes:
        name: Its name in the registry.
        example: A path in the root, as published.
        expected: Published counts.
        pairing: How sure pairs are.
    """

    name: ClassVar[str]
    example: ClassVar[str]
    expected: Expected = Expected()
    pairing: Pairing = ""

    def __init__(self, params: P) -> None:
        self.params = params

    def parse(self, path: str) -> Record | Unused | None:
        """What a file is: ``None`` if the layout does not know it. A record with sample 0 is numbered later.

        Args:
            path: Relative to the root, with ``/``.
        """
        raise NotImplementedError

    def scan(self, root: Path) -> Table:
        """Finds the images; opens none of them.

        Raises:
            DataError: If nothing in the root has this layout; says what was expected and what is there.
        """
        records: list[Record] = []
        unexpected: list[str] = []
        unused = 0
        for path in walk(root, self.name):
            found = self.parse(path)
            if isinstance(found, Record):
                records.append(found)
            elif found is None:
                unexpected.append(path)
            else:
                unused += 1
        if not records:
            raise self.wrong_root(root, unexpected, unused)
        return Table(numbered(records), root, unexpected=unexpected, unused=unused)

    def wrong_root(self, root: Path, unexpected: list[str], unused: int = 0) -> DataError:
        """The error of a root in which nothing fits."""
        found = f"it holds {len(unexpected)} other files, such as {min(unexpected)}" if unexpected else "it is empty"
        if unused:
            found = f"all {unused} files of the layout are ones that the parameters leave out"
        return DataError(f"{root}: no image here has layout {self.name!r}, such as {root / self.example}; {found}")


class PatternAdapter(Adapter[P]):
    """A layout that one regular expression tells; it may lie in a folder within the root."""

    pattern: ClassVar[str]
    #: Published files that are no images.
    companions: ClassVar[str] = r"(?!)"

    def __init__(self, params: P) -> None:
        super().__init__(params)
        self._pattern = re.compile(rf"(?:.*/)?{self.pattern}", re.IGNORECASE)
        self._companions = re.compile(rf"(?:.*/)?{self.companions}", re.IGNORECASE)

    def parse(self, path: str) -> Record | Unused | None:
        match = self._pattern.fullmatch(path)
        if match:
            return self.record(path, match)
        return UNUSED if self._companions.fullmatch(path) else None

    def record(self, path: str, match: re.Match[str]) -> Record | Unused | None:
        raise NotImplementedError


def walk(root: Path, name: str) -> Iterator[str]:
    """Paths of all files below the root, relative to it, one folder in memory at a time.

    Raises:
        DataError: If the root, or a folder in it, cannot be read.
    """
    if not root.is_dir():
        what = "is a file; layout {!r} needs a folder" if root.exists() else "no such folder, to scan as layout {!r}"
        raise DataError(f"{root}: {what.format(name)}")
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    path = f"{folder}{entry.name}"
                    # Links to folders are listed as files that are not expected: they may lead round in circles.
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{path}/")
                    else:
                        yield path
        except OSError as error:
            raise DataError(f"{root / folder}: cannot be read: {error.strerror or error}") from error


def numbered(records: list[Record]) -> list[Record]:
    """Numbers the samples that have no number, from 1, in the natural order of their paths."""
    if all(record.sample for record in records):
        return records
    kept = [record for record in records if record.sample]
    counts: dict[tuple[str, str, str, int], int] = {}
    for record in sorted((r for r in records if not r.sample), key=lambda r: natural(r.path)):
        group = (record.modality, record.subject, record.hand, record.session)
        counts[group] = counts.get(group, 0) + 1
        kept.append(replace(record, sample=counts[group]))
    return kept


def palm_of(number: int, first: int, two_hands: bool) -> tuple[str, str]:
    """Subject and hand of a palm that has only a number; ``first`` is that of the first palm."""
    if not two_hands:
        return sys.intern(str(number)), ""
    return sys.intern(str((number - first) // 2 + 1)), "ab"[(number - first) % 2]


def hand_of(letter: str) -> str:
    """``l``, ``L`` or ``Left`` to ``left``."""
    return {"l": "left", "r": "right"}[letter[0].lower()]


def open_layout(name: str, params: Mapping[str, Any] | None = None) -> Adapter[Any]:
    """Builds a registered adapter.

    Args:
        name: Such as ``"tongji"``, or ``"acme/hands"`` of a plugin.
        params: Its parameters.

    Raises:
        UnknownNameError: No such layout.
        DataError: If the parameters do not fit.
    """
    entry = host().find("dataset", name)
    assert isinstance(entry, Dataset)
    checked_params = checked(f"layout {name!r}", entry.params, params, f"pvzoo show {name}")
    adapter: Adapter[Any] = entry.create(checked_params)
    return adapter
