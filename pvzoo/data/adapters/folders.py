"""A folder of palms and a folder of veins, in which equal names are a pair: matched by name, never by order."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from ...pairs import SUFFIXES
from .. import FolderPairParams
from ..table import MODALITIES, Pairing, Record, Table
from .base import Adapter


class FolderPair(Adapter[FolderPairParams]):
    """``palm/anna_1.png`` and ``vein/anna_1.png``, in subfolders too; extensions may differ."""

    name = "folder_pair"
    example = "palm/anna_1.png"
    pairing: Pairing = "same_sample"

    def __init__(self, params: FolderPairParams) -> None:
        super().__init__(params)
        self.pairing = params.pairing
        self._pattern = re.compile(params.pattern)

    def parse(self, path: str) -> Record | None:
        modality, _, rest = path.partition("/")
        stem, dot, suffix = rest.rpartition(".")
        match = self._pattern.fullmatch(stem)
        if modality not in MODALITIES or f"{dot}{suffix}".lower() not in SUFFIXES or not match:
            return None
        found = match.groupdict()
        numbers = [found.get("session") or "0", found["sample"] or ""]
        if not found["subject"] or not all(number.isdecimal() for number in numbers):
            return None
        session, sample = map(int, numbers)
        return Record(path, modality, found["subject"], found.get("hand") or "", session, sample, "", self.pairing)

    def scan(self, root: Path) -> Table:
        table = super().scan(root)
        if len(table.modalities) > 1:
            return table
        return Table([replace(record, pairing="") for record in table], root, unexpected=table.unexpected)
