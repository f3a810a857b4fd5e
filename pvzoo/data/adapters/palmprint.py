"""Palmprints alone, by hand-held and fixed cameras: IIT Delhi, XJTU-UP, MPDv2."""

from __future__ import annotations

import re

from ...registry import NoParams
from .. import XjtuParams
from ..table import Record
from .base import UNNUMBERED, UNUSED, Expected, PatternAdapter, Unused, hand_of, subject_of


class Iitd(PatternAdapter[NoParams]):
    """``Segmented/Left/001_1.bmp``, and the whole hands in ``Left Hand/``, which are not used; one session."""

    name = "iitd"
    example = "Segmented/Left/001_1.bmp"
    expected = Expected(identities=460, sessions=1)
    modalities = ("palm",)
    pattern = r"(Left|Right)/(\d+)_(\d+)\.(?:bmp|jpe?g|png)"
    companions = r"(?:Left|Right) Hand/[^/]+\.(?:bmp|jpe?g|png)"

    def record(self, path: str, match: re.Match[str]) -> Record | Unused:
        return Record(path, "palm", subject_of(match[2]), hand_of(match[1]), 1, int(match[3]))


class XjtuUp(PatternAdapter[XjtuParams]):
    """``iPhone/Flash/L_1/...``: five phones, two kinds of light.

    File names say nothing, so samples are numbered in their order, through all phones and lights of a palm.
    """

    name = "xjtu_up"
    example = "iPhone/Flash/L_001/1.jpg"
    expected = Expected(identities=200, sessions=1, images=20000)
    modalities = ("palm",)
    pattern = r"(iPhone|huawei|LG|MI8|Samsung)/(Flash|Nature)/([LR])_(\d+)/[^/]+\.(?:jpe?g|png|bmp)"

    def __init__(self, params: XjtuParams) -> None:
        super().__init__(params)
        if params.phones or params.lights:
            self.expected = Expected(identities=200, sessions=1)

    def record(self, path: str, match: re.Match[str]) -> Record | Unused:
        for value, wanted in ((match[1], self.params.phones), (match[2], self.params.lights)):
            if wanted and value.lower() not in (word.lower() for word in wanted):
                return UNUSED
        return Record(path, "palm", subject_of(match[4]), hand_of(match[3]), 1, UNNUMBERED, f"{match[1]}-{match[2]}")


class Mpdv2(PatternAdapter[NoParams]):
    """``001_1_h_l_01.jpg``: subject, session, phone (h or m), hand, number; cut images may add ``_ROI``.

    Odd samples are those of phone h, even ones those of phone m.
    """

    name = "mpdv2"
    example = "001_1_h_l_01.jpg"
    expected = Expected(identities=400, sessions=2, samples=20, images=16000)
    modalities = ("palm",)
    pattern = r"(\d+)_([12])_([hm])_([lr])_0*([1-9]\d*)(?:_ROI)?\.(?:jpe?g|png|bmp)"

    def record(self, path: str, match: re.Match[str]) -> Record | Unused:
        phone = match[3].lower()
        sample = 2 * int(match[5]) - (phone == "h")
        return Record(path, "palm", subject_of(match[1]), hand_of(match[4]), int(match[2]), sample, phone)
