"""Open set with comparisons that a file lists, as evaluation kits come with."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import Field

from ...errors import DataError
from ..split import Comparisons, Excluded
from ..table import Pair, Table
from .base import OneTable, ProtocolParams, Sides


class PairListParams(ProtocolParams):
    """A list of comparisons."""

    file: str = Field(description="CSV of path, path, and 1 (genuine) or 0; paths start from the table's folder")


class PairList(OneTable[PairListParams]):
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
