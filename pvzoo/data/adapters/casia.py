"""CASIA-MS-PalmprintV1: 200 palms in six spectra at once, 2 sessions of 3 images each."""

from __future__ import annotations

import re

from .. import CasiaParams
from ..table import Record
from .base import UNUSED, BandAdapter, Expected, Unused, hand_of, subject_of

_PER_SESSION = 3


class CasiaMs(BandAdapter[CasiaParams]):
    """``001_l_460_01.jpg``; copies of regions of interest write ``ROI_`` before it."""

    name = "casia_ms"
    example = "images/001_l_460_01.jpg"
    expected = Expected(identities=200, sessions=2, samples=_PER_SESSION, images=1200)
    pairing = "simultaneous"
    pattern = r"(?:ROI_)?(\d{3,4})_([lr])_(460|630|700|850|940|WHT)_(0[1-6])\.(?:jpe?g|png|bmp)"

    def record(self, path: str, match: re.Match[str]) -> Record | Unused:
        modality = self.modality(match[3])
        if modality is None:
            return UNUSED
        session, sample = divmod(int(match[4]) - 1, _PER_SESSION)
        whose = subject_of(match[1]), hand_of(match[2])
        return Record(path, modality, *whose, session + 1, sample + 1, match[3].upper(), self.pairing)
