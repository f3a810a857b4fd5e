"""A contact sheet: some identities of a data set, palm and vein side by side, drawn with Pillow."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..errors import DataError, ImageError, count
from ..imagefile import check_floats, check_range, decoding, is_negative, open_image
from .table import Pair, Table

T = TypeVar("T")

# Pixels.
TILE, MARGIN = 132, 24
_IN_PAIR, _IN_SESSION, _BETWEEN_SESSIONS, _BETWEEN_ROWS = 4, 14, 34, 12
_TITLE, _HEADING, _CAPTION = 34, 26, 18
# More would not be looked at.
MAX_SESSIONS = 4

_PAPER, _INK, _FAINT, _EMPTY, _BROKEN = "#ffffff", "#1c1e22", "#70757d", "#f0f1f3", "#f9dede"


@dataclass(frozen=True)
class Sheet:
    """A drawn sheet.

    Attributes:
        image: RGB.
        faults: Images that could not be drawn, with the reason.
    """

    image: Image.Image
    faults: tuple[str, ...]


def draw_sheet(table: Table, *, rows: int = 8, samples: int = 2, seed: int = 0) -> Sheet:
    """Draws a row an identity; within it sessions from left to right, and pairs of each.

    The choice depends on the seed and the labels alone: it is the same on every machine and for any order of files.

    Args:
        table: Of a scan, or read from a file.
        rows: Identities, at most.
        samples: Pairs of each session, at most.
        seed: Another seed, other identities and samples.

    Raises:
        DataError: If two files claim to be one image, or there is nothing to draw.
    """
    if rows < 1 or samples < 1:
        raise DataError(f"a sheet has at least one row and one sample, not {rows} and {samples}")
    of: dict[str, dict[int, list[Pair]]] = defaultdict(lambda: defaultdict(list))
    for pair in table.pairs():
        of[pair.identity][pair.session].append(pair)
    if not of:
        raise DataError(f"{table.root}: the table is empty")
    chosen = _some(of, rows, seed)
    every = sorted({session for identity in chosen for session in of[identity]})
    sessions = every[:MAX_SESSIONS]
    most = min(samples, max(len(pairs) for identity in chosen for pairs in of[identity].values()))

    text = ImageFont.load_default(14)
    label_width = max(_width(text, _ascii(identity)) for identity in chosen) + 18
    pair_width = len(table.modalities) * (TILE + _IN_PAIR) - _IN_PAIR
    session_width = most * (pair_width + _IN_SESSION) - _IN_SESSION
    row_height = TILE + _CAPTION + _BETWEEN_ROWS
    width = 2 * MARGIN + label_width + len(sessions) * (session_width + _BETWEEN_SESSIONS) - _BETWEEN_SESSIONS
    title = f"{_ascii(table.root.absolute().name)}: {len(chosen)} of {count(len(of), 'identity', 'identities')}"
    title += f", {len(sessions)} of {len(every)} sessions" if len(every) > len(sessions) else ""
    title += f", pairing {table.pairing}" if table.pairing else ""
    width = max(width, 2 * MARGIN + _width(ImageFont.load_default(18), title))
    height = 2 * MARGIN + _TITLE + _HEADING + len(chosen) * row_height - _BETWEEN_ROWS
    page = _Page(Image.new("RGB", (width, height), _PAPER), table)

    page.write((MARGIN, MARGIN), title, 18)
    images = _images(table)
    for place, session in enumerate(sessions):
        left = MARGIN + label_width + place * (session_width + _BETWEEN_SESSIONS)
        heading = (f"session {session}: " if session else "") + images
        page.write((left, MARGIN + _TITLE), heading, 14)
        for row, identity in enumerate(chosen):
            top = MARGIN + _TITLE + _HEADING + row * row_height
            if not place:
                page.write((MARGIN, top + TILE // 2), _ascii(identity), 14, anchor="lm")
            pairs = sorted(_some(of[identity][session], samples, seed), key=lambda pair: pair.sample)
            for at, pair in enumerate(pairs):
                page.place(pair, left + at * (pair_width + _IN_SESSION), top)
    return Sheet(page.image, tuple(page.faults))


class _Page:
    def __init__(self, image: Image.Image, table: Table) -> None:
        self.image = image
        self.table = table
        self.faults: list[str] = []
        self._draw = ImageDraw.Draw(image)

    def write(self, at: tuple[int, int], text: str, size: int, fill: str = _INK, anchor: str = "la") -> None:
        self._draw.text(at, text, fill, ImageFont.load_default(size), anchor=anchor)

    def place(self, pair: Pair, left: int, top: int) -> None:
        self.write((left, top + TILE + 3), f"sample {pair.sample}", 12, _FAINT)
        for modality, record in pair.images.items():
            if record is None:
                self._blank(left, top, _EMPTY, f"no {modality}")
            else:
                try:
                    tile = _tile(self.table.file(record))
                    self.image.paste(tile, (left, top))
                except ImageError as error:
                    self.faults.append(f"{record.path}: {error}")
                    self._blank(left, top, _BROKEN, "unreadable")
            left += TILE + _IN_PAIR

    def _blank(self, left: int, top: int, fill: str, text: str) -> None:
        self._draw.rectangle((left, top, left + TILE - 1, top + TILE - 1), fill)
        self.write((left + TILE // 2, top + TILE // 2), text, 13, _FAINT, "mm")


def _images(table: Table) -> str:
    """``"palm (460) and vein (850)"``."""
    spectra: dict[str, set[str]] = defaultdict(set)
    for record in table:
        spectra[record.modality].add(record.spectrum)
    of = {
        modality: f" ({_ascii(*names)})" if len(names) == 1 and any(names) else ""
        for modality, names in spectra.items()
    }
    return " and ".join(modality + of[modality] for modality in table.modalities)


def _some(items: Iterable[T], number: int, seed: int) -> list[T]:
    """The first few by a hash of the seed and what they are called, in their own order."""
    order = list(items)
    chosen = sorted(range(len(order)), key=lambda i: sha256(f"{seed}/{order[i]}".encode()).digest())[:number]
    return [order[i] for i in sorted(chosen)]


def _tile(path: Path) -> Image.Image:
    """An image in a square, its whole range of grey in 8 bits."""
    with decoding(), path.open("rb") as file:
        image: Image.Image = open_image(file)
        check_range(image)
        negative = is_negative(image)
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
            image = ImageOps.invert(image) if negative else image
        elif image.mode == "F":
            check_floats(*image.getextrema())
            image = image.point(lambda value: value * 255.0).convert("L")
        elif image.mode == "P":
            image = image.convert("RGBA")
        image = ImageOps.contain(image.convert("RGB"), (TILE, TILE), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (TILE, TILE), _EMPTY)
    square.paste(image, ((TILE - image.width) // 2, (TILE - image.height) // 2))
    return square


def _ascii(text: str) -> str:
    """Pillow's own font knows ASCII alone: accents are left out, other letters written as numbers."""
    plain = unicodedata.normalize("NFKD", text)
    return "".join(c for c in plain if not unicodedata.combining(c)).encode("ascii", "backslashreplace").decode()


def _width(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str) -> int:
    return round(font.getlength(text))
