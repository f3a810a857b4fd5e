"""A folder of palms and a folder of veins, in which equal names are a pair: matched by name, never by order."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from ...errors import count
from ...pairs import SUFFIXES
from .. import FolderPairParams
from ..table import MODALITIES, Pairing, Record, Table
from .base import Adapter

# What may be a hand and a session at the end of what the usual pattern takes for a subject.
_TAIL = re.compile(
    r"(?P<who>.+?)((?P<before_hand>[-_/ ])(?P<hand>left|right|l|r))?"
    r"((?P<before_session>[-_/ ](s|session)?)(?P<session>\d+))?",
    re.IGNORECASE,
)


class FolderPair(Adapter[FolderPairParams]):
    """``palm/anna_1.png`` and ``vein/anna_1.png``, in subfolders too; extensions may differ.

    ``anna_left_1`` and ``anna_left_2_1`` say the hand, and hand and session, too.
    """

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
        records = table.records if len(table.modalities) > 1 else [replace(record, pairing="") for record in table]
        # Who writes a pattern has said what names mean.
        usual = self.params.pattern == FolderPairParams().pattern
        doubts = list(_one_person(table.subjects)) if usual else []
        return Table(records, root, unexpected=table.unexpected, doubts=doubts)


def _one_person(subjects: Iterable[str]) -> Iterator[str]:
    """Warns of subjects that differ in what looks like a hand or a session alone; nothing is read from it."""
    people: defaultdict[str, list[re.Match[str]]] = defaultdict(list)
    for match in map(_TAIL.fullmatch, subjects):
        if match and match["who"] != match.string:
            people[match["who"]].append(match)
    # One name with many numbers, ``clinic_001`` and on, is what all people of a set begin with.
    if len(people) == 1 and not any(match["hand"] for found in people.values() for match in found):
        return
    alike = [match for found in people.values() if len(found) > 1 for match in found]
    if not alike:
        return
    hands = "|".join(sorted({match["hand"] for match in alike if match["hand"]}))
    (hand, session), _ = Counter((match["before_hand"], match["before_session"]) for match in alike).most_common(1)[0]
    pattern = r"(?P<subject>.+)" + (f"{hand}(?P<hand>{hands})" if hand else "")
    pattern += (f"{session}(?P<session>\\d+)" if session else "") + r"_(?P<sample>\d+)"
    number = len({match["who"] for match in alike})
    yield (
        f"subjects {alike[0].string} and {alike[1].string} look like one person, and no split would keep their images "
        f"apart: {len(alike)} subjects may be {count(number, 'person', 'people')}. If they are, make a table of them: "
        f"pvzoo data scan DIR --layout folder_pair --set 'pattern={pattern}' -o table.csv"
    )
