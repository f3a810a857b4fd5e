"""The table: one record an image, in CSV or Parquet, whatever the data set's layout was."""

from __future__ import annotations

import csv
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ..errors import DataError

Pairing = Literal["", "simultaneous", "same_sample", "same_identity", "virtual"]

# From the surest to the least sure; a unimodal record has none.
PAIRINGS = ("simultaneous", "same_sample", "same_identity", "virtual", "")
MODALITIES = ("palm", "vein")


def natural(text: str) -> list[tuple[int, int, str]]:
    """Sort key that puts ``2`` before ``10`` and ends ties, ``02`` and ``2``, by spelling."""
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


@dataclass(frozen=True, slots=True)
class Record:
    """One image.

    Attributes:
        path: Relative to the table's root with ``/``, or absolute.
        modality: ``"palm"`` or ``"vein"``.
        subject: The person, or the palm where the data set does not say whose it is.
        hand: ``"left"`` or ``"right"``; ``"a"``, ``"b"`` where hands are only told apart; empty where not even that.
        session: From 1; 0 where the data set does not say.
        sample: As the data set counts them within identity and session; images of one sample are a pair.
        spectrum: Wavelength, band or camera, as the data set calls it.
        pairing: How sure it is that the images of the sample belong together; empty for one modality alone.
        digest: SHA-256 of the file in hexadecimal; empty until it is computed.
    """

    path: str
    modality: str
    subject: str
    hand: str = ""
    session: int = 0
    sample: int = 0
    spectrum: str = ""
    pairing: Pairing = ""
    digest: str = ""

    @property
    def identity(self) -> str:
        """Subject and hand: the class of a biometric model."""
        return f"{self.subject}/{self.hand}" if self.hand else self.subject

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What the images of one pair share."""
        return self.subject, self.hand, self.session, self.sample


COLUMNS = tuple(field.name for field in fields(Record))
_NUMBERS = ("session", "sample")
_NEEDED = ("path", "modality", "subject")
# Of a number: what 64 bits hold.
MAX_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Pair:
    """The images of one palm at one time.

    Attributes:
        images: By modality; a missing one is ``None``.
    """

    subject: str
    hand: str
    session: int
    sample: int
    images: Mapping[str, Record | None] = field(hash=False)

    @property
    def identity(self) -> str:
        return f"{self.subject}/{self.hand}" if self.hand else self.subject

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What tells it from the other pairs of its table."""
        return self.subject, self.hand, self.session, self.sample

    @property
    def records(self) -> list[Record]:
        """The images that are there."""
        return [record for record in self.images.values() if record is not None]

    @property
    def simultaneous(self) -> bool:
        """Whether its images were taken at once, so that one pose is in all of them."""
        return all(record.pairing == "simultaneous" for record in self.records)

    @property
    def missing(self) -> list[str]:
        """Modalities without an image."""
        return [modality for modality, record in self.images.items() if record is None]

    def __str__(self) -> str:
        return f"identity {self.identity}, session {self.session}, sample {self.sample}"


