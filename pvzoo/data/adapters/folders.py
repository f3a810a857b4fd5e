"""A folder of palms and a folder of veins, in which equal names are a pair: matched by name, never by order."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from ...errors import DataError
from ...pairs import SUFFIXES
from .. import FolderPairParams
from ..table import MODALITIES, Record, Table
from .base import Adapter, Unused


class FolderPair(Adapter[FolderPairParams]):
    """``palm/anna_1.png`` and ``vein/anna_1.png``, in subfolders too; extensions may differ."""

    name = "folder_pair"
    example = "palm/anna_1.png"

    def __init__(self, params: FolderPairParams) -> None:
        super().__init__(params)
        try:
            self._pattern = re.compile(params.pattern)
        except re.error as error:
            raise DataError(f"layout {self.name!r}: pattern is not a regular expression: {error}") from error
        groups = set(self._pattern.groupindex)
        if not {"subject", "sample"} <= groups <= {"subject", "sample", "hand", "session"}:
            needs = "(?P<subject>...) and (?P<sample>...), and may have hand and session"
            raise DataError(f"layout {self.name!r}: pattern needs the groups {needs}; it has {sorted(groups)}")

    def parse(self, path: str) -> Record | Unused | None:
        modality, _, rest = path.partition("/")
        stem, dot, suffix = rest.rpartition(".")
        match = self._pattern.fullmatch(stem)
        if modality not in MODALITIES or f"{dot}{suffix}".lower() not in SUFFIXES or not match:
            return None
        found = match.groupdict()
        numbers = [found.get("session") or "0", found["sample"]]
        if not all(number.isdecimal() for number in numbers):
            return None
        session, sample = map(int, numbers)
        hand = found.get("hand") or ""
        return Record(path, modality, found["subject"], hand, session, sample, pairing=self.params.pairing)

    def scan(self, root: Path) -> Table:
        table = super().scan(root)
        if len(table.modalities) > 1:
            return table
        return Table([replace(record, pairing="") for record in table], root, unexpected=table.unexpected)
