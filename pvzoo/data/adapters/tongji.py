"""Tongji contactless palmprint (2017) and palm vein (2018): 600 palms, 2 sessions, 10 images of each.

The two sets were captured apart. That equal numbers are equal palms is the field's convention, so the pairing is
``same_identity`` and no more.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from ...errors import DataError, did_you_mean
from .. import FlatParams, TongjiParams
from ..table import MODALITIES, Record, Table
from .base import Adapter, Expected, PatternAdapter, Unused, palm_of, subfolders

_PER_SESSION = 10
_FILE = re.compile(r"session([12])/(\d{5})\.(?:bmp|tiff?|png|jpe?g)", re.IGNORECASE)


class Tongji(Adapter[TongjiParams]):
    """``ROI/session1/00001.bmp`` and ``Palmvein/session1/00001.tiff``; ten consecutive numbers are one palm.

    Only these two folders are walked: the palmprint set also has its uncut images, under the same names.
    """

    name = "tongji"
    example = "ROI/session1/00001.bmp"
    expected = Expected(identities=600, sessions=2, samples=_PER_SESSION, images=12000)
    pairing = "same_identity"

    def __init__(self, params: TongjiParams) -> None:
        given = {"palm": params.palm_root, "vein": params.vein_root}
        self._roots = {m: PurePosixPath(folder) for m, folder in given.items() if folder is not None}
        super().__init__(params)

    def wanted(self) -> tuple[str, ...]:
        return tuple(modality for modality in MODALITIES if modality in self._roots)

    def folders(self) -> list[str]:
        # One within the other would be walked twice.
        roots = list(self._roots.values())
        return [str(a) for a in roots if not any(a != b and a.is_relative_to(b) for b in roots)]

    def scan(self, root: Path) -> Table:
        for modality, folder in self._roots.items():
            there, place = subfolders(root, self.name), root / folder
            if not place.is_dir():
                example = place / "session1" / ("00001.bmp" if modality == "palm" else "00001.tiff")
                message = f"{place}: layout {self.name!r} expects the {modality} images here, such as {example}; set "
                message += f"{modality}_root to their folder, or to null if there are none"
                message += did_you_mean(folder.name, there) or f"; {root} holds {', '.join(there[:5]) or 'no folders'}"
                raise DataError(message + self.hint(root))
        return super().scan(root)

    def parse(self, path: str) -> Record | None:
        for modality, folder in self._roots.items():
            start = "" if str(folder) == "." else f"{folder}/"
            match = _FILE.fullmatch(path, len(start)) if path.startswith(start) else None
            if match and int(match[2]):
                palm, sample = divmod(int(match[2]) - 1, _PER_SESSION)
                whose = palm_of(palm + 1, self.params.two_hands)
                return Record(path, modality, *whose, int(match[1]), sample + 1, pairing=self.pairing)
        return None


class Tongji600Flat(PatternAdapter[FlatParams]):
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
        palm, first = int(match[2]), self.params.first
        if self.params.two_hands and palm < first:
            raise DataError(f"{path}: palm {palm} comes before the first, {first}; set first to 0")
        whose = palm_of(palm, self.params.two_hands, first)
        return Record(path, modality, *whose, 0, int(match[3]), pairing=self.pairing)
