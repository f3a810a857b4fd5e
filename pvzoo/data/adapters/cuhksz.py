"""CUHKSZ-v1: 2,334 hands, RGB and infrared by two cameras at once."""

from __future__ import annotations

import re

from ...registry import NoParams
from ..table import Record
from .base import Expected, PatternAdapter, Unused, subject_of

_PER_HAND = 6


class Cuhksz(PatternAdapter[NoParams]):
    """``imgs/1_00001_1.bmp`` (RGB) and ``imgs2/1_00001_1.bmp`` (infrared); 1 to 6 left, 7 to 12 right.

    The first number is read as the session. Marks and disparities, in ``marks/`` and ``disp/``, belong to the set
    and are not images.
    """

    name = "cuhksz"
    example = "imgs/1_00001_1.bmp"
    expected = Expected(identities=2334, sessions=1, samples=_PER_HAND, images=14004)
    pairing = "simultaneous"
    pattern = r"(imgs|imgs2)/(\d+)_(\d+)_(\d+)\.(?:bmp|png|jpe?g)"
    companions = r"marks/[^/]+\.mat|disp/[^/]+\.txt"

    def record(self, path: str, match: re.Match[str]) -> Record | Unused | None:
        number = int(match[4])
        if not 1 <= number <= 2 * _PER_HAND:
            return None
        modality, spectrum = ("palm", "RGB") if match[1].lower() == "imgs" else ("vein", "IR")
        hand = "left" if number <= _PER_HAND else "right"
        sample = (number - 1) % _PER_HAND + 1
        return Record(path, modality, subject_of(match[3]), hand, int(match[2]), sample, spectrum, self.pairing)
