"""Palm veins alone: VERA, PUT, SCUT_PV_v1."""

from __future__ import annotations

import re

from ...registry import NoParams
from .. import ScutParams, VeraParams
from ..table import Record
from .base import UNNUMBERED, UNUSED, Expected, PatternAdapter, Unused, hand_of, palm_of, subject_of


class Vera(PatternAdapter[VeraParams]):
    """``roi/001-M/001_L_1_1.png``, and ``raw/`` with whole images under the same names."""

    name = "vera"
    example = "roi/001-M/001_L_1_1.png"
    expected = Expected(identities=220, sessions=2, samples=5, images=2200)
    modalities = ("vein",)
    pattern = r"(raw|roi)/\d+-[MF]/(\d+)_([LR])_([12])_(\d+)\.png"

    def record(self, path: str, match: re.Match[str]) -> Record | Unused:
        if match[1].lower() != self.params.images:
            return UNUSED
        return Record(path, "vein", subject_of(match[2]), hand_of(match[3]), int(match[4]), int(match[5]))


class Put(PatternAdapter[NoParams]):
    """``hand/o_001/left/Series_1/P_o001_L_S1_Nr1.bmp``: three series of four; wrists, in ``W_`` files, are not used.

    A name without ``Nr`` is numbered in the order of names.
    """

    name = "put"
    example = "hand/o_001/left/Series_1/P_o001_L_S1_Nr1.bmp"
    expected = Expected(identities=100, sessions=3, samples=4, images=1200)
    modalities = ("vein",)
    pattern = r"o_(\d+)/(left|right)/[^/\d]*([1-3])/P_o[^/]*?(?:_Nr(\d+))?\.bmp"
    companions = r"o_\d+/(?:left|right)/[^/]+/W_o[^/]+\.bmp"

    def record(self, path: str, match: re.Match[str]) -> Record | Unused:
        sample = int(match[4]) if match[4] else UNNUMBERED
        return Record(path, "vein", subject_of(match[1]), hand_of(match[2]), int(match[3]), sample)


class ScutPv(PatternAdapter[ScutParams]):
    """``ROI/scale1.0/1/1_1.jpg``, also without the palm's folder; larger scales are wider cuts of the same images."""

    name = "scut_pv"
    example = "ROI/scale1.0/1/1_1.jpg"
    expected = Expected(identities=1100, sessions=1, samples=10, images=11000)
    modalities = ("vein",)
    pattern = r"scale(\d+(?:\.\d+)?)/(?:\d+/)?0*([1-9]\d*)_(\d+)\.(?:jpe?g|png|bmp)"
    companions = r"RAW/(?:\d+/)?\d+_\d+\.(?:jpe?g|png|bmp)"

    def record(self, path: str, match: re.Match[str]) -> Record | Unused:
        if float(match[1]) != self.params.scale:
            return UNUSED
        return Record(path, "vein", *palm_of(int(match[2]), self.params.two_hands), 1, int(match[3]))
