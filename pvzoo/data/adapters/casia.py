"""CASIA-MS-PalmprintV1: 200 palms in six spectra at once, 2 sessions of 3 images each."""

from __future__ import annotations

import re

from .. import CasiaParams
from ..table import Record
from .base import UNUSED, Expected, PatternAdapter, Unused, hand_of

_PER_SESSION = 3


class CasiaMs(PatternAdapter[CasiaParams]):
    """``001_l_460_01.jpg``; copies of regions of interest write ``ROI_`` before it."""

    name = "casia_ms"
    example = "images/001_l_460_01.jpg"
    expected = Expected(identities=200, sessions=2, samples=_PER_SESSION, images=1200)
    pairing = "simultaneous"
    pattern = r"(?:ROI_)?(\d{3,4})_([lr])_(460|630|700|850|940|WHT)_(\d{2})\.(?:jpe?g|png|bmp)"

    def record(self, path: str, match: re.Match[str]) -> Record | Unused | None:
        spectrum, number = match[3].upper(), int(match[4])
        if not 1 <= number <= 2 * _PER_SESSION:
            return None
        wanted: dict[str | None, str] = {self.params.palm: "palm", self.params.vein: "vein"}
        modality = wanted.get(spectrum)
        if modality is None:
            return UNUSED
        session, sample = divmod(number - 1, _PER_SESSION)
        pairing = self.pairing if self.params.palm and self.params.vein else ""
        subject, hand = str(int(match[1])), hand_of(match[2])
        return Record(path, modality, subject, hand, session + 1, sample + 1, spectrum, pairing)
