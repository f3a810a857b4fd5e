"""What adapters share: a walk that keeps account of every file, and errors that say which layout was expected."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from ...errors import DataError, count
from ...plugins import host
from ...registry import Dataset, Params
from .. import PalmVeinParams
from ..params import checked
from ..table import MODALITIES, Pairing, Record, Table, natural

P = TypeVar("P", bound=Params)
B = TypeVar("B", bound=PalmVeinParams)

# How far above or below a wrong root the right one is looked for, and among how many files.
_LEVELS, _LOOK_AT = 4, 20_000
# What file managers leave behind. Hidden files are passed over too.
_LITTER = ("thumbs.db", "desktop.ini")


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
UNNUMBERED = -1


class Adapter(Generic[P]):
    """A layout. A subclass sets the class attributes and says in :meth:`parse` what a path means.

    Attributes:
        name: Its name in the registry.
        example: A path in the root, as published.
        expected: Published counts; an instance may have others, where parameters leave out a part.
        modalities: What it gives: palm, vein, or both; none if only the files can tell.
        pairing: How sure pairs are; empty for one modality.
    """

    name: ClassVar[str]
    example: ClassVar[str]
    expected: Expected = Expected()
    modalities: tuple[str, ...] = MODALITIES
    pairing: Pairing = ""

    def __init__(self, params: P) -> None:
        self.params = params
        self.modalities = self.wanted()
        if len(self.modalities) == 1:
            self.pairing = ""

    def wanted(self) -> tuple[str, ...]:
        """The modalities that the parameters ask for."""
        return type(self).modalities

    def folders(self) -> Sequence[str]:
        """Folders that are walked, in the root or anywhere; ``"."`` is the root."""
        return (".",)

    def parse(self, path: str) -> Record | Unused | None:
        """What a file is: ``None`` if the layout does not know it.

        A record whose sample is ``UNNUMBERED`` gets its number from the order of names.

        Args:
            path: Relative to the root, with ``/``.
        """
        raise NotImplementedError

    def scan(self, root: Path) -> Table:
        """Finds the images; opens none of them.

        Raises:
            DataError: If a folder cannot be read, or nothing in the root has this layout; says what was expected,
                what is there, and which folder nearby would fit.
        """
        records: list[Record] = []
        unexpected: list[str] = []
        unused = 0
        for path in (path for folder in self.folders() for path in walk(root, self.name, folder)):
            # No table can hold a name that is not Unicode.
            shown = path if path.isascii() else path.encode(errors="backslashreplace").decode()
            found = self.parse(path) if shown == path else None
            if isinstance(found, Record):
                records.append(found)
            elif found is None:
                unexpected.append(shown)
            else:
                unused += 1
        if not records:
            raise self.wrong_root(root, unexpected, unused)
        return Table(numbered(records), root, unexpected=unexpected, unused=unused)

    def wrong_root(self, root: Path, unexpected: Sequence[str], unused: int = 0) -> DataError:
        """The error of a root in which nothing fits."""
        found = f"it holds {count(len(unexpected), 'other file')}, such as {min(unexpected)}" if unexpected else ""
        if unused:
            found = f"the parameters leave out all that it has ({count(unused, 'file')})"
        message = f"{root}: no image here has layout {self.name!r}, such as {root / self.example}; "
        return DataError(message + (found or "it is empty") + self.hint(root))

    def hint(self, root: Path) -> str:
        """``"; layout 'tongji' fits /data/tongji"``, a folder above or below the root, if there is one."""
        home = Path(os.path.normpath(root.absolute()))
        paths: list[str] = []
        with suppress(DataError):  # of another folder
            paths += islice(walk(root, self.name), _LOOK_AT)
        for level in range(1, _LEVELS + 1):
            above = "/".join(home.parts[-level:]) + "/"
            if level < len(home.parts) and any(isinstance(self.parse(above + path), Record) for path in paths):
                return f"; layout {self.name!r} fits {home.parents[level - 1]}"
            below = [path.split("/", level) for path in paths]
            fits = (p[:-1] for p in below if len(p) > level and isinstance(self.parse(p[-1]), Record))
            if folder := min(fits, default=None):
                return f"; layout {self.name!r} fits {home.joinpath(*folder)}"
        return ""


class PatternAdapter(Adapter[P]):
    """A layout that one regular expression tells; it may lie in a folder within the root.

    Attributes:
        pattern: Of the paths of images, without regard to case; its groups are what :meth:`record` reads.
        companions: Of published files that are not asked for, such as the uncut images.
    """

    pattern: ClassVar[str]
    companions: ClassVar[str] = r"(?!)"

    def __init__(self, params: P) -> None:
        super().__init__(params)
        self._pattern = re.compile(rf"(?:.*/)?(?:{self.pattern})", re.IGNORECASE)
        self._companions = re.compile(rf"(?:.*/)?(?:{self.companions})", re.IGNORECASE)

    def parse(self, path: str) -> Record | Unused | None:
        match = self._pattern.fullmatch(path)
        if match:
            return self.record(path, match)
        return UNUSED if self._companions.fullmatch(path) else None

    def record(self, path: str, match: re.Match[str]) -> Record | Unused | None:
        """What a file that matches the pattern is; see :meth:`parse`."""
        raise NotImplementedError


class BandAdapter(PatternAdapter[B]):
    """A multispectral layout: parameters ``palm`` and ``vein`` name the bands."""

    def wanted(self) -> tuple[str, ...]:
        return tuple(modality for modality in MODALITIES if getattr(self.params, modality) is not None)

    def modality(self, band: str) -> str | None:
        """Palm, vein, or ``None`` for a band that was not asked for."""
        return next((m for m in self.modalities if getattr(self.params, m).lower() == band.lower()), None)


def walk(root: Path, layout: str, folder: str = ".") -> Iterator[str]:
    """Paths of all files in a folder and below it, one folder in memory at a time.

    Links to folders are followed; one that leads back to a folder above it is given as a file. Hidden files and
    folders are passed over.

    Args:
        root: What the paths are relative to.
        layout: For messages.
        folder: Where to begin, in the root or anywhere.

    Raises:
        DataError: If a folder cannot be read.
    """
    pending: list[tuple[str, tuple[object, ...]]] = [("" if folder == "." else f"{folder}/", ())]
    while pending:
        inside, above = pending.pop()
        place = root / inside
        with _reading(place, layout), os.scandir(place) as entries:
            here = (*above, _identity(place.stat()))
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in _LITTER:
                    continue
                path = f"{inside}{entry.name}"
                if _is_folder(entry) and not (entry.is_symlink() and _identity(entry.stat()) in here):
                    pending.append((f"{path}/", here))
                else:
                    yield path


def subfolders(root: Path, layout: str) -> list[str]:
    """Names of the folders in a root, for messages.

    Raises:
        DataError: If it cannot be read.
    """
    with _reading(root, layout), os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if _is_folder(entry))


@contextmanager
def _reading(place: Path, layout: str) -> Iterator[None]:
    try:
        yield
    except NotADirectoryError as error:
        raise DataError(f"{place}: is a file; layout {layout!r} needs a folder") from error
    except FileNotFoundError as error:
        raise DataError(f"{place}: no such folder, to scan as layout {layout!r}") from error
    except OSError as error:
        raise DataError(f"{place}: cannot be read: {error.strerror or error}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads round in a circle, and to nothing
        return False


def _identity(folder: os.stat_result) -> tuple[int, int]:
    return folder.st_dev, folder.st_ino


def numbered(records: list[Record]) -> list[Record]:
    """Numbers the samples that have no number, from 1, in the natural order of their paths."""
    nameless = [record for record in records if record.sample == UNNUMBERED]
    if not nameless:
        return records
    kept = [record for record in records if record.sample != UNNUMBERED]
    counts: dict[tuple[str, str, str, int], int] = {}
    for record in sorted(nameless, key=lambda r: natural(r.path)):
        group = (record.modality, record.subject, record.hand, record.session)
        counts[group] = counts.get(group, 0) + 1
        kept.append(replace(record, sample=counts[group]))
    return kept


def subject_of(digits: str) -> str:
    """``"007"`` to ``"7"``, one string in memory for all images of a subject."""
    return sys.intern(str(int(digits)))


def palm_of(number: int, two_hands: bool, first: int = 1) -> tuple[str, str]:
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
        DataError: If the parameters do not fit; names every fault.
    """
    entry = host().find("dataset", name)
    assert isinstance(entry, Dataset)
    checked_params = checked(f"layout {name!r}", entry.params, params)
    adapter: Adapter[Any] = entry.create(checked_params)
    return adapter
