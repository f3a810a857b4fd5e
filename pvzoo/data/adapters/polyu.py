"""PolyU: the multispectral set (500 palms, 4 bands, 2 sessions of 6 images) and palmprint II (386 palms)."""

from __future__ import annotations

import re

from .. import NumberedPalmsParams, PolyuMsParams
from ..table import Record
from .base import UNUSED, BandAdapter, Expected, PatternAdapter, Unused, palm_of

_PER_SESSION = 6
_BANDS = {band.lower(): band for band in ("Blue", "Green", "Red", "NIR")}


class PolyuMs(BandAdapter[PolyuMsParams]):
    """``NIR/0001/1_01_s.jpg`` as published; ``NIR_ind/0001_0001.jpg`` and ``NIR/palm_000101.jpg`` in flat copies."""

    name = "polyu_ms"
    example = "NIR/0001/1_01_s.jpg"
    expected = Expected(identities=500, sessions=2, samples=_PER_SESSION, images=6000)
    pairing = "simultaneous"
    pattern = (
        r"(Blue|Green|Red|NIR)(?:_ind)?/"
        r"(?:(\d{4})/([12])_(\d{2})(?:_s)?|(\d{4})_(\d{4})|palm_(\d{4})(\d{2}))\.(?:jpe?g|bmp|png)"
    )

    def record(self, path: str, match: re.Match[str]) -> Record | Unused | None:
        if match[2]:
            palm, session, sample = (int(part) for part in match.group(2, 3, 4))
        else:
            palm, number = int(match[5] or match[7]), int(match[6] or match[8])
            session, sample = ((number - 1) // _PER_SESSION + 1, (number - 1) % _PER_SESSION + 1)
        if not (palm and session in (1, 2) and 1 <= sample <= _PER_SESSION):
            return None
        modality = self.modality(match[1])
        if modality is None:
            return UNUSED
        whose = palm_of(palm, self.params.two_hands)
        return Record(path, modality, *whose, session, sample, _BANDS[match[1].lower()], self.pairing)


class Polyu2(PatternAdapter[NumberedPalmsParams]):
    """``P_F_1_1.bmp``: F is the first session and S the second; about ten images of each palm in each."""

    name = "polyu2"
    example = "P_F_1_1.bmp"
    expected = Expected(identities=386, sessions=2, images=7752)
    modalities = ("palm",)
    pattern = r"P_([FS])_0*([1-9]\d*)_(\d+)\.(?:bmp|jpe?g|png)"

    def record(self, path: str, match: re.Match[str]) -> Record | Unused:
        session = 1 if match[1].upper() == "F" else 2
        return Record(path, "palm", *palm_of(int(match[2]), self.params.two_hands), session, int(match[3]))
