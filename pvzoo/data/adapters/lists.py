"""Data sets given by text files: CCNet's lists of images and labels, and a CSV with a pair a row."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ...errors import DataError, did_you_mean
from .. import PairCsvParams, TxtListParams
from ..table import MAX_DIGITS, MODALITIES, Record, Table
from .base import Adapter, subfolders


class TxtList(Adapter[TxtListParams]):
    """``train.txt`` and ``test.txt`` with lines ``path label``; paths may hold spaces.

    The n-th list is session n, which is what CCNet's lists mean for Tongji; for sets of one session, say so. A label
    is an identity and a subject.
    """

    name = "txt_list"
    example = "train.txt"
    modalities = ()

    def wanted(self) -> tuple[str, ...]:
        return (self.params.modality,)

    def scan(self, root: Path) -> Table:
        records = []
        counts: dict[tuple[str, int], int] = {}
        for position, name in enumerate(self.params.lists, 1):
            session = 0 if self.params.one_session else position
            for line, text in enumerate(_read(root / name, self.name).split("\n"), 1):
                if not text.strip():
                    continue
                path, space, label = text.strip().rpartition(" ")
                if not space:
                    raise DataError(f"{root / name}:{line}: a line is 'path label', not {text.strip()!r}")
                counts[label, session] = sample = counts.get((label, session), 0) + 1
                file = PurePosixPath(self.params.images, path.strip()).as_posix()
                records.append(Record(file, self.params.modality, label, "", session, sample))
        if not records:
            raise DataError(f"{root}: the lists {', '.join(self.params.lists)} name no image")
        table = Table(records, root)
        if not any(_is_there(table)):
            first = f"none of the {len(table)} images that the lists name is there, such as {table.file(records[0])}"
            raise DataError(f"{root}: {first}; set images to the folder that their paths start from")
        return table


class PairCsv(Adapter[PairCsvParams]):
    """A CSV with columns ``palm``, ``vein`` or both, ``subject``, and if wanted ``hand``, ``session``, ``sample``.

    Paths start from the CSV's folder; an empty cell is a missing image. The root is the CSV or its folder.
    """

    name = "pair_csv"
    example = "pairs.csv"
    modalities = ()
    pairing = "same_identity"

    def scan(self, root: Path) -> Table:
        path = root if root.is_file() else root / self.params.file
        lines = _read(path, self.name).splitlines(keepends=True)
        records: list[Record] = []
        try:
            reader = csv.DictReader(lines)
            columns = reader.fieldnames = [column.strip() for column in reader.fieldnames or []]
            modalities = [modality for modality in MODALITIES if modality in columns]
            for column in ["subject", *([] if modalities else MODALITIES)]:
                if column not in columns:
                    hint = did_you_mean(column, columns) or f"; it has {', '.join(columns) or 'none'}"
                    raise DataError(f"{path}: there is no column {column!r}{hint}")
            for row in reader:
                records += self._row(path, reader.line_num, row, modalities)
        except csv.Error as error:
            raise DataError(f"{path}: not a CSV file: {error}") from error
        if not records:
            raise DataError(f"{path}: no row names an image")
        table = Table(records, path.parent)
        if not any(_is_there(table)):
            first = f"none of the {len(table)} images that it names is there, such as {table.file(records[0])}"
            raise DataError(f"{path}: {first}; paths start from the folder of the CSV")
        return table

    def _row(self, path: Path, line: int, row: dict[str, str | None], modalities: list[str]) -> list[Record]:
        cells = {column: (value or "").strip() for column, value in row.items() if isinstance(column, str)}
        if not cells["subject"]:
            raise DataError(f"{path}:{line}: subject is empty")
        if not any(cells[modality] for modality in modalities):
            raise DataError(f"{path}:{line}: {' and '.join(modalities)} {'are' if len(modalities) > 1 else 'is'} empty")
        numbers: dict[str, int] = {}
        # Without a number, each row is a sample of its own.
        for column, default in (("session", 0), ("sample", line - 1)):
            text = cells.get(column) or str(default)
            if not text.isdecimal() or len(text) > MAX_DIGITS:
                raise DataError(f"{path}:{line}: {column} must be a whole number, not {text!r}")
            numbers[column] = int(text)
        pairing = self.params.pairing if len(modalities) > 1 else ""
        whose = cells["subject"], cells.get("hand", ""), numbers["session"], numbers["sample"]
        return [
            Record(PurePosixPath(cells[modality]).as_posix(), modality, *whose, "", pairing)
            for modality in modalities
            if cells[modality]
        ]


def _is_there(table: Table) -> Iterable[bool]:
    return (table.file(record).is_file() for record in table)


def _read(path: Path, layout: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        message = f"{path}: no such file; layout {layout!r} needs it"
        raise DataError(message + _nearby(path, layout)) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text in UTF-8") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _nearby(path: Path, layout: str) -> str:
    """Where the file lies instead: above, or one folder below."""
    root = path.absolute().parent
    if not root.is_dir():
        return ""
    folders = [*root.parents[:2], *(root / name for name in subfolders(root, layout))]
    found = next((folder for folder in folders if (folder / path.name).is_file()), None)
    return f"; there is one in {found}" if found else ""
