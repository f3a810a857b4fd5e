"""Tongji contactless palmprint (2017) and palm vein (2018): 600 palms, 2 sessions, 10 images of each.

The two sets were captured apart. That equal numbers are equal palms is the field's convention, so the pairing is
``same_identity`` and no more.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ...errors import DataError
from .. import NumberedPalmsParams, TongjiParams
from ..table import Record, Table
from .base import Adapter, Expected, PatternAdapter, Unused, palm_of, walk

_PER_SESSION = 10
_FILE = re.compile(r"session([12])/(\d{5})\.(?:bmp|tiff?|png|jpe?g)", re.IGNORECASE)


class Tongji(Adapter[TongjiParams]):
    """``ROI/session1/00001.bmp`` and ``Palmvein/session1/00001.tiff``; ten consecutive numbers are one palm."""

    name = "tongji"
    example = "ROI/session1/00001.bmp"
    expected = Expected(identities=600, sessions=2, samples=_PER_SESSION, images=12000)
    pairing = "same_identity"

    def scan(self, root: Path) -> Table:
        given = {"palm": self.params.palm_root, "vein": self.params.vein_root}
        roots = {modality: root / folder for modality, folder in given.items() if folder is not None}
        if not root.is_dir():
            next(walk(root, self.name))
        for modality, folder in roots.items():
            if not folder.is_dir():
                example = folder / "session1" / ("00001.bmp" if modality == "palm" else "00001.tiff")
                message = f"{folder}: layout {self.name!r} expects the {modality} images here, such as {example}; "
                raise DataError(message + f"set {modality}_root to their folder, or to null if there are none")
        records: list[Record] = []
        unexpected: list[str] = []
        # Roots may lie outside of the folder that was given; then they are walked as well.
        inside = {m: f.relative_to(root).as_posix() + "/" for m, f in roots.items() if f.is_relative_to(root)}
        outside = {m: f for m, f in roots.items() if m not in inside}
        for path in walk(root, self.name):
            within = [(modality, folder) for modality, folder in inside.items() if path.startswith(folder)]
            found = [self._record(m, path[len(folder) :], path) for m, folder in within]
            records += filter(None, found)
            if not any(found):
                unexpected.append(path)
        for modality, folder in outside.items():
            for path in walk(folder, self.name):
                full = (Path(os.path.normpath(folder.absolute())) / path).as_posix()
                record = self._record(modality, path, full)
                (records if record else unexpected).append(record or full)  # type: ignore[arg-type]
        if not records:
            raise self.wrong_root(root, unexpected)
        return Table(records, root, unexpected=unexpected)

    def _record(self, modality: str, inner: str, path: str) -> Record | None:
        match = _FILE.fullmatch(inner)
        if match is None or int(match[2]) < 1:
            return None
        palm, sample = divmod(int(match[2]) - 1, _PER_SESSION)
        subject, hand = palm_of(palm + 1, 1, self.params.two_hands)
        pairing = self.pairing if self.params.palm_root and self.params.vein_root else ""
        return Record(path, modality, subject, hand, int(match[1]), sample + 1, pairing=pairing)


class Tongji600Flat(PatternAdapter[NumberedPalmsParams]):
    """``PalmPrint/PalmPrint_<id>_<sample>.png``: copies that mix the sessions, so that the session is not known.

    One copy holds 300 identities of 40 samples, two palms merged into each; ``check`` finds it.
    """

    name = "tongji600_flat"
    example = "PalmPrint/PalmPrint_1_1.png"
    expected = Expected(identities=600, sessions=1, samples=20, images=12000)
    pairing = "same_identity"
    pattern = r"Palm(Print|Vein)_(\d+)_(\d+)\.(?:png|jpe?g|bmp|tiff?)"

    def record(self, path: str, match: re.Match[str]) -> Record | Unused:
        modality = "palm" if match[1].lower() == "print" else "vein"
        # Copies count from 0 or from 1; pairs of hands are 0 and 1, or 1 and 2, and only the user can know.
        subject, hand = palm_of(int(match[2]), 1, self.params.two_hands)
        # Sample 0 would be taken for one without a number.
        return Record(path, modality, subject, hand, 0, int(match[3]) + 1, pairing=self.pairing)