class Table:
    """All images of a data set, in an order that does not depend on that of the files.

    Args:
        records: In any order.
        root: Folder that relative paths start from.
        unexpected: Files in the root that the layout does not know.
        unused: How many files belong to the layout and were not asked for, such as other spectra.
        doubts: What may be read wrongly, such as one person who seems to be several; results repeat it.

    Attributes:
        records: Sorted by subject, hand, session, sample, modality and path.
    """

    def __init__(
        self,
        records: Iterable[Record],
        root: Path,
        *,
        unexpected: Sequence[str] = (),
        unused: int = 0,
        doubts: Sequence[str] = (),
    ) -> None:
        # Labels sort once each, not once a record: a natural key is slow.
        found = list(records)
        rank = {text: i for i, text in enumerate(sorted({t for r in found for t in (r.subject, r.hand)}, key=natural))}
        found.sort(
            key=lambda r: (
                *(rank[r.subject], rank[r.hand], r.session, r.sample, r.modality, r.path),
                *(r.spectrum, r.pairing, r.digest),  # only of a file that is listed twice
            )
        )
        self.records: tuple[Record, ...] = tuple(found)
        self.root = root
        self.unexpected = tuple(sorted(unexpected))
        self.unused = unused
        self.doubts = tuple(doubts)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Table) and (self.records, self.root) == (other.records, other.root)

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def modalities(self) -> tuple[str, ...]:
        """Those that occur, palm before vein."""
        return tuple(sorted({record.modality for record in self.records}))

    @cached_property
    def identities(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(record.identity for record in self.records))

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(record.subject for record in self.records))

    @cached_property
    def sessions(self) -> tuple[int, ...]:
        return tuple(sorted({record.session for record in self.records}))

    @cached_property
    def pairing(self) -> Pairing:
        """That of the least sure record."""
        return max((record.pairing for record in self.records), key=PAIRINGS.index, default="")

    def digest(self) -> str:
        """SHA-256 of the labels and file names: of what is in the table, not of where the files lie."""
        total = hashlib.sha256()
        for record in sorted((r.path.rpartition("/")[2], *astuple(r)[1:-1]) for r in self.records):
            total.update("\0".join(map(str, record)).encode() + b"\n")
        return total.hexdigest()

    def file(self, record: Record) -> Path:
        """Where a record's image lies."""
        return self.root / record.path

    def hashed(self, advance: Callable[[int], object] = lambda count: None) -> Table:
        """The same table with the digest of every file.

        Args:
            advance: Called with the number of files that were read since the last call.

        Raises:
            DataError: If a file cannot be read.
        """
        records = []
        for record in self.records:
            records.append(replace(record, digest=_file_digest(self.file(record))))
            advance(1)
        return Table(records, self.root, unexpected=self.unexpected, unused=self.unused, doubts=self.doubts)

    def pairs(self) -> list[Pair]:
        """Groups the images by what they show, never by order.

        Raises:
            DataError: If two files claim to be one image.
        """
        modalities = self.modalities
        grouped: dict[tuple[str, str, int, int], dict[str, Record | None]] = {}
        for record in self.records:
            images = grouped.setdefault(record.key, dict.fromkeys(modalities))
            other = images[record.modality]
            if other is not None:
                what = f"the {record.modality} image of identity {record.identity}, session {record.session}"
                message = f"{other.path} and {record.path} both claim to be {what}, sample {record.sample}; remove one"
                raise DataError(f"{self.root}: {message}")
            images[record.modality] = record
        return [Pair(*key, images) for key, images in grouped.items()]

    def write(self, path: Path, more: Mapping[str, Callable[[Record], str]] | None = None) -> None:
        """Writes ``.csv`` or ``.parquet``, whole or not at all.

        Paths are relative to the file where the images lie below its folder, so that both can be moved together;
        else they are absolute.

        Args:
            path: The file.
            more: Further columns, by name.

        Raises:
            DataError: If the extension is neither, the folder is missing, or Parquet needs pyarrow.
        """
        writer = {".csv": _write_csv, ".parquet": _write_parquet}.get(path.suffix.lower())
        if writer is None:
            raise DataError(f"{path}: a table is a .csv or .parquet file")
        home = path.absolute().parent
        if not home.is_dir():
            raise DataError(f"{path}: there is no folder {home}")
        partial = path.with_name(path.name + ".partial")
        try:
            more = more or {}
            rows = (
                (*astuple(_relocated(record, self.root, home)), *(value(record) for value in more.values()))
                for record in self.records
            )
            writer(partial, (*COLUMNS, *more), rows)
            partial.replace(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error
        except (UnicodeEncodeError, OverflowError) as error:
            raise DataError(f"{path}: a value cannot be written: {error}") from error
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def read(cls, path: Path) -> Table:
        """Reads a table that :meth:`write` or another program wrote; columns may be in any order.

        Raises:
            DataError: If the file cannot be read, lacks a column, or has a value that does not fit; names the row.
        """
        reader = {".csv": _read_csv, ".parquet": _read_parquet}.get(path.suffix.lower())
        if reader is None:
            raise DataError(f"{path}: a table is a .csv or .parquet file; 'pvzoo data scan' makes one from a folder")
        if not path.is_file():
            raise DataError(f"{path}: no such file; 'pvzoo data scan DIR --layout NAME -o {path.name}' makes one")
        return cls(reader(path), path.absolute().parent)


def _relocated(record: Record, root: Path, home: Path) -> Record:
    if max(record.session, record.sample) >= 10**MAX_DIGITS:
        raise OverflowError(f"{record.path} has a session or sample of more than {MAX_DIGITS} digits")
    file = Path(os.path.normpath(root.absolute() / record.path))
    return replace(record, path=(file.relative_to(home) if file.is_relative_to(home) else file).as_posix())


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        plain = csv.writer(file, lineterminator="\n")
        # A carriage return alone would stand without quotes, and be read as the end of the row.
        quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        plain.writerow(columns)
        for row in rows:
            (quoted if any(isinstance(cell, str) and "\r" in cell for cell in row) else plain).writerow(row)


def _read_csv(path: Path) -> list[Record]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            _need_columns(path, list(reader.fieldnames or []))
            return [_record(path, row, f"line {reader.line_num}") for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a CSV file: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError("Parquet needs pyarrow: pip install 'pvzoo[data]', or write a .csv file") from error
    return pyarrow


def _write_parquet(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    arrow = _pyarrow()
    schema = arrow.schema([(c, arrow.int64() if c in _NUMBERS else arrow.string()) for c in columns])
    filled = list(zip(*rows, strict=True)) or [()] * len(columns)
    arrow.parquet.write_table(arrow.table([list(column) for column in filled], schema=schema), path)


def _read_parquet(path: Path) -> list[Record]:
    arrow = _pyarrow()
    try:
        rows = arrow.parquet.read_table(path)
    except (OSError, arrow.ArrowException) as error:
        raise DataError(f"{path}: not a Parquet file: {str(error).splitlines()[0]}") from error
    _need_columns(path, rows.column_names)
    return [_record(path, row, f"row {number}") for number, row in enumerate(rows.to_pylist(), 1)]


def _need_columns(path: Path, columns: Sequence[str]) -> None:
    absent = [column for column in _NEEDED if column not in columns]
    if absent:
        has = ", ".join(columns) or "none"
        raise DataError(f"{path}: a table needs column {absent[0]!r}; this file has {has}")


def _record(path: Path, row: Mapping[Any, Any], where: str) -> Record:
    if None in row:
        raise DataError(f"{path}: {where}: has more cells than there are columns; put quotes around cells with commas")
    values: dict[str, Any] = {}
    for column in COLUMNS:
        value = row.get(column)
        # Parquet has types of its own; a column of whole numbers becomes floats in pandas when a cell is empty.
        if column in _NUMBERS and isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, str | int | None):
            raise DataError(f"{path}: {where}: {column} must be text, not {value!r}")
        text = "" if value is None else str(value)
        if column in _NUMBERS and text and not (text.isdecimal() and len(text) <= MAX_DIGITS):
            raise DataError(f"{path}: {where}: {column} must be a whole number from 0, not {text!r}")
        values[column] = int(text or 0) if column in _NUMBERS else text
    for column in _NEEDED:
        if not values[column]:
            raise DataError(f"{path}: {where}: {column} is empty")
    for column, known in (("modality", MODALITIES), ("pairing", PAIRINGS)):
        if values[column] not in known:
            words = ", ".join(word for word in known if word)
            raise DataError(f"{path}: {where}: {column} must be one of {words}, not {values[column]!r}")
    for column in ("modality", "subject", "hand", "spectrum", "pairing"):
        values[column] = sys.intern(values[column])
    return Record(**values)
