"""Data sets given by text files: CCNet's lists of images and labels, and a CSV with a pair a row."""

from __future__ import annotations

import csv
from pathlib import Path

from ...errors import DataError, did_you_mean
from .. import PairCsvParams, TxtListParams
from ..table import MODALITIES, Record, Table
from .base import Adapter


class TxtList(Adapter[TxtListParams]):
    """``train.txt`` and ``test.txt`` with lines ``path label``; paths may hold spaces, and start from the root.

    The n-th list is session n, as CCNet's lists mean it; a label is an identity and a subject.
    """

    name = "txt_list"
    example = "train.txt"

    def scan(self, root: Path) -> Table:
        records = []
        for session, name in enumerate(self.params.lists, 1):
            counts: dict[str, int] = {}
            for number, line in enumerate(_read(root / name, self.name).splitlines(), 1):
                if not line.strip():
                    continue
                path, space, label = line.strip().rpartition(" ")
                if not space:
                    raise DataError(f"{root / name}:{number}: a line is 'path label', not {line.strip()!r}")
                counts[label] = counts.get(label, 0) + 1
                records.append(Record(path.strip(), self.params.modality, label, "", session, counts[label]))
        if not records:
            raise DataError(f"{root}: the lists {', '.join(self.params.lists)} name no image")
        return Table(records, root)


class PairCsv(Adapter[PairCsvParams]):
    """A CSV with columns ``palm``, ``vein`` or both, ``subject``, and if wanted ``hand``, ``session``, ``sample``.

    Paths start from the CSV's folder; an empty cell is a missing image. The root is the CSV or its folder.
    """

    name = "pair_csv"
    example = "pairs.csv"

    def scan(self, root: Path) -> Table:
        path = root if root.is_file() else root / self.params.file
        lines = _read(path, self.name).splitlines(keepends=True)
        records: list[Record] = []
        try:
            reader = csv.DictReader(lines)
            columns = list(reader.fieldnames or [])
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
        return Table(records, path.parent)

    def _row(self, path: Path, line: int, row: dict[str, str | None], modalities: list[str]) -> list[Record]:
        cells = {column: (value or "").strip() for column, value in row.items() if isinstance(column, str)}
        if not cells["subject"]:
            raise DataError(f"{path}:{line}: subject is empty")
        numbers: dict[str, int] = {}
        # Without a number, each row is a sample of its own.
        for column, default in (("session", 0), ("sample", line - 1)):
            text = cells.get(column) or str(default)
            if not text.isdecimal():
                raise DataError(f"{path}:{line}: {column} must be a whole number, not {text!r}")
            numbers[column] = int(text)
        pairing = self.params.pairing if len(modalities) > 1 else ""
        return [
            Record(
                cells[m], m, cells["subject"], cells.get("hand", ""), numbers["session"], numbers["sample"], "", pairing
            )
            for m in modalities
            if cells[m]
        ]


def _read(path: Path, layout: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; layout {layout!r} needs it") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text in UTF-8") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
