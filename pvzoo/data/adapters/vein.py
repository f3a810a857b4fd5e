"""Palm veins alone: VERA, PUT, SCUT_PV_v1."""

from __future__ import annotations

import re

from ...registry import NoParams
from .. import ScutParams, VeraParams
from ..table import Record
from .base import UNUSED, Expected, PatternAdapter, Unused, hand_of, palm_of


class Vera(PatternAdapter[VeraParams]):
    """``roi/001-M/001_L_1_1.png``, and ``raw/`` with whole images under the same names."""

    name = "vera"
    example = "roi/001-M/001_L_1_1.png"
    expected = Expected(identities=220, sessions=2, samples=5, images=2200)
    pattern = r"(raw|roi)/\d+-[MF]/(\d+)_([LR])_([12])_(\d+)\.png"

    def record(self, path: str, match: re.Match[str]) -> Record | Unused:
        if match[1].lower() != self.params.images:
            return UNUSED
        return Record(path, "vein", str(int(match[2])), hand_of(match[3]), int(match[4]), int(match[5]))


class Put(PatternAdapter[NoParams]):
    """``hand/o_001/left/1/P_o001....bmp``: three series of four; samples are numbered in the order of names."""

    name = "put"
    example = "hand/o_001/left/1/P_o001_1.bmp"
    expected = Expected(identities=100, sessions=3, samples=4, images=1200)
    pattern = r"hand/o_(\d+)/(left|right)/[^/\d]*([1-9])/P_o[^/]+\.bmp"

    def record(self, path: str, match: re.Match[str]) -> Record | Unused:
        return Record(path, "vein", str(int(match[1])), hand_of(match[2]), int(match[3]))


class ScutPv(PatternAdapter[ScutParams]):
    """``ROI/scale1.0/1_1.jpg``: palm and number; the other scales are larger cuts of the same images."""

    name = "scut_pv"
    example = "ROI/scale1.0/1_1.jpg"
    expected = Expected(identities=1100, sessions=1, samples=10, images=11000)
    pattern = r"scale(\d+(?:\.\d+)?)/(\d+)_(\d+)\.(?:jpe?g|png|bmp)"

    def record(self, path: str, match: re.Match[str]) -> Record | Unused:
        if match[1] != self.params.scale:
            return UNUSED
        return Record(path, "vein", *palm_of(int(match[2]), 1, self.params.two_hands), 1, int(match[3]) + 1)
